"""Contrastive learning from an unlabelled, correlated stream with one small buffer: selective data contrast.

Wu, Wang, Zeng, Shi, Hu, "Enabling On-Device Self-Supervised Contrastive Learning With Selective Data Contrast", DAC
2021 (arXiv 2106.03796). A reconstruction: no code of the authors is public, and score, replacement rule and lazy
scoring follow descriptions of the paper, not its text.

    stream     segments I_t of N new samples, unlabelled, neighbours alike
    replace    B_{t+1} = N of B_t and I_t, by a rule                                buffer.py
    train      NT-Xent on two random views of every sample in B_{t+1}               nt_xent.py, views.py
    network    trunk f with a projection h in the place of its head, z = h(f(x))    projection.py
    probe      afterwards, on few labels: the head alone, on f(x)                   probe.py

The buffer is the mini-batch. Nothing here is given a label but the probe.
"""

from fedge.training.contrast.buffer import RULES, Buffer
from fedge.training.contrast.nt_xent import NtXent, nt_xent
from fedge.training.contrast.probe import fit_head
from fedge.training.contrast.projection import in_place_of_head, made_projection
from fedge.training.contrast.scores import contrast_scores

__all__ = [
    "RULES",
    "Buffer",
    "NtXent",
    "contrast_scores",
    "fit_head",
    "in_place_of_head",
    "made_projection",
    "nt_xent",
]
