"""Figures of a program's own: declared, rounded on the device, blocked otherwise, weighted over the fleet."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch

import fedge
from fedge.catalog.datasets import DATASETS
from fedge.coordinator.metrics import own_figures
from fedge.device.device import Device
from fedge.errors import RunError
from fedge.protocol import DeviceFailure, Status
from fedge.protocol.budget import bits_at_most
from fedge.protocol.figures import require_declared
from fedge.scenario.report import Figure

F1 = "report.figures.macro_f1={least=0.0, most=1.0, steps=5}"
PROGRAM = """
from flwr.clientapp import ClientApp
from fedge.device.handler import on_device
from fedge.privacy.egress import egress_gate

app = ClientApp(mods=[egress_gate])

@app.train()
@on_device
def improve(device, plan):
    device.train()
    return device.report(macro_f1=device.args["value"] + 0.01 * device.client)
"""


@pytest.fixture
def device(opened: Callable[..., Device]) -> Device:
    return opened(F1, "training.instance_filter.kind=none")


@pytest.mark.parametrize("value", [0.6, torch.tensor(0.6), numpy.float32(0.6), numpy.array(0.6)])
def test_a_figure_is_rounded_on_the_device(device: Device, value: Any) -> None:
    """Breaks if more digits leave than the scenario budgets for."""
    assert device.report(macro_f1=value).own == {"macro_f1": 0.5}


@pytest.mark.parametrize(
    ("figures", "status", "told"),
    [
        ({"macro_f1": 1.01}, Status.BLOCKED_VALUE, "is 1.01; declared are 0 to 1"),
        ({"macro_f1": -1e-9}, Status.BLOCKED_VALUE, "declared are 0 to 1"),
        ({"macro_f1": float("nan")}, Status.BLOCKED_VALUE, "is nan"),
        ({"macro_f1": float("inf")}, Status.BLOCKED_VALUE, "is inf"),
        ({"macro_f1": 10**400}, Status.BLOCKED_TYPE, "is a int"),
        ({"macro_f1": "0.5"}, Status.BLOCKED_TYPE, "is a str"),
        ({"macro_f1": None}, Status.BLOCKED_TYPE, "is a NoneType"),
        ({"macro_f1": True}, Status.BLOCKED_TYPE, "is a bool"),
        ({"macro_f1": torch.zeros(2)}, Status.BLOCKED_TYPE, "is a Tensor; it should be one number"),
        ({"macro_f1": 0.5, "f2": 0.5}, Status.BLOCKED_FIELD, "'f2' is not declared"),
        ({}, Status.BLOCKED_FIELD, "'macro_f1' is declared and was not given"),
    ],
)
def test_what_is_not_as_declared_does_not_leave(
    device: Device, figures: dict[str, Any], status: Status, told: str
) -> None:
    """Breaks if a figure says more than was declared, in its name, its type or its value."""
    with pytest.raises(DeviceFailure) as caught:
        device.report(**figures)
    assert caught.value.status is status
    assert told in str(caught.value)


def test_the_gate_sees_what_the_device_did_not_round() -> None:
    """Breaks if a program that makes its own report gets finer figures out."""
    figures = {"f": Figure(least=-1.0, most=3.0, steps=5)}
    require_declared({"f": 2.0}, figures)
    for own, status in (({"f": 2.1}, Status.BLOCKED_VALUE), ({"g": 2.0}, Status.BLOCKED_FIELD)):
        with pytest.raises(DeviceFailure) as caught:
            require_declared(own, figures)
        assert caught.value.status is status


@pytest.mark.parametrize("steps", [2, 3, 256, 1000])
def test_every_value_of_a_figure_stays_itself(steps: int) -> None:
    """Breaks if rounding twice gives another value: the gate would block what the device rounded."""
    figure = Figure(least=-0.7, most=1.9, steps=steps)
    values = {figure.rounded(-0.7 + 2.6 * step / 4096) for step in range(4096)} | {figure.rounded(1.9)}
    assert len(values) == min(steps, len(values))
    assert all(figure.rounded(value) == value and -0.7 <= value <= 1.9 for value in values)
    assert {-0.7, 1.9} <= values


def test_figures_reach_every_table(small: Callable[..., Any], tmp_path: Path) -> None:
    """Breaks if a declared figure is lost between the device and the summary."""
    (tmp_path / "mine.py").write_text(PROGRAM)
    changes = (F1, f"client={tmp_path / 'mine.py'}", "client.args.value=0.6", "training.pruning.level=0")
    result = fedge.run(small(*changes), tmp_path / "out")
    assert {row["own.macro_f1"] for row in result.reports()} == {0.5, 0.75}
    own = result.summary["own"]["macro_f1"]
    last = [row for row in result.reports() if row["round"] == 2]
    weighted = sum(row["own.macro_f1"] * row["test_count"] for row in last) / sum(
        row["test_count"] for row in last
    )
    assert own["mean"] == pytest.approx(weighted)
    assert (own["clients"], own["min"], own["max"]) == (6, 0.5, 0.75)
    assert "report.own.macro_f1" in result.summary["egress"]["fields"]
    with pytest.raises(RunError, match="client 0: blocked_value"):
        fedge.run(small(*changes, "client.args.value=1.5"), tmp_path / "wrong")
    assert not list((tmp_path / "wrong").glob("devices/*/round-*"))


def test_weights_are_test_rows() -> None:
    """Breaks if a client with two test rows weighs as much as one with two hundred."""
    rows = [{"own.f": 0.0, "test_count": 1}, {"own.f": 1.0, "test_count": 3}, {"own.f": 9.0, "test_count": 0}]
    figure = own_figures(rows)["own"]["f"]
    assert (figure["mean"], figure["std"]) == (0.75, pytest.approx(0.75**0.5 / 2))
    assert (
        own_figures([{"own.f": 1.0, "test_count": 0}, {"own.f": 3.0, "test_count": 0}])["own"]["f"]["mean"]
        == 2
    )
    assert own_figures([{"test_count": 3}]) == {}


def test_a_report_s_bits_grow_by_what_is_declared() -> None:
    """Breaks if the forecast does not count a figure of one's own, or counts one that is not there."""
    figures = {"a": Figure(least=0.0, most=1.0, steps=256), "b": Figure(least=0.0, most=1.0, steps=257)}
    digits = DATASETS["digits"]
    assert bits_at_most(3, figures, digits) - bits_at_most(3, {}, digits) == 17
