"""Twenty ways for a network of one's own to be wrong: one line each, before anything is trained or written."""

import sys

import numpy as np
import pytest
import torch

from fedge.errors import UserError
from fedge.forecast import plan_scenario
from fedge.network import NetworkSource, sandbox
from fedge.network.check import check_network
from fedge.prepare import prepare
from fedge.scenario.load import load_scenario

HEAD = """
import random, sys, time, urllib.request
import numpy as np
import torch
from torch import nn

class Plain(nn.Module):
    def __init__(self, outputs=10, **_):
        super().__init__()
        self.body = nn.Conv2d(1, 4, 3, padding=1)
        self.head = nn.Linear(4, outputs)
    def features(self, x): return self.body(x).relu().mean((2, 3))
    def forward(self, x): return self.head(self.features(x))

def sequence(*layers): return nn.Sequential(nn.Flatten(), nn.Linear(256, 8), nn.ReLU(), *layers)
"""
FIRST_LINE = HEAD.count("\n") + 1
KWARGS = "def build(**facts): "
WRONG = {
    "raises": (KWARGS + "return 1 / 0", "net.py:build fails: ZeroDivisionError on line {line}: division by zero"),
    "exits": (KWARGS + "sys.exit(4)", "net.py:build fails: SystemExit on line {line}: 4"),
    "exits as it is read": ("sys.exit(4)", "which does not load: SystemExit on line {line}"),
    "no Python": ("def build(:", "which does not load: SyntaxError on line {line}"),
    "no build": ("def built(): pass", "has no 'build': did you mean 'built'"),
    "missing package": ("import no_such", "No module named 'no_such'; install it where the devices run"),
    "downloads": (
        KWARGS + "urllib.request.urlopen('http://127.0.0.1:9/weights')",
        "Connection refused.*give its first weights as model.weights",
    ),
    "no module": (KWARGS + "return 7", "gives a int; a torch.nn.Module is wanted"),
    "a class": (KWARGS + "return Plain", "gives the class Plain; a torch.nn.Module is wanted"),
    "no classes asked": ("def build(outputs=10): return Plain()", r"takes no num_classes \(it takes outputs\)"),
    "a value is missing": ("def build(num_classes, depth): return Plain()", "needs 'depth': give it in model.args"),
    "other outputs": (
        KWARGS + "return Plain(1000)",
        r"gives \[2, 1000\] for 2 samples of 10 classes; logits \[B, 10\] are wanted",
    ),
    "one output per place": (KWARGS + "return nn.Conv2d(1, 10, 1)", r"gives \[2, 10, 16, 16\] for 2 samples"),
    "a tuple": (
        "class Two(Plain):\n    def forward(self, x): return x, x\n" + KWARGS + "return Two()",
        "gives a tuple in evaluation mode",
    ),
    "a tuple in training": (
        "class Two(Plain):\n"
        "    def forward(self, x):\n"
        "        out = self.head(self.features(x))\n"
        "        return (out, out) if self.training else out\n" + KWARGS + "return Two()",
        "gives a tuple in training mode",
    ),
    "a fixed batch": (
        "class Two(Plain):\n    def features(self, x): return super().features(x).view(2, 4)\n"
        + KWARGS + "return Two()",
        r"cannot run on a batch of \[B, 1, 16, 16\]: RuntimeError on line {next}",
    ),
    "another picture size": (KWARGS + "return sequence(nn.Linear(9, 10))", "cannot run on a batch"),
    "float64": (KWARGS + "return Plain().double()", "body.weight is float64; fedge trains in float32"),
    "float64 by default": (
        "torch.set_default_dtype(torch.float64)\n" + KWARGS + "torch.set_default_dtype(torch.float64); return Plain()",
        "body.weight is float64",
    ),
    "lazy": (KWARGS + "return sequence(nn.LazyLinear(10))", "3.weight has no shape before it sees data"),
    "nan": (
        KWARGS + "net = Plain(); nn.init.constant_(net.head.bias, float('nan')); return net",
        "head.bias holds numbers that are nan or infinite",
    ),
    "nan logits": (
        "class Nan(Plain):\n    def forward(self, x): return super().forward(x) / 0\n" + KWARGS + "return Nan()",
        "gives logits that are nan or infinite",
    ),
    "frozen": (KWARGS + "return Plain().requires_grad_(False)", "has no parameter that can be trained"),
    "no gradient": (
        "class No(Plain):\n    @torch.no_grad()\n    def forward(self, x): return super().forward(x)\n"
        + KWARGS + "return No()",
        "without a gradient in training mode",
    ),
    "tied": (
        KWARGS + "net = sequence(nn.Linear(8, 8), nn.Linear(8, 10)); net[3].weight = nn.Parameter(net[3].weight); "
        "net.extra = net[3]; return net",
        "3.weight and extra.weight are one tensor",
    ),
    "one network for all": (
        "NET = Plain()\n" + KWARGS + "return NET",
        r"gives the same network twice \(body.weight is shared\)",
    ),
    "another size each time": (
        "WIDTHS = [8, 16]\n" + KWARGS + "w = WIDTHS.pop(); return sequence(nn.Linear(8, w), nn.Linear(w, 10))",
        r"builds another network the second time \(3.bias is \[16\], then \[8\]\)",
    ),
    "weights from nowhere": (
        KWARGS + "net = Plain(); net.head.bias.data += float(np.random.default_rng().random()); return net",
        "head.bias differs each time it is built",
    ),
    "random and not stored": (
        "class Noisy(Plain):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.shift = random.random()\n"
        "    def forward(self, x): return super().forward(x) + self.shift * torch.arange(10)\n"
        + KWARGS + "return Noisy()",
        "holds something random that its state_dict does not",
    ),
    "random in evaluation": (
        "class Noisy(Plain):\n    def forward(self, x): return nn.functional.dropout(super().forward(x), 0.5, True)\n"
        + KWARGS + "return Noisy()",
        "answers the same batch differently in evaluation mode",
    ),
    "not to be counted": (
        "class Inverse(Plain):\n"
        "    def forward(self, x): return super().forward(torch.linalg.inv(x + 9 * torch.eye(16)))\n"
        + KWARGS + "return Inverse()",
        "^net.py:build: .*linalg",
    ),
    "nothing to cut": (KWARGS + "return nn.Sequential(nn.Flatten(), nn.Linear(256, 10))", "^net.py:build: .*cut"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_network_is_one_line_and_nothing_is_made(folder, load, name, capfd) -> None:
    """Breaks if a fault of the network's shows after minutes of training, as a traceback, or not at all."""
    text, said = WRONG[name]
    said = said.replace("{line}", str(FIRST_LINE)).replace("{next}", str(FIRST_LINE + 1))
    (folder / "net.py").write_text(HEAD + text + "\n")
    state, dtype = torch.random.get_rng_state(), torch.get_default_dtype()
    numpy = np.random.get_state()[1].copy()
    args = "model.args={}"
    with pytest.raises(UserError, match=said) as refusal:
        prepare(load(args))
    assert "\n" not in str(refusal.value)
    assert [path.suffix for path in folder.glob("cache/prepared/*")] == [".lock"]
    assert capfd.readouterr() == ("", "")
    assert torch.equal(torch.random.get_rng_state(), state) and torch.get_default_dtype() == dtype
    assert np.array_equal(np.random.get_state()[1], numpy)


@pytest.mark.parametrize("name", ["raises", "other outputs", "nothing to cut"])
def test_a_forecast_says_the_same(folder, load, name) -> None:
    """Breaks if `fedge plan` answers a wrong network by a traceback, or by figures."""
    text, said = WRONG[name]
    (folder / "net.py").write_text(HEAD + text + "\n")
    with pytest.raises(UserError, match=said.replace("{line}", str(FIRST_LINE))):
        plan_scenario(load("model.args={}"))


@pytest.mark.timeout(60, method="thread")  # the other method has the process's one alarm
def test_a_network_that_never_ends_is_stopped(folder, load, monkeypatch) -> None:
    """Breaks if a loop without an end in the user's code hangs a run without a word."""
    monkeypatch.setattr(sandbox, "LIMIT_S", 0.5)
    (folder / "net.py").write_text(HEAD + KWARGS + "time.sleep(60)\n")
    with pytest.raises(
        UserError, match=f"net.py:build fails: TimeoutError on line {FIRST_LINE}: not done after 0.5 s"
    ):
        prepare(load("model.args={}"))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            "model.args={widht=4}",
            "model.args has 'widht', which net.py:build does not take; did you mean 'width'",
        ),
        ("model.args={width=-4}", "net.py:build fails: "),
        ("model.args={num_classes=4}", "args hold 'num_classes', which the data say"),
        ("model.name=lenet", "two networks, by name and by program"),
        ('model.program="gone.py"', "gone.py: "),
        ('model={name="lenet",args={height=2}}', "lenet takes width alone"),
        ('model={name="lenet",args={width=-1}}', "args.width is -1; a number above 0 and at most 4"),
        ('model={name="lenet",args={width=true}}', "args.width is True; a number"),
        ("model={}", "no network; give one"),
        ('model={name="net.py"}', "did you mean|file.py:name"),
        ('model={name="torchvision.models:resnet_18"}', "did you mean 'resnet18'"),
        ('model.reset=["head"]', "reset names layers of given weights"),
    ],
)
def test_a_wrong_key_is_one_line(load, change, said) -> None:
    """Breaks if a slip in [model] is answered by a traceback, or passes."""
    with pytest.raises(UserError, match=said) as refusal:
        prepare(load(change))
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    "name", ["squeezenet1_1", pytest.param("mobilenet_v3_small", marks=pytest.mark.slow)]
)
def test_a_network_of_torchvisions_passes_for_colour_and_is_refused_for_grey(name) -> None:
    """Breaks if torchvision's builders cannot be named as they are, or a first layer of three channels fails late."""
    source, scenario = NetworkSource(f"torchvision.models:{name}"), load_scenario("quickstart")
    check_network(source, scenario, 10, (3, 32, 32))
    assert source.version and source.version in sys.modules["torchvision"].__version__
    with pytest.raises(
        UserError, match=r"a batch of \[B, 1, 32, 32\].*to have 3 channels.*net.py of your own can wrap it"
    ):
        check_network(source, scenario, 10, (1, 32, 32))
