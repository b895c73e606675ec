"""Exits on simulated devices: the trunk stands still, costs are what ran, and reports tell of every exit."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from fedge.console.observer import Observer
from fedge.data.shard import Shard
from fedge.device.answers.serving import served_network
from fedge.device.state import StateFolder
from fedge.errors import UserError
from fedge.launch import RunResult, run_checked
from fedge.network.shipped import factory_prior
from fedge.prepare import prepare
from fedge.scenario.schema import Scenario
from fedge.training.exits.leaving import macs_to_leave
from fedge.training.macs import count_forward, count_macs

pytestmark = pytest.mark.xdist_group("exits")  # that share a run
OFF = ("training.pruning.level=0", "training.instance_filter.kind=none", "training.error_maps.keep=1.0")
EXITS = (*OFF, "training.exits.factory_epochs=1", "training.exits.channels=8")


def run(scenario: Scenario, folder: Path, *, resume: bool = False) -> RunResult:
    """`fedge.run`, without a page."""
    return run_checked(scenario, folder, resume=resume, overwrite=False, observer=Observer())


def only(rows: list[dict], round: int) -> list[dict]:
    return [row for row in rows if row["round"] == round]


@pytest.fixture(scope="module")
def by_labels(small, tmp_path_factory: pytest.TempPathFactory) -> tuple[Scenario, Path, RunResult]:
    """A run whose devices learn from labels."""
    folder = tmp_path_factory.mktemp("labels")
    scenario = small(*EXITS, "training.exits.teach=labels")
    return scenario, folder, run(scenario, folder)


def test_a_round_trains_exits_and_nothing_else(by_labels) -> None:
    """Breaks if the trunk moves, is paid a backward pass, or if looking for the prior, once, costs nothing."""
    _only_exits_are_trained(*by_labels, whole=False)


@pytest.mark.slow
@pytest.mark.parametrize("teach", ["soft", "hard"])
def test_a_teacher_trains_exits_and_nothing_else(small, tmp_path: Path, teach: str) -> None:
    """Breaks if the teacher learns, or if its way to the last exit is not paid for."""
    scenario = small(*EXITS, f"training.exits.teach={teach}")
    _only_exits_are_trained(scenario, tmp_path, run(scenario, tmp_path), whole=True)


def _only_exits_are_trained(scenario: Scenario, folder: Path, result: RunResult, *, whole: bool) -> None:
    prepared = prepare(scenario)
    shipped = prepared.factory_model()
    state = StateFolder(folder / "devices" / "0").at(scenario.rounds).model
    moved = {
        name.split(".")[0]
        for name, value in shipped.state_dict().items()
        if not torch.equal(state[name], value)
    }
    assert moved == {"exits", "rule"}
    shipped.freeze_trunk()
    shipped.whole = whole
    per_sample = count_macs(shipped, prepared.input_shape).training
    look = count_forward(shipped.trunk, prepared.input_shape).forward
    for row in result.reports():
        shard = Shard.open(Path(prepared.folder) / "shards", row["client"])
        looked_at = shard.count("train") + shard.count("validation") if row["round"] == 1 else 0
        assert row["status"] == "ok"
        assert row["macs_done"] == row["samples_seen"] * per_sample + looked_at * look
        assert row["macs_dense"] == row["samples_seen"] * prepared.macs_training
        assert row["what"] == "layers" and row["trunk_macs"] == look


def test_the_trunk_is_the_factory_model_without_exits(small) -> None:
    """Breaks if exits change what every other scenario ships, or the answers that gains are counted from."""
    plain, with_exits = (prepare(small(*changes)).factory_model().state_dict() for changes in (OFF, EXITS))
    assert all(torch.equal(with_exits[f"trunk.{name}"], value) for name, value in plain.items())


def test_left_as_shipped_and_never_left_is_the_factory_model(small, tmp_path: Path) -> None:
    """Breaks if teach = none trains or costs, or if with tau above 1 and no prior an answer is not the factory's."""
    left_alone = "training.exits.teach=none", "training.exits.threshold=1.5", "training.exits.prior=none"
    scenario = small(*EXITS, *left_alone)
    result = run(scenario, tmp_path)
    shipped = prepare(scenario).factory_model().state_dict()
    state = StateFolder(tmp_path / "devices" / "0").at(2).model
    assert all(
        torch.equal(state[name], value) for name, value in shipped.items() if not name.startswith("rule")
    )
    for row in result.reports():
        assert row["samples_seen"] == row["macs_done"] == 0
        assert row["exit_left"] == [0, 0, row["test_count"]]
        assert row["test_correct"] == row["factory_correct"] and row["test_gained"] == 0
    told = result.summary["exits"]
    assert told["macs"]["mean"] == told["macs"]["worst"] > told["macs"]["trunk"]


