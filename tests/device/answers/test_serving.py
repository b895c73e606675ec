"""`training.serve`: which of its networks a device answers with, held against a run that serves the last one's."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import fedge
from fedge.coordinator.metrics import served
from fedge.data.shard import Shard
from fedge.device.answers.serving import figure, helps, served_network
from fedge.device.state import DeviceState, KeptNetwork, Served, StateFolder
from fedge.errors import UserError
from fedge.launch import RunResult
from fedge.prepare import Prepared, prepare
from fedge.protocol import RoundPlan
from fedge.scenario.load import load_scenario
from fedge.scenario.schema import Scenario
from fedge.scenario.training import Training
from fedge.training.loop import evaluate
from fedge.training.stats import Evaluation
from tests.data.own.folders import scenario as own_scenario

Row = dict[str, Any]
ROUNDS = 4
# so few samples and so coarse a rate that rounds differ, for the better and for the worse
COARSE = (
    f"rounds={ROUNDS}", "training.learning_rate=0.08", "training.error_maps.keep=1.0",
    "data.partition={kind='pathological', classes=2}", "training.instance_filter={kind='none'}",
)  # fmt: skip
OF_TRAINING = (
    "macs_done",
    "samples_kept",
    "train_loss",
    "memory_bytes",
    "energy_j",
    "optimizer",
    "round",
    "client",
)
OF_THE_NETWORK = ("test_correct", "validation_correct", "test_gained", "test_lost", "parameters")


def right(model: torch.nn.Module, prepared: Prepared, client: int, split: str, own: bool) -> int:
    """Right answers of a network on a client's rows, among all classes or its own."""
    shard = Shard.open(f"{prepared.folder}/shards", client)
    classes = shard.own_classes if own else None
    return evaluate(model, shard.batches(split, 256), classes=classes, task=prepared.asked).correct


def expected_rounds(rows: list[Row], factory: dict[str, tuple[int, int]] | None) -> list[int]:
    """The round that serves after each of a client's rounds. factory: part -> how many answers of the factory
    model are right there, and of how many; None: it is no candidate."""
    best, of, found = -1, 0, []
    for row in rows:
        now = row["validation_correct"]
        if now >= best:
            best, of = now, row["round"]
        helps = True
        if factory is not None:
            right, count = (factory["train"][n] + factory["validation"][n] for n in (0, 1))
            helps = now >= factory["validation"][0] and now * count > right * row["validation_count"]
        found.append(of if helps else 0)
    return found


@pytest.mark.parametrize(
    ("serve", "answers"),
    [
        pytest.param("best", "own", marks=pytest.mark.long),
        ("never_worse", "own"),
        pytest.param("never_worse", "all", marks=pytest.mark.long),
    ],
)
def test_it_serves_what_the_validation_samples_of_a_plain_run_name(
    serve: str, answers: str, small: Callable[..., Scenario], finished: Callable[..., RunResult]
) -> None:
    """Breaks if test samples choose, if training is touched by what serves, if a pruned network is served in another's
    shape, or if the factory model is kept where training helps or not kept where it does not."""
    changes = (*COARSE, f"training.answers={answers}")
    last, run = finished(*changes), finished(*changes, f"training.serve={serve}")
    prepared = prepare(small(*changes))
    seen: set[str] = set()
    for client in range(6):
        plain, rows = ([row for row in each.reports() if row["client"] == client] for each in (last, run))
        shard, model = Shard.open(f"{prepared.folder}/shards", client), prepared.factory_model()
        by_factory = {
            part: (right(model, prepared, client, part, answers == "own"), shard.count(part))
            for part in ("train", "validation")
        }
        wanted = expected_rounds(plain, by_factory if serve == "never_worse" else None)
        assert [row["served"] for row in rows] == wanted
        for before, now, of in zip(plain, rows, wanted, strict=True):
            assert "served" not in before
            assert all(before[field] == now[field] for field in OF_TRAINING if field != "energy_j")
            if of:
                network = plain[of - 1]
                assert all(network[field] == now[field] for field in OF_THE_NETWORK)
            else:
                told = answers == "own"
                assert now["test_correct"] == now["told_correct" if told else "factory_correct"]
                assert now["validation_correct"] == by_factory["validation"][0]
                assert now["parameters"] == now["parameters_dense"]
            seen.add("factory" if not of else "last" if of == now["round"] else "earlier")
    assert {"earlier", "last"} <= seen  # else the case shows nothing
    states = [StateFolder(each.out / "devices" / "0").at(ROUNDS) for each in (last, run)]
    assert all(torch.equal(states[0].model[name], states[1].model[name]) for name in states[0].model)
    assert states[0].served is None
    counts = run.summary["served"]
    ends = [row for row in run.reports() if row["round"] == ROUNDS]
    assert counts["factory"] == sum(row["served"] == 0 for row in ends) and sum(counts.values()) == 6
    assert "served" not in last.summary
    assert (
        last.summary["egress"]["bits_at_most"] + (ROUNDS + 1).bit_length()
        == run.summary["egress"]["bits_at_most"]
    )


