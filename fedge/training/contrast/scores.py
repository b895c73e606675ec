"""How well a network represents a sample already, without a label.

    S(x) = 1 - z . z+           z, z+: unit embeddings of x and of a weak, fixed view of it         0 .. 2

The view of a picture is its mirror image: nothing is left to luck. High where the representation depends on what does
not matter, and there the gradient of NT-Xent is large. It is as high for what means something else when it is mirrored
(digits, text, signs), so a score needs a view that keeps the label: windows of a sensor are jittered (views.py), never
mirrored nor turned in sign. Shapes: N samples, D numbers of an embedding.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedge.training.macs import evaluating

View = Callable[[Tensor], Tensor]


def embedded(model: nn.Module, x_NCHW: Tensor) -> Tensor:
    """Unit embeddings [N, D], in evaluation mode and without a gradient; the model's modes are put back."""
    with evaluating(model), torch.no_grad():
        return F.normalize(model(x_NCHW), dim=1)


def contrast_scores(model: nn.Module, x_NCHW: Tensor, view: View) -> Tensor:
    """S [N]: two forward passes a sample."""
    z_ND, other_ND = embedded(model, torch.cat([x_NCHW, view(x_NCHW)])).chunk(2)
    return 1 - (z_ND * other_ND).sum(1)


def mirrored(x_NCHW: Tensor) -> Tensor:
    """Left is right: the view by which pictures are scored."""
    return x_NCHW.flip(-1)
