"""Policies: what they see, what they may say, where they run, and that a resumed run decides alike."""

import json
import shutil
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

import fedge
from fedge.coordinator.cohort import Fleet
from fedge.coordinator.memory import Memory
from fedge.coordinator.torch_free import torch_free
from fedge.errors import UserError

Make = Callable[..., Any]
LIGHT = ("training.instance_filter.kind=none", "training.error_maps.keep=1.0", "training.pruning.level=0")
BY_LOSS = """
def plan(round, client, history, args):
    assert all(row["client"] == client and row["round"] < round for row in history)
    assert not any("wall_s" in row for row in history)
    if not history or history[-1]["status"] != "ok":
        return None
    slower = history[-1]["train_loss"] > args["loss"]
    return {"training.learning_rate": args["rate"] if slower else args["rate"] / 2}
"""
BY_LOSS_ARGS = ("schedule.args.loss=1.0", "schedule.args.rate=0.006")


def lines(out: Path, log: str = "plans.jsonl") -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / log).read_text().splitlines()]


@pytest.fixture
def policy(tmp_path: Path) -> Callable[[str], str]:
    """Writes a policy's text and returns the --set change that names it."""

    def write(text: str) -> str:
        (tmp_path / "mine.py").write_text(text)
        return f"schedule.program={tmp_path / 'mine.py'}"

    return write


def test_a_resumed_run_decides_alike(small: Make, policy: Callable[[str], str], tmp_path: Path) -> None:
    """Breaks if a policy sees other history after a stop than it would have seen without one."""
    changes = (*LIGHT, policy(BY_LOSS), *BY_LOSS_ARGS, "faults.nan.at=[[2, 1]]", "rounds=4")
    whole = fedge.run(small(*changes), tmp_path / "whole")
    cut = tmp_path / "cut"
    shutil.copytree(whole.out, cut)
    (cut / "checkpoint.json").write_text((cut / "checkpoint.previous.json").read_text())
    (cut / "summary.json").unlink()
    for state in cut.glob("devices/*/round-000004.safetensors"):
        state.unlink()
    resumed = fedge.run(small(*changes), cut, resume=True)
    assert resumed.reports(timing=False) == whole.reports(timing=False)
    assert lines(cut) == lines(whole.out)
    sent = lines(whole.out)
    assert [(row["round"], row["client"]) for row in sent] == [(r, c) for r in range(1, 5) for c in range(6)]
    assert "training.learning_rate" not in next(
        row for row in sent if (row["round"], row["client"]) == (3, 1)
    )
    assert {row.get("training.learning_rate") for row in sent if row["round"] == 4} <= {0.006, 0.003, None}
    assert (whole.out / "programs" / "mine.py").read_text() == BY_LOSS


def test_an_edited_policy_does_not_go_on(small: Make, policy: Callable[[str], str], tmp_path: Path) -> None:
    """Breaks if half a run is decided by one text and half by another."""
    changes = (*LIGHT, policy(BY_LOSS), *BY_LOSS_ARGS)
    fedge.run(small(*changes), tmp_path / "out")
    policy(BY_LOSS.replace("/ 2", "/ 4"))
    with pytest.raises(UserError, match=r"mine\.py has changed since round 2: put .*programs/mine\.py back"):
        fedge.run(small(*changes, "rounds=3"), tmp_path / "out", resume=True)


def test_a_folder_of_before_plans_goes_on(small: Make, finished: Make, tmp_path: Path) -> None:
    """Breaks if a run begun by a version that kept no plans.jsonl cannot be resumed."""
    from fedge.results.run_folder import _digest

    out = tmp_path / "old"
    shutil.copytree(finished(*LIGHT).out, out)
    (out / "plans.jsonl").unlink()
    checkpoint = json.loads((out / "checkpoint.json").read_text())
    del checkpoint["digest"], checkpoint["logs"]["plans.jsonl"]
    checkpoint["digest"] = _digest(json.dumps(checkpoint, sort_keys=True).encode())
    (out / "checkpoint.json").write_text(json.dumps(checkpoint))
    resumed = fedge.run(small(*LIGHT, "rounds=3"), out, resume=True)
    assert resumed.reports(timing=False) == finished(*LIGHT, "rounds=3").reports(timing=False)
    assert lines(out) == []


