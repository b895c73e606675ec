"""A device's round: against plain PyTorch where it must be the same, and at the edges of what a client may hold."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

import fedge
from fedge.catalog.files import client_path
from fedge.data.digests import write_digests
from fedge.data.shard import Shard
from fedge.device.state import StateFolder
from fedge.errors import RunError
from fedge.launch import RunResult
from fedge.prepare import Prepared, prepare
from fedge.seeding import derive_seed
from fedge.training.macs import count_macs
from fedge.training.pruning.topology import Topology

OFF = ("training.pruning.level=0", "training.instance_filter.kind=none", "training.error_maps.keep=1.0")


def plain_sgd(prepared: Prepared, scenario, client: int) -> dict[str, torch.Tensor]:
    """The rounds of one client as anybody would write them in PyTorch, on pictures in channels-last order."""
    model = prepared.factory_model().train()
    shard = Shard.open(Path(prepared.folder) / "shards", client)
    choice = scenario.training
    for round in range(1, scenario.rounds + 1):
        optimizer = torch.optim.SGD(model.parameters(), lr=choice.learning_rate, momentum=0.9)
        for epoch in range(choice.epochs):
            seed = derive_seed(scenario.seed, client, round, "shuffle", epoch)
            for x, y in shard.batches("train", choice.batch_size, seed=seed, order=torch.channels_last):
                optimizer.zero_grad()
                F.cross_entropy(model(x), y).backward()
                optimizer.step()
    return model.state_dict()


@pytest.mark.parametrize("program", ["edge", "dense"])
def test_without_methods_a_device_is_plain_sgd_bit_for_bit(small, tmp_path, program: str) -> None:
    """Breaks if any part of the framework - loop, state between rounds, counting - changes what is learned."""
    scenario = small(*OFF, f"client={program}", "training.epochs=2")
    result = fedge.run(scenario, tmp_path)
    prepared = prepare(scenario)
    for client in (0, 5):
        state = StateFolder(tmp_path / "devices" / str(client)).at(scenario.rounds)
        expected = plain_sgd(prepared, scenario, client)
        assert expected.keys() == state.model.keys()
        assert all(torch.equal(expected[name], state.model[name]) for name in expected)
    assert result.summary["macs"]["saved"] == 0.0


def test_reports_say_what_ran(small, tmp_path) -> None:
    """Breaks if the counts of a report do not belong to the shard, the plan or the network that was trained."""
    scenario = small("training.epochs=2")
    result = fedge.run(scenario, tmp_path)
    prepared = prepare(scenario)
    for row in result.reports():
        shard = Shard.open(Path(prepared.folder) / "shards", row["client"])
        assert row["samples_seen"] == 2 * shard.count("train")
        assert row["samples_kept"] <= row["samples_seen"]
        assert row["macs_dense"] == row["samples_seen"] * prepared.macs_training
        assert row["test_count"] == shard.count("test")
        assert row["validation_count"] == shard.count("validation")
        assert len(row["epoch_loss"]) == 2
        pruned = row["round"] > 1
        assert abs(1 - row["parameters"] / row["parameters_dense"] - 0.5 * pruned) < 0.01


def test_alternating_error_maps_go_on_from_round_to_round(small, tmp_path) -> None:
    """Breaks if every round starts with its dense epoch: with one local epoch nothing would ever be pruned."""
    scenario = small(*OFF[:2], "training.error_maps.keep=0.25", "training.error_maps.alternate=true")
    result = fedge.run(scenario, tmp_path)
    saved = {row["round"]: row["macs_done"] < row["macs_dense"] for row in result.reports()}
    assert saved == {1: False, 2: True}


def test_ranking_looks_at_so_many_samples_and_is_counted(small, tmp_path) -> None:
    """Breaks if ranking reads a whole shard where a sample will do, or if what it computes goes uncounted."""
    scenario = small(*OFF[1:], "training.pruning.ranking_samples=20", "training.batch_size=16")
    result = fedge.run(scenario, tmp_path)
    prepared = prepare(scenario)
    dense = count_macs(prepared.build_model(), prepared.input_shape)
    taylor = dense.forward + dense.error_propagation
    large = [row for row in result.reports() if row["round"] == 2 and row["samples_seen"] >= 32]
    assert large
    for row in large:
        state = StateFolder(tmp_path / "devices" / str(row["client"])).at(2)
        pruned = Topology.from_json(state.topology).rebuild(prepared.build_model)
        trained = row["samples_seen"] * count_macs(pruned, prepared.input_shape).training
        assert row["macs_done"] == trained + 20 * taylor


def rewritten(prepared: Prepared, client: int, rows: dict[str, slice]) -> None:
    """Cut one client's parts in the prepared folder: an empty slice leaves a part empty."""
    import numpy as np

    path = Path(prepared.folder) / "shards" / "offsets.npy"
    offsets = np.load(path)
    start, train_end, validation_end, end = offsets[client]
    if "train" in rows:
        start = train_end - rows["train"].stop
    if "test" in rows:
        end = validation_end + rows["test"].stop
    offsets[client] = start, train_end, validation_end, end
    np.save(path, offsets)
    write_digests(Path(prepared.folder))