def test_it_is_what_a_user_takes_from_the_device(
    small: Callable[..., Scenario], finished: Callable[..., RunResult]
) -> None:
    """Breaks if the network in a device's folder is not the one that the last report was of."""
    run = finished(*COARSE, "training.answers=own", "training.serve=never_worse")
    prepared = prepare(small(*COARSE))
    for row in run.reports():
        if row["round"] == ROUNDS:
            model = served_network(run.out, row["client"])
            assert right(model, prepared, row["client"], "test", own=True) == row["test_correct"]
    with pytest.raises(UserError, match=r"client is 6; the run in .* has clients 0 to 5"):
        served_network(run.out, 6)


def test_the_label_prior_comes_with_it(
    small: Callable[..., Scenario], finished: Callable[..., RunResult]
) -> None:
    """Breaks if what a user takes from a device answers otherwise than the report says it does."""
    run = finished(*COARSE, "training.prior=em", "training.learning_rate=0.01")
    prepared = prepare(small(*COARSE))
    for row in run.reports():
        if row["round"] == ROUNDS:
            model = served_network(run.out, row["client"])
            assert right(model, prepared, row["client"], "test", own=False) == row["test_correct"]


def test_a_run_that_was_cut_serves_alike(
    small: Callable[..., Scenario], finished: Callable[..., RunResult], tmp_path: Path
) -> None:
    """Breaks if the served network is not in the state of the round that a run is taken up after."""
    changes = (*COARSE, "training.answers=own", "training.serve=best")
    whole, out = finished(*changes), tmp_path / "cut"
    shutil.copytree(whole.out, out)
    (out / "checkpoint.json").write_text((out / "checkpoint.previous.json").read_text())
    (out / "summary.json").unlink()
    for state in out.glob(f"devices/[024]/round-{ROUNDS:06}.safetensors"):
        state.unlink()
    resumed = fedge.run(small(*changes), out, resume=True)
    assert resumed.reports(timing=False) == whole.reports(timing=False)
    for path in whole.out.glob("devices/*/round-*"):
        if path.name.startswith(f"round-{ROUNDS:06}"):
            kept, again = (
                StateFolder(folder).at(ROUNDS) for folder in (path.parent, out / "devices" / path.parent.name)
            )
            assert kept.served and again.served and kept.served.of == again.served.of


@pytest.mark.parametrize("task", ["labels", "numbers"])
def test_labels_and_numbers_choose_by_their_own_figure(task: str, tmp_path: Path) -> None:
    """Breaks if numbers are chosen by answers within tolerance, or labels by whole samples."""
    generator = np.random.default_rng(0)
    x = generator.normal(0, 1, (240, 1, 12)).astype(np.float32)
    y = x[:, 0, :3] * 2 + generator.normal(0, 0.3, (240, 3))
    y = (y > 0).astype(np.uint8) if task == "labels" else y.astype(np.float32)
    fedge.write_dataset(tmp_path / "mine", x, y, task=task)
    path = own_scenario(tmp_path / "s.toml", "mine", "partition = { kind = 'iid' }", model="har_cnn")
    rows = {}
    for serve in ("last", "best"):
        changes = [
            "engine.kind=inline", "rounds=4", "schedule={kind='train_only'}", "training.batch_size=8",
            "training.learning_rate=0.1", f"training.serve={serve}",
        ]  # fmt: skip
        rows[serve] = fedge.run(load_scenario(str(path), changes), tmp_path / serve).reports()
    figure = (
        (lambda row: -row["validation_error_sum"])
        if task == "numbers"
        else (lambda row: row["validation_correct"])
    )
    earlier = 0
    for row in rows["best"]:
        plain = [r for r in rows["last"] if r["client"] == row["client"] and r["round"] <= row["round"]]
        best = max(plain, key=lambda r: (figure(r), r["round"]))
        assert row["served"] == best["round"] and row["test_correct"] == best["test_correct"]
        assert row.get("test_error_sum") == best.get("test_error_sum")
        earlier += best["round"] < row["round"]
    assert earlier  # else the case shows nothing