def test_changes_of_a_class_reach_its_devices_alone(small: Make, tmp_path: Path) -> None:
    """Breaks if a class's epochs are planned for another, or plans.jsonl does not say what was sent."""
    result = fedge.run(small(*LIGHT, "fleet.1.training.epochs=2", "rounds=2"), tmp_path)
    epochs = {row["device"]: len(row["epoch_loss"]) for row in result.reports()}
    assert epochs == {"jetson-nano": 1, "raspberry-pi-4": 2, "raspberry-pi-3b-plus": 1}
    assert lines(tmp_path)[0] == {"round": 1, "client": 2, "device": "raspberry-pi-4", "training.epochs": 2}
    assert len(lines(tmp_path)) == 4


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ("return {'training.pruning.lvel': 0.5}", "unknown key 'training.pruning.lvel'; did you mean 'level'?"),
        ("return {'training.pruning.level': -0.1}", "training.pruning.level is -0.1; it should be greater"),
        ("return {'training.optimizer.momentum': float('inf')}", "optimizer.momentum is Infinity; it should be"),
        ("return {'training.epochs': True}", "training.epochs is true; it should be a valid integer"),
        ("return {'rounds': 3}", "unknown key 'rounds'; there are prune, regrow, training.epochs"),
        ("return {'prune': 'yes'}", "prune is 'yes'; it should be true or false"),
        ("return {'regrow': 5}", "regrow is 5; it should be true or false"),
        ("return {'training': 'plain'}", "training is 'plain'; it is a section"),
        ("return {3: 4}", "plan returned the key 3"),
        ("return [0.5]", "plan returned list; return a dict of changes"),
        ("return {'training.epochs': object()}", "plan returned what is no plain value"),
        ("return {'training.error_maps.score': 's.py:f'}", "whose text did not travel"),
        ("return 1 / 0", "ZeroDivisionError on line 2: division by zero"),
        ("raise SystemExit(4)", "SystemExit on line 2: 4"),
        ("history[0]['x'] = 1", "IndexError on line 2"),
        ("args['x'] = 1", "TypeError on line 2: 'mappingproxy' object does not support item assignment"),
        ("import torch", "ImportError on line 2: importing torch is refused"),
        ("from fedge.training.loop import train", "ImportError on line 2: importing fedge.training"),
        ("__import__('torchvision.models')", "importing torchvision is refused"),
    ],
)  # fmt: skip
def test_a_wrong_answer_names_the_policy_round_and_client(
    small: Make, policy: Callable[[str], str], body: str, told: str
) -> None:
    """Breaks if a policy's mistake reaches a device, or ends in a traceback."""
    scenario = small(policy(f"def plan(round, client, history, args):\n    {body}\n"))
    with pytest.raises(UserError) as caught:
        Fleet(scenario).ask(1)
    assert str(caught.value).startswith("mine.py: round 1, client 0: ")
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("import torch.nn\n", "importing torch is refused"),
        ("from fedge.device import device\n", "importing fedge.device is refused"),
        ("import helper\n", "importing torch is refused"),
        ("def plan(round, client):\n    return {}\n", "plan takes other arguments"),
        ("def plans(round, client, history, args):\n    return {}\n", "has no 'plan': did you mean 'plans'?"),
        ("plan = 0.5\n", "a float; a function or class is wanted"),
        ("def plan(:\n", "SyntaxError on line 1"),
    ],
)
def test_a_policy_that_does_not_load_is_refused_before_anything_starts(
    small: Make, policy: Callable[[str], str], tmp_path: Path, text: str, told: str
) -> None:
    """Breaks if minutes of preparation pass before a policy's first line is looked at."""
    (tmp_path / "helper.py").write_text("import torch\n")
    with pytest.raises(UserError) as caught:
        fedge.run(small(policy(text)), tmp_path / "out")
    assert told in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_torch_comes_back_as_it_was() -> None:
    """Breaks if a policy leaves devices in the same process without torch, or with a second one."""
    import torch

    with pytest.raises(ImportError), torch_free():
        import torch.linalg
    assert sys.modules["torch"] is torch
    import torch.linalg

    assert torch.linalg is sys.modules["torch.linalg"]