@pytest.mark.slow
def test_a_threshold_of_zero(small, tmp_path: Path) -> None:
    """Breaks if tau = 0 lets a sample go on."""
    result = run(small(*EXITS, "training.exits.threshold=0.0"), tmp_path)
    for row in only(result.reports(), 2):
        assert row["exit_left"] == [row["test_count"], 0, 0]
        assert row["exit_right"][0] == row["exit_alone"][0] == row["test_correct"]


def test_the_summary_is_of_the_reports(by_labels) -> None:
    """Breaks if the figures of the fleet are not the reports', or if what serves has lost its thresholds."""
    _, folder, result = by_labels
    rows, told = only(result.reports(), 2), result.summary["exits"]
    count = sum(row["test_count"] for row in rows)
    assert told["left"] == [sum(row["exit_left"][k] for row in rows) / count for k in range(3)]
    spent = sum(n * macs for row in rows for n, macs in zip(row["exit_left"], row["exit_macs"], strict=True))
    assert told["macs"]["mean"] == pytest.approx(spent / count)
    assert told == json.loads((folder / "rounds.jsonl").read_text().splitlines()[1])["exits"]
    assert all(sum(row["exit_left"]) == row["test_count"] for row in result.reports())
    state = StateFolder(folder / "devices" / "0").at(2).model
    assert torch.equal(served_network(folder, 0).rule.thresholds_K, state["rule.thresholds_K"])


def test_the_first_exit_filters(small, tmp_path: Path) -> None:
    """Breaks if a device with exits does not filter by them, or if what looking costs is not in the report."""
    by_exit = "training.instance_filter={kind='first_exit', keep=0.5}"
    scenario = small(*EXITS, by_exit, "schedule={kind='train_only'}", "rounds=1")
    row = run(scenario, tmp_path).reports()[0]
    network = prepare(scenario).factory_model()
    look = macs_to_leave(network, prepare(scenario).input_shape)[0]
    assert row["status"] == "ok" and row["instance_filter"] == "first_exit"
    assert row["macs_filter"] == row["samples_seen"] * look
    assert 0.5 * row["samples_seen"] <= row["samples_kept"] < 0.6 * row["samples_seen"]


