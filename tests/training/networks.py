"""Small networks with every way of joining channels that pruning must understand, and random ones."""

import random
from collections.abc import Iterable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

DEEP = (
    "resnet32",
    "resnet56",
    "resnet74",
    "resnet110",
    "vgg16",
)  # resnet20's and vgg11's layers, only more of them


def with_slow(names: Iterable[str], slow: Iterable[str] = DEEP) -> list[Any]:
    """The parameters of a test: those of networks that take seconds stand behind the marker `slow`."""
    return [pytest.param(name, marks=[pytest.mark.slow] if name in slow else []) for name in names]


def parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


class Scaled(nn.Conv2d):
    """A convolution with a forward of its own."""

    def forward(self, x: Tensor) -> Tensor:
        return 3 * super().forward(x)


class DenseNetLike(nn.Module):
    """Concatenation, twice over: each layer reads all before it, the last three by keyword."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1)
        self.norm1 = nn.BatchNorm2d(6)
        self.grow1 = nn.Conv2d(6, 4, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(10)
        self.grow2 = nn.Conv2d(10, 4, 3, padding=1, bias=False)
        self.norm3 = nn.BatchNorm2d(14)
        self.head = nn.Linear(14, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = torch.cat((x, self.grow1(torch.relu(self.norm1(x)))), 1)
        x = torch.cat((x, self.grow2(input=torch.relu(self.norm2(x)))), 1)
        return self.head(input=torch.relu(self.norm3(input=x)).mean((2, 3)))


class Grouped(nn.Module):
    """A convolution in 3 groups of several channels, and one group per input with two outputs each."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 12, 3, padding=1)
        self.grouped = nn.Conv2d(12, 18, 3, padding=1, groups=3)
        self.mix = nn.Conv2d(18, 8, 1)
        self.doubled = nn.Conv2d(8, 16, 3, padding=1, groups=8)
        self.head = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.grouped(torch.relu(self.stem(x))))
        return self.head(torch.relu(self.doubled(torch.relu(self.mix(x)))).mean((2, 3)))


class Separable(nn.Module):
    """Depthwise, then pointwise."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1, bias=False),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Conv2d(8, 12, 1, bias=False),
            nn.BatchNorm2d(12),
            nn.ReLU(),
        )
        self.head = nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layers(x).mean((2, 3)))


class ThreeBranches(nn.Module):
    """A residual sum of three convolutions and the stem."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.branches = nn.ModuleList(nn.Conv2d(8, 8, k, padding=k // 2) for k in (1, 3, 5))
        self.norm = nn.BatchNorm2d(8)
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stem(x))
        joined = x + self.branches[0](x) + self.branches[1](x) + self.branches[2](x)
        return self.head(torch.relu(self.norm(joined)).mean((2, 3)))


class BiasNoNorm(nn.Sequential):
    """Biases, no norm, pixels flattened into a linear layer, a hidden linear layer."""

    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(3, 6, 3),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(6, 7, 3),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(7 * 16, 20),
            nn.ReLU(),
            nn.Linear(20, 5),
        )


class Transposed(nn.Sequential):
    """Down, up again by ConvTranspose (once in groups), PReLU per channel in between."""

    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(3, 8, 3, stride=2, padding=1),
            nn.PReLU(8),
            nn.ConvTranspose2d(8, 6, 4, stride=2, padding=1),
            nn.BatchNorm2d(6),
            nn.ReLU(),
            nn.ConvTranspose2d(6, 10, 3, padding=1, groups=2),
            nn.ReLU(),
            nn.Conv2d(10, 4, 1),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(2),
            nn.Flatten(),
            nn.Linear(16, 5),
        )


class Tokens(nn.Module):
    """Linear layers over the last axis of [B, T, F], positions averaged at the end."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.head = nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.second(torch.relu(self.first(x)))).mean(1))


class Repeated(nn.Module):
    """One convolution run twice."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.twice = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stem(x))
        return self.head(torch.relu(self.twice(torch.relu(self.twice(x)))).mean((2, 3)))


HAND_WRITTEN = (DenseNetLike, Grouped, Separable, ThreeBranches, BiasNoNorm, Transposed)
INPUT_SHAPE = (3, 14, 14)


class RandomNetwork(nn.Module):
    """A chain of random pieces: plain, depthwise, residual, concatenating, grouped; with and without norm."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        choose = random.Random(seed)
        self.pieces, self.kinds = nn.ModuleList(), []
        width = 3
        for _ in range(choose.randint(2, 5)):
            kind = choose.choice(["plain", "depthwise", "residual", "concat", "grouped"])
            new = 2 * choose.randint(2, 6)
            if kind in ("depthwise", "residual"):
                new = width
            if kind == "grouped" and width % 2:
                kind = "plain"
            groups = {"depthwise": width, "grouped": 2}.get(kind, 1)
            layers: list[nn.Module] = [nn.Conv2d(width, new, 3, padding=1, groups=groups)]
            if choose.random() < 0.6:
                layers.append(nn.BatchNorm2d(new))
            layers.append(nn.ReLU())
            if kind == "residual":
                layers.append(nn.Conv2d(new, new, 1))
            self.pieces.append(nn.Sequential(*layers))
            self.kinds.append(kind)
            width = width + new if kind == "concat" else new
        self.last = nn.Conv2d(width, 9, 1)
        self.head = nn.Linear(9, 5)

    def forward(self, x: Tensor) -> Tensor:
        for piece, kind in zip(self.pieces, self.kinds, strict=True):
            y = x + piece(x) if kind == "residual" else piece(x)
            x = torch.cat((x, y), 1) if kind == "concat" else y
        return self.head(torch.relu(self.last(x)).mean((2, 3)))


def shaken(model: nn.Module, seed: int = 0) -> nn.Module:
    """Give norms statistics and weights that are not 0 and 1, as after training."""
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight.data, module.bias.data, module.running_mean, module.running_var):
                tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
    return model
