"""A device that grows back: by its schedule, its detector, a policy or its program; in its state, and in a forecast."""

from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import fedge
from fedge.coordinator.memory import Memory
from fedge.coordinator.planner import Planner
from fedge.device.budget.battery import Battery, Charge
from fedge.device.device import Device
from fedge.device.location import Location
from fedge.device.simulated import Simulated
from fedge.device.state import StateFolder
from fedge.errors import UserError
from fedge.forecast import plan_scenario
from fedge.prepare import prepare
from fedge.training.drift_detector import Adwin

Make = Callable[..., Any]
LIGHT = (
    "training.instance_filter.kind=none",
    "training.error_maps.keep=1.0",
    "training.pruning.level=0.4",
    "schedule.finetune_rounds=1",
)
STREAM = ("data.stream.rate_per_h=60", "data.stream.memory=40", "data.stream.holdout=0.2")
REGROW = ("schedule.detector.then=regrow",)
CHARGE = Charge(Battery(None, 0.0), 0.0)


@pytest.fixture
def rounds_of(small: Make, tmp_path: Path) -> Callable[..., Iterator[Device]]:
    """Client 0 of a scenario, round by round as the edge client works; each yielded before its state is written."""
    numbers = count()

    def go(*changes: str, rounds: int) -> Iterator[Device]:
        scenario = small(*LIGHT, *changes, f"rounds={rounds}")
        folder, states = Path(prepare(scenario).folder), StateFolder(tmp_path / str(next(numbers)))
        location = Location(0, 0, folder, states.folder, Simulated.of(scenario, 0))
        planner = Planner(scenario)
        for round in range(1, rounds + 1):
            plan = planner.plans(round, [0], Memory(keep_history=True))[0]
            device = Device(location, plan, states.before(round))
            if device.begin():
                if device.plan.prune and not device.pruned:
                    device.prune()
                device.train()
            yield device
            states.write(device.state_after(device.report(), CHARGE))

    return go


def parameters(device: Device) -> int:
    return sum(parameter.numel() for parameter in device.model.parameters())


def test_a_schedule_brings_the_factorys_channels_back(rounds_of) -> None:
    """Breaks if pruning to yesterday's classes is for ever, or if growing back loses the shape's record on disk."""
    counts = [parameters(device) for device in rounds_of("schedule.regrow_at=[3]", rounds=5)]
    dense = counts[0]
    assert counts[1] < dense and counts[2] == dense and counts[3] < dense
    assert counts[4] == counts[3]


@pytest.mark.parametrize("weights", ["trained", "factory"])
def test_what_kept_channels_hold_is_as_the_schedule_says(rounds_of, weights: str) -> None:
    """Breaks if a regrown device is the factory's against the user's word, or is not."""
    changes = ("schedule.regrow_at=[3]", f"schedule.regrow_weights={weights}", "training.learning_rate=1e-12")
    before: dict[str, torch.Tensor] = {}
    for device in rounds_of(*changes, rounds=4):
        if device.plan.round == 2:
            with torch.no_grad():
                for parameter in device.model.parameters():
                    parameter += 1.0
            device._round.network.accept()
            before = device.model.state_dict()
        if device.plan.round != 3:
            continue
        factory = device.prepared.factory_model().state_dict()
        moved = sum(
            int(((tensor - factory[name]).abs() > 0.5).sum())
            for name, tensor in device.model.state_dict().items()
        )
        assert moved == (sum(tensor.numel() for tensor in before.values()) if weights == "trained" else 0)


def alarmed(monkeypatch: pytest.MonkeyPatch, *calls: int) -> None:
    """Whatever the errors are, the detector hears a change in these rounds."""
    numbers = count(1)
    monkeypatch.setattr(Adwin, "alarms", lambda self, values: int(next(numbers) in calls))


def test_an_alarm_is_the_devices_own_reason(rounds_of, monkeypatch) -> None:
    """Breaks if what a device found out by itself changes nothing in that round, or is not counted in its report."""
    alarmed(monkeypatch, 3)
    gone = [(parameters(device), device.report().alarms) for device in rounds_of(*STREAM, *REGROW, rounds=4)]
    (dense, *others), alarms = [left for left, _ in gone], [said for _, said in gone]
    assert others[0] < dense == others[1] > others[2]
    assert alarms == [0, 0, 1, 0]


