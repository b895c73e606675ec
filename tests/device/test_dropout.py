"""What torch draws for itself, as dropout does: a function of the round, not of what the host did before."""

from pathlib import Path

import torch

import fedge

NETWORK = """
from torch import nn

def build(num_classes, in_channels, image_size):
    height, width = image_size
    return nn.Sequential(
        nn.Flatten(), nn.Linear(in_channels * height * width, 32), nn.Dropout(0.5), nn.Linear(32, num_classes)
    )
"""


def test_a_network_with_dropout_trains_alike_wherever_it_is(small, tmp_path: Path, monkeypatch) -> None:
    """Reports would depend on how many hosts there are, and on which clients a host had before."""
    (tmp_path / "net.py").write_text(NETWORK)
    changes = (f"model={{program='{tmp_path / 'net.py'}', factory={{epochs=1}}}}", "training.pruning.level=0")
    runs = []
    for index in range(2):
        monkeypatch.setenv("FEDGE_CACHE", str(tmp_path / f"cache{index}"))
        torch.rand(index + 1)
        runs.append(fedge.run(small(*changes), tmp_path / str(index)))
    assert runs[0].reports(timing=False) == runs[1].reports(timing=False)
    assert runs[0].summary["accuracy"] == runs[1].summary["accuracy"]