def report(round: int, time_s: float, right: int = 5) -> Mapping[str, Any]:
    tallies = {"validation_correct": right, "validation_count": 10}
    costs = {"time_s": time_s, "down_s": 0.02, "up_s": 0.01, "energy_j": 2 * time_s}
    return {"round": round, "client": 0, "status": "ok", **costs, **tallies}


def asked(scenario: Any, *times_s: float) -> Any:
    """Client 0's training settings after reports of rounds that took these times."""
    memory = Memory(keep_history=True)
    memory.take(report(round, time_s, round) for round, time_s in enumerate(times_s, start=1))
    return Fleet(scenario).ask(len(times_s) + 1, memory).plans[0].training


def test_deadline_prunes_the_late_and_feeds_the_early(small: Make) -> None:
    """Breaks if a device that is late is asked for more, or one with time to spare for less."""
    scenario = small("schedule.policy=deadline", "schedule.args.deadline_s=1.0", "rounds=9")
    late, early = asked(scenario, 3.0), asked(scenario, 0.45)
    assert (late.pruning.level, late.instance_filter.keep) == (0.7, 0.4)
    assert (early.pruning.level, early.instance_filter.keep) == (0.0, 0.8)
    assert asked(scenario, 3.0, 1.8).instance_filter.keep == pytest.approx(0.2)
    assert asked(scenario, 3.0, 1.8).pruning.level == 0.7
    by_energy = small("schedule.policy=deadline", "schedule.args={deadline_s=10.0,energy_j=2.0}")
    assert asked(by_energy, 1.8).pruning.level == 0.5


def test_deadline_leaves_the_slow_their_last_block(small: Make) -> None:
    """Breaks if a slow device goes on training what it has no time for, or a fast one stops to."""
    scenario = small("schedule.policy=deadline", "schedule.args.deadline_s=1.0", "rounds=9")
    assert asked(scenario, 3.0, 1.0).what == "all"  # the whole network, three rounds long
    assert asked(scenario, 3.0, 1.0, 1.0).what == "last"
    assert asked(scenario, 1.2, 1.0, 1.0).what == "all"
    never = small("schedule.policy=deadline", "schedule.args={deadline_s=1.0, slow=10.0}", "rounds=9")
    assert asked(never, 3.0, 1.0, 1.0).what == "all"


def test_deadline_by_time_leaves_the_level_to_the_late_device(small: Make) -> None:
    """Breaks if a device is given more seconds than are left beside its links, or one in time is made to search."""
    scenario = small("schedule.policy=deadline", "schedule.args={deadline_s=1.0, by_time=true}", "rounds=9")
    late = asked(scenario, 3.0).pruning.level
    assert (late.search, late.limit_s) == ("time", pytest.approx(0.9 - 0.03))
    assert asked(scenario, 0.45).pruning.level == 0.0
    by_energy = small(
        "schedule.policy=deadline", "schedule.args={deadline_s=10.0, energy_j=2.0, by_time=true}"
    )
    assert asked(by_energy, 1.8).pruning.level.limit_s == pytest.approx((1.8 - 0.03) * 0.9 * 2.0 / 3.6)


def test_deadline_needs_its_deadline(small: Make) -> None:
    """Breaks if a policy without its argument guesses one."""
    with pytest.raises(
        UserError, match=r"deadline\.py: round 1, client 0: .*needs schedule\.args\.deadline_s"
    ):
        Fleet(small("schedule.policy=deadline")).ask(1)