@pytest.mark.parametrize(
    ("rows", "status"),
    [
        ({"train": slice(1)}, "ok"),
        ({"test": slice(0)}, "ok"),
        ({"train": slice(0)}, "no_training_data"),
    ],
    ids=["one sample", "empty test set", "no training data"],
)
def test_odd_clients_have_a_defined_outcome(small, tmp_path, monkeypatch, rows, status: str) -> None:
    """Breaks if a client with one sample, no test data or no training data crashes the run or makes it NaN."""
    monkeypatch.setenv("FEDGE_CACHE", str(tmp_path / "cache"))
    scenario = small()
    rewritten(prepare(scenario), 3, rows)
    result = fedge.run(scenario, tmp_path / "out")
    assert {row["status"] for row in result.reports() if row["client"] == 3} == {status}
    assert all(row["status"] == "ok" for row in result.reports() if row["client"] != 3)
    assert 0 <= result.summary["accuracy"]["mean"] <= 1


def test_a_client_with_a_single_class_is_trained_like_any(small, tmp_path) -> None:
    """Breaks if a client that knows one class only crashes the filter, the pruner or the loss."""
    scenario = small("data.partition={kind='pathological', classes=1}")
    result = fedge.run(scenario, tmp_path)
    assert [row["status"] for row in result.reports()] == ["ok"] * 12


@pytest.mark.long
def test_a_device_that_is_too_small_declines_or_shrinks(small, tmp_path) -> None:
    """Breaks if a plan that needs more memory than the device has is run all the same, or silently dropped."""
    counts = [f"fleet.{index}.count=1" for index in range(3)]
    tiny = [*counts, "fleet.0.device=stm32f746", "fleet.1.device=esp32-s3"]
    refused = fedge.run(small(*tiny), tmp_path / "refuse")
    statuses = {row["device"]: row["status"] for row in refused.reports()}
    assert statuses == {"stm32f746": "does_not_fit", "esp32-s3": "does_not_fit", "raspberry-pi-3b-plus": "ok"}
    log = (tmp_path / "refuse" / "devices" / "0" / "errors.log").read_text()
    assert "the plan needs" in log
    shrunk = fedge.run(small(*tiny, "limits.memory=shrink"), tmp_path / "shrink")
    for row in shrunk.reports():
        if row["status"] == "ok":
            assert row["memory_bytes"] <= row["memory_limit_bytes"]
    assert any(row.get("batch_size", 99) < 16 for row in shrunk.reports())


