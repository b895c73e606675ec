"""What is counted once: of one model, and of all that are made alike of layers that everybody knows."""

from collections.abc import Callable

import torch
from torch import nn

from fedge.models import build
from fedge.training.counting.memo import remembered


class Own(nn.Module):
    """A layer of somebody's own: what it computes may depend on anything."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


def counter() -> tuple[list[int], Callable[[nn.Module], int]]:
    counted: list[int] = []

    @remembered
    def count(model: nn.Module) -> int:
        counted.append(sum(1 for _ in model.modules()))
        return counted[-1]

    return counted, count


def lenet(seed: int = 0) -> nn.Module:
    return build("lenet", num_classes=10, in_channels=1, image_size=28, seed=seed)


def test_networks_made_alike_are_counted_once() -> None:
    """Breaks if a device pays in every round for what its network, loaded anew, was known to cost."""
    counted, count = counter()
    count(lenet(1)), count(lenet(2).eval())
    assert len(counted) == 1


def test_a_difference_that_may_change_the_cost_is_counted() -> None:
    """Breaks if a pruned, frozen or rearranged network is charged for another one's steps."""
    counted, count = counter()
    narrow = build("lenet", num_classes=10, in_channels=1, image_size=28, width=0.5)
    frozen, strided, relu, layer = lenet(), lenet(), nn.ReLU(), nn.Linear(4, 4)
    frozen.get_parameter("conv1.weight").requires_grad_(False)
    strided.get_submodule("pool1").stride = 1  # type: ignore[assignment]
    shared, apart = nn.Sequential(layer, relu, layer), nn.Sequential(layer, relu, nn.Linear(4, 4))
    once, tied = nn.Sequential(layer, relu), nn.Sequential(layer, relu, nn.Linear(4, 4))
    tied[2].weight = layer.weight
    models = [lenet(), narrow, frozen, strided, shared, apart, once, tied, nn.Sequential(relu, layer)]
    for model in models:
        count(model)
    assert len(counted) == len(models)


def test_layers_of_ones_own_are_counted_model_by_model() -> None:
    """Breaks if a network that looks at its weights is charged by another host's."""
    counted, count = counter()
    hooked = lenet()
    hooked.register_forward_hook(lambda *_: None)
    first = nn.Sequential(Own())
    for model in (first, first, nn.Sequential(Own()), lenet(), hooked):
        count(model)
    assert len(counted) == 4