def evaluation(right: int, count: int = 10, errors: list[float] | None = None) -> Evaluation:
    error_N = None if errors is None else torch.tensor(errors, dtype=torch.float64)
    return Evaluation(right_N=torch.arange(count) < right, loss=0.0, error_N=error_N)


@pytest.mark.parametrize(
    ("now", "then", "on_training", "expected"),
    [
        (10, 10, 30, False),  # of 30: nothing was there to be learnt
        (10, 10, 29, True),  # even on validation samples, and the factory model errs elsewhere
        (9, 10, 10, False),  # worse on the same samples
        (8, 7, 29, False),  # better on them, and no better than the factory model usually is
        (10, 9, 30, True),
    ],
)
def test_when_training_has_helped(now: int, then: int, on_training: int, expected: bool) -> None:
    """Breaks if a tie on a few samples decides, or if the training samples do where validation samples say no."""
    assert helps(evaluation(now), evaluation(then), evaluation(on_training, 30)) is expected


def test_figures_by_hand() -> None:
    """Breaks if an error counts as the better the larger it is, labels as more than all, or nothing as something."""
    assert figure(evaluation(3), evaluation(15, 20)) == 18 / 30
    near, far = (evaluation(2, errors=[error] * 10) for error in (1.0, 2.0))
    assert figure(near) == -1.0 and figure(near, far) == -1.5
    labels = Evaluation(right_N=torch.tensor([[True, False], [True, True]]), loss=0.0)
    assert figure(labels) == 0.75
    none = evaluation(0, 0)
    odd = evaluation(2, errors=[float("nan")] * 10)
    assert not helps(none, none, evaluation(0, 30)) and not helps(odd, far, far) and helps(near, far, far)


@pytest.mark.parametrize("kept", [None, KeptNetwork('{"layers": {"a": 1}}', {"w": torch.ones(2)})])
def test_a_state_keeps_what_serves(kept: KeptNetwork | None, tmp_path: Path) -> None:
    """Breaks if a device forgets which of its networks serves, or if a round that came to nothing changes that."""
    state = DeviceState(4, model={"w": torch.zeros(3)}, served=Served(3, 3, kept))
    folder = StateFolder(tmp_path)
    folder.write(state)
    folder.write(state.aged(5, None))
    for round in (4, 5):
        found = folder.at(round)
        assert found and found.served and found.served.of == 3
        assert found.served.best == 3
        if kept is None:
            assert found.served.network is None
        else:
            assert found.served.network and found.served.network.topology == kept.topology
            assert torch.equal(found.served.network.model["w"], kept.model["w"])
        assert list(found.model) == ["w"]


def test_a_plan_that_serves_the_last_weighs_what_it_did() -> None:
    """Breaks if a run without `serve` takes other virtual time for a plan that says what is usual."""
    last, best = (
        RoundPlan(round=1, phase="train", prune=False, training=Training(serve=serve))
        for serve in ("last", "best")
    )
    text = str(last.content()["plan"]["json"])
    assert "serve" not in json.loads(text)["training"]
    for plan in (last, best):
        assert RoundPlan.model_validate_json(str(plan.content()["plan"]["json"])) == plan


def test_without_validation_samples_it_is_refused() -> None:
    """Breaks if a run without validation samples serves whatever is compared with nothing."""
    split = "data.split={train=0.8, validation=0.0, test=0.2}"
    for change in ("training.serve=best", "fleet.1.training={serve='never_worse'}"):
        with pytest.raises(UserError, match=r"serve is '(best|never_worse)', which goes by validation data"):
            load_scenario("quickstart", [split, change])


def test_served_counts_by_hand() -> None:
    """Breaks if a client that an earlier network serves counts as one that the last does."""
    rows = [{"served": of, "round": 3} for of in (0, 3, 1, 2, 0)]
    assert served(rows) == {"served": {"factory": 2, "earlier": 2, "last": 1}}
    assert served([{"round": 3}]) == {}
