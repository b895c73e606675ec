"""A scenario in a folder of its own, whose network is a program beside it."""

from collections.abc import Callable
from pathlib import Path

import pytest

from fedge.scenario.load import load_scenario
from fedge.scenario.schema import Scenario

NET = """
import torch
from layers import block
from torch import nn


class Net(nn.Module):
    def __init__(self, num_classes, in_channels, width):
        super().__init__()
        self.body = nn.Sequential(block(in_channels, width), block(width, 2 * width))
        self.head = nn.Linear(2 * width, num_classes)

    def forward(self, x_BCHW):
        return self.head(self.body(x_BCHW).mean((2, 3)))


def build(num_classes, in_channels, image_size, width=8):
    print("built for", image_size)
    return Net(num_classes, in_channels, width)
"""
LAYERS = """
from torch import nn


def block(before, after):
    return nn.Sequential(nn.Conv2d(before, after, 3, padding=1), nn.BatchNorm2d(after), nn.ReLU())
"""
SCENARIO = """
name = "own-net"
seed = 3
rounds = 2
[data]
dataset = "digits"
factory_fraction = 0.5
[model]
program = "net.py"
args = { width = 6 }
[[fleet]]
device = "jetson-nano"
count = 2
[training.pruning]
level = 0.3
[engine]
kind = "inline"
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """own.toml, net.py and layers.py, in a folder that is not the shell's; prepared data of its own."""
    monkeypatch.setenv("FEDGE_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir("/")
    (tmp_path / "own.toml").write_text(SCENARIO)
    (tmp_path / "net.py").write_text(NET)
    (tmp_path / "layers.py").write_text(LAYERS)
    return tmp_path


@pytest.fixture
def load(folder: Path) -> Callable[..., Scenario]:
    """`load(*changes)`: the scenario with `--set` changes."""
    return lambda *changes: load_scenario(str(folder / "own.toml"), changes)