@pytest.mark.slow
def test_pruned_first_then_trained(small, tmp_path: Path) -> None:
    """Breaks if a network with exits cannot be cut and built again, or is not retrained before its exits are."""
    scenario = small(*EXITS[1:], "training.pruning.level=0.4", "training.exits.retrain_epochs=1")
    result = run(scenario, tmp_path)
    whole, cut = (only(result.reports(), round) for round in (1, 2))
    assert all(row["status"] == "ok" and row["parameters"] < 0.7 * whole[0]["parameters"] for row in cut)
    assert all(row["exit_macs"][-1] < whole[0]["exit_macs"][-1] for row in cut)
    assert [row["samples_seen"] for row in cut] == [2 * row["samples_seen"] for row in whole]
    assert all(
        row["memory_bytes"] > row["memory_asked_bytes"] for row in cut
    )  # that of the whole network's training
    before, after = (StateFolder(tmp_path / "devices" / "0").at(round) for round in (1, 2))
    assert after.topology is not None and not torch.equal(
        before.model["trunk.conv1.weight"], after.model["trunk.conv1.weight"]
    )
    assert bool(served_network(tmp_path, 0).rule.knows_prior)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (("training.exits.teach=labels",), "error_maps.keep"),
        ((*EXITS, "training.what=head"), "what is 'head'"),
        ((*EXITS, "training.prior=em"), "exits.prior"),
        ((*EXITS, "training.exits.labelled=0.0"), "nothing teaches"),
        ((*EXITS, "privacy.least_count=5"), "least_count"),
        ((*OFF[2:], "training.instance_filter.kind=first_exit"), "give exits"),
        ((*EXITS, "training.instance_filter.kind=random"), "instance_filter.kind is 'random'"),
        ((*EXITS, "training.exits.threshold=0.5", "training.exits.slack=0.1"), "leave one out"),
        ((*EXITS, "fleet.0.training.exits.channels=4"), "one factory model"),
        ((*EXITS, "training.pruning.level={search='accuracy', slack=0.1}"), "by accuracy"),
    ],
)
def test_what_does_not_go_together_is_refused_in_one_line(small, changes: tuple[str, ...], said: str) -> None:
    """Breaks if a method that has nothing to do beside exits is dropped in silence."""
    with pytest.raises(UserError, match=said) as refused:
        small(*changes)
    assert "\n" not in str(refused.value)


def test_a_class_may_teach_otherwise(small) -> None:
    """Breaks if a device class cannot learn without labels beside one that has them."""
    scenario = small(*EXITS, "fleet.0.training.exits.teach=soft")
    assert [scenario.training_of(each).exits.teach for each in scenario.fleet][:2] == ["soft", "labels"]


@pytest.mark.slow
def test_a_run_that_was_cut_off_ends_the_same(by_labels, tmp_path: Path) -> None:
    """Breaks if thresholds, prior or exits are no part of a device's state."""
    scenario, folder, whole = by_labels
    out = tmp_path / "cut"
    shutil.copytree(folder, out)
    (out / "checkpoint.json").write_text((out / "checkpoint.previous.json").read_text())
    (out / "summary.json").unlink()
    for state in out.glob("devices/*/round-000002.safetensors"):
        state.unlink()
    resumed = run(scenario, out, resume=True)
    assert resumed.reports(timing=False) == whole.reports(timing=False)
    assert resumed.summary["exits"] == whole.summary["exits"]


@pytest.mark.slow
def test_on_ray_as_in_this_process(small, tmp_path: Path) -> None:
    """Breaks if exits give other numbers on a host."""
    scenario = small(*EXITS, "training.exits.teach=hard", "rounds=3")
    whole = run(scenario, tmp_path / "whole")
    run(small(*EXITS, "training.exits.teach=hard", "rounds=3", "engine.kind=ray"), tmp_path / "ray")
    kept = [json.loads(line) for line in (tmp_path / "ray" / "reports.jsonl").read_text().splitlines()]
    timed = {"wall_s"}
    assert len(kept) == len(whole.reports()) > 0
    for one, other in zip(whole.reports(), kept, strict=True):
        assert {k: v for k, v in one.items() if k not in timed} == {
            k: v for k, v in other.items() if k not in timed
        }


def test_the_last_exit_is_corrected_as_any_answer_is(small, tmp_path: Path) -> None:
    """Breaks if exits estimate a prior of their own: with another temperature, other rows or no least shift."""
    run(small(*EXITS, "training.adaptation.least_shift=0.0"), tmp_path / "exits")
    folder = Path(prepare(small(*EXITS)).folder)
    factory = factory_prior(folder)
    model = served_network(tmp_path / "exits", 0)
    told = model.rule.log_shift_C / factory.temperature
    prior_C = (factory.share_C * told.double().exp()).tolist()
    assert sum(prior_C) == pytest.approx(1.0, abs=1e-5)
    run(small(*EXITS, "training.adaptation.least_shift=0.99"), tmp_path / "still")
    assert not served_network(tmp_path / "still", 0).rule.log_shift_C.any()