def test_a_fleet_whose_every_device_is_too_small_ends_in_one_line(small, tmp_path) -> None:
    """Breaks if 100% failures end in a crash, or go on to the last round."""
    tiny = [f"fleet.{index}.device=stm32f746" for index in range(3)]
    names = [f"fleet.{index}.name=mcu{index}" for index in range(3)]
    with pytest.raises(RunError, match="does_not_fit") as caught:
        fedge.run(small(*tiny, *names), tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("search", ["memory", "macs", "accuracy"])
def test_a_device_finds_its_own_level(small, tmp_path, search: str) -> None:
    """Breaks if a searched level misses its target, or if the search's retraining is not counted."""
    level = f"training.pruning.level={{search='{search}', share=0.5, slack=0.2}}"
    result = fedge.run(
        small(
            level, "training.pruning.criterion=l1", "fleet.0.device=esp32-s3", *OFF[1:], "limits.overhead=1.0"
        ),
        tmp_path,
    )
    rows = [row for row in result.reports() if row["round"] == 2 and row["status"] == "ok"]
    assert rows
    for row in rows:
        assert 1 <= row["level_tries"] <= 6
        if search == "macs":
            assert row["macs_done"] <= 0.5 * row["macs_dense"]
        if search == "memory":
            assert row["memory_bytes"] <= 0.5 * row["memory_limit_bytes"]
        if search == "accuracy":
            assert (
                row["macs_done"] > row["samples_seen"] * row["parameters"]
            )  # the search's retraining counts


def test_a_repeated_plan_is_answered_from_memory(small, finished, tmp_path) -> None:
    """Breaks if a plan that is sent twice trains twice."""
    program = tmp_path / "twice.py"
    source = client_path("edge").read_text()
    source += f"\nhonest = improve\n@app.train()\ndef twice(m, c):\n    first = honest(m, c)\n" \
              f"    with open({str(tmp_path / 'count')!r}, 'a') as count:\n        count.write('x')\n" \
              f"    return honest(m, c)\n"  # fmt: skip
    program.write_text(source.replace("@app.train()\n@on_device", "@on_device", 1))
    twice = fedge.run(small(f"client={program}"), tmp_path / "twice")
    assert twice.reports(timing=False) == finished().reports(timing=False)
    assert (tmp_path / "count").read_text() == "x" * 12


OWN = """
import torch
from flwr.clientapp import ClientApp
from fedge.device.handler import on_device
from fedge.privacy.egress import egress_gate
from fedge.training.instance_filter.base import Filter

class EveryOther(Filter):
    tensors = ("calls",)
    calls = torch.tensor(0)

    def select(self, batch):
        self.calls = self.calls + 1
        return torch.arange(0, len(batch.y_B), 2), None

def mine(evidence):
    return torch.arange(evidence.coupling.units).float()

app = ClientApp(mods=[egress_gate])

@app.train()
@on_device
def improve(device, plan):
    {change}
    device.train(instance_filter=EveryOther(keep=0.5))
    return device.report()
"""


def run_own(small, folder: Path, change: str) -> RunResult:
    folder.mkdir()
    (folder / "own.py").write_text(OWN.format(change=change))
    return fedge.run(small(f"client={folder / 'own.py'}"), folder / "out")


def test_a_filter_and_a_criterion_of_ones_own_live_on_the_device(small, tmp_path) -> None:
    """Breaks if a program's own filter forgets between rounds, or if its criterion is not the one that prunes."""
    result = run_own(
        small, tmp_path / "own", "plan.prune and not device.pruned and device.prune(criterion=mine)"
    )
    rows = result.reports()
    assert all(row["samples_kept"] < 0.6 * row["samples_seen"] for row in rows)
    client = next(row["client"] for row in rows if row["round"] == 2)
    state = StateFolder(tmp_path / "own" / "out" / "devices" / str(client)).before(3)
    batches = sum(-(-row["samples_seen"] // 16) for row in rows if row["client"] == client)
    assert int(state.instance_filter["calls"]) == batches and state.topology
    usual = run_own(small, tmp_path / "usual", "plan.prune and not device.pruned and device.prune()")
    assert [row["test_correct"] for row in usual.reports()] != [row["test_correct"] for row in rows]


def test_a_network_of_other_shapes_is_refused_in_its_own_round(small, tmp_path) -> None:
    """Breaks if a program may leave a network that the device cannot load in the next round."""
    result = run_own(
        small, tmp_path / "own", "device.client or setattr(device.model, 'conv1', torch.nn.Conv2d(1, 20, 3))"
    )
    rows = [row for row in result.reports() if row["client"] == 0]
    assert {row["status"] for row in rows} == {"client_raised"}
    log = (tmp_path / "own" / "out" / "devices" / str(rows[0]["client"]) / "errors.log").read_text()
    assert "device.prune()" in log and "conv1.weight" in log