def test_a_device_that_stands_still_costs_no_training(rounds_of, monkeypatch) -> None:
    """Breaks if nothing to adapt to still costs energy, or if the frames that come meanwhile are not looked at."""
    alarmed(monkeypatch, 4)
    changes = (*STREAM, "schedule.detector={then='retrain', retrain_rounds=1}")
    reports = [device.report() for device in rounds_of(*changes, rounds=5)]
    trained = [report.samples_seen > 0 for report in reports]
    assert trained == [True, True, False, True, False]
    assert reports[2].macs_done == 0 and all(report.ttt_count for report in reports[:3])
    assert [report.parameters for report in reports[2:]] == [reports[1].parameters] * 3


def test_the_detector_is_fed_as_labels_come_and_remembers(rounds_of, monkeypatch) -> None:
    """Breaks if it sees an error before its label has come, loses one between rounds, or goes on after a regrowth."""
    fed: list[list[bool]] = []
    heard = Adwin.alarms

    def watched(self: Adwin, values: Any) -> int:
        fed.append(np.asarray(values).tolist())
        return heard(self, values)

    monkeypatch.setattr(Adwin, "alarms", watched)
    changes = (*STREAM, "data.stream.label_delay_h=1.0", *REGROW)
    answered, known = 0, 0
    for device in rounds_of(*changes, rounds=4):
        answered += device.report().ttt_count
        known += len(fed[-1])
        detecting = device._round.intake.detecting
        assert len(detecting._known_h) == answered - known
        assert (detecting._known_h > device.plan.round).all()
        assert detecting._detector.width == known  # nothing is forgotten on disk
    assert fed[0] == [] and known > 60
    device.regrow()  # nothing happens to a network that is whole; this one is pruned
    assert detecting._detector.width == 0 and not len(detecting._known_h)


def test_a_program_may_grow_its_network_back(opened) -> None:
    """Breaks if `device.regrow()` thaws frozen layers, may be called in a counted loop, or works once."""
    device = opened(*LIGHT, "training.what=last", round=2)
    device.regrow()
    factory = device.model.state_dict()
    trained = {name for name, parameter in device.model.named_parameters() if parameter.requires_grad}
    device.prune()
    with device.counted() as _, pytest.raises(UserError, match=r"inside device\.counted"):
        device.regrow()
    device.regrow()
    assert not device.pruned
    assert all(torch.equal(tensor, factory[name]) for name, tensor in device.model.state_dict().items())
    assert {name for name, one in device.model.named_parameters() if one.requires_grad} == trained


def test_a_policy_may_ask_for_it(rounds_of, tmp_path: Path) -> None:
    """Breaks if the coordinator, which sees a client's alarms, cannot ask that client alone."""
    policy = tmp_path / "mine.py"
    policy.write_text("def plan(round, client, history, args):\n    return {'regrow': round == 3}\n")
    counts = [parameters(device) for device in rounds_of(f"schedule.program={policy}", rounds=4)]
    assert counts[1] < counts[0] == counts[2] > counts[3]


EXACT = (
    "fleet=[{device='jetson-nano', count=1}]",
    "data.partition={kind='iid'}",
    "clock.device_sigma=0",
    "clock.round_sigma=0",
    "training.batch_size=8",
    "training.pruning.ranking_samples=16",
)


@pytest.mark.parametrize("finetune", [0, 1])
def test_the_forecast_is_no_less_than_what_a_regrowth_takes(small, tmp_path, finetune: int) -> None:
    """Breaks if `fedge plan` promises less than a device then spends: memory, MACs, J, seconds."""
    how = (f"schedule.finetune_rounds={finetune}", "schedule.regrow_at=[3]", "rounds=4")
    scenario = small(*LIGHT, *EXACT, *how, shape=())
    (forecast,) = plan_scenario(scenario)
    rows = fedge.run(scenario, tmp_path).reports()
    assert max(row["memory_bytes"] for row in rows) <= forecast["memory_need_bytes"]
    for figure in ("macs", "energy_j", "time_s"):
        spent = [row["macs_done" if figure == "macs" else figure] for row in rows[2:]]
        most = forecast[f"regrow_{figure}"] * 1.0005  # reports are rounded
        assert max(spent) <= most
        assert not finetune or most <= spent[0] * 1.03  # the whole network, but for the ranking


def test_a_missing_extra_is_said_before_anything_is_prepared(small, tmp_path, monkeypatch) -> None:
    """Breaks if a run prepares for minutes, and then fails on every device for want of a package."""
    monkeypatch.setattr("fedge.launch.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'fedge\[streams\]'"):
        fedge.run(small(*LIGHT, *STREAM, *REGROW), tmp_path)
    assert not (tmp_path / "devices").exists()
