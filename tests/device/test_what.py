"""What of its network a device trains: counted, remembered, reported, and asked of its memory."""

import copy
from functools import partial
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

import fedge
import fedge.training.update.what
from benchmarks.measure.allocator import allocator_peak
from fedge.device.state import StateFolder
from fedge.errors import UserError
from fedge.forecast import plan_scenario
from fedge.prepare import prepare
from fedge.training.macs import count_macs
from fedge.training.pruning.topology import Topology
from fedge.training.update.what import trained

OFF = ("training.pruning.level=0", "training.instance_filter.kind=none", "training.error_maps.keep=1.0")
RESNET = ("model.name=resnet8", "model.factory.epochs=0")
HEAD = "training.what=head"


@pytest.mark.parametrize("what", ["head", "norm", "last", "['stage2.0', 'head']"])
def test_a_round_trains_that_and_nothing_else(small, tmp_path, what: str) -> None:
    """Breaks if what is frozen moves between rounds, is paid for, or if the report does not say what was trained."""
    scenario = small(*OFF, *RESNET, f"training.what={what}")
    result = fedge.run(scenario, tmp_path)
    prepared = prepare(scenario)
    shipped = prepared.factory_model().state_dict()
    state = StateFolder(tmp_path / "devices" / "0").at(scenario.rounds).model
    moved = {name for name, tensor in state.items() if not torch.equal(tensor, shipped[name])}
    model = prepared.factory_model()
    fedge.training.update.what.freeze(model, scenario.training.what, prepared.input_shape)
    assert {name for name in moved if name.endswith(("weight", "bias"))} == trained(model)
    per_sample = count_macs(model, prepared.input_shape).training
    for row in result.reports():
        assert row["what"] == ("layers" if what.startswith("[") else what)
        assert row["macs_done"] == row["samples_seen"] * per_sample
        assert row["macs_dense"] == row["samples_seen"] * prepared.macs_training > row["macs_done"]


@pytest.mark.long
def test_everything_works_together_on_a_part(small, tmp_path) -> None:
    """Breaks if a filter, error maps, pruning or few bits cannot run where layers are frozen, or thaw them."""
    changes = "training.pruning.level=0.3", "training.quantization={bits=8}", "training.what=last"
    scenario = small(*RESNET, *changes)
    result = fedge.run(scenario, tmp_path)
    rows = {row["round"]: row for row in result.reports() if row["client"] == 0}
    assert all(row["status"] == "ok" and row["what"] == "last" for row in result.reports())
    assert rows[2]["parameters"] < rows[1]["parameters"] and rows[2]["error_maps"] == "error"
    prepared, state = prepare(scenario), StateFolder(tmp_path / "devices" / "0").at(2)
    cut = Topology.from_json(state.topology)
    before = StateFolder(tmp_path / "devices" / "0").at(1).model
    kept = cut.rebuild(prepared.build_model).state_dict()
    assert kept["stem.conv.weight"].shape == state.model["stem.conv.weight"].shape
    assert torch.equal(before["stem.conv.weight"], prepared.factory_model().state_dict()["stem.conv.weight"])


def test_error_maps_that_nothing_makes_are_not_said_to_be_pruned(small, tmp_path) -> None:
    """Breaks if a report claims a method that had nothing to work on."""
    scenario = small(*OFF[:2], HEAD)
    assert scenario.training.error_maps.keep < 1
    assert {row["error_maps"] for row in fedge.run(scenario, tmp_path).reports()} == {"none"}


def test_ranking_costs_the_same_whatever_is_frozen(opened) -> None:
    """Breaks if taylor's way back through frozen layers, which it goes all the same, is free."""
    costs = []
    for what in ("all", "head"):
        device = opened(*RESNET, f"training.what={what}", round=2)
        device.prune()
        costs.append(device._cutter.macs)
    assert costs[0] == costs[1] > 0


def test_what_a_program_thaws_or_leaves_out_is_its_own(opened) -> None:
    """Breaks if a report names the settings' choice where a program made another."""
    thawed, fewer, plain = opened(*OFF, HEAD), opened(*OFF), opened(*OFF)
    thawed.model.requires_grad_(True)
    thawed.train()
    fewer.train(optimizer=lambda parameters: torch.optim.SGD(list(parameters)[-2:], lr=0.1))
    plain.train()
    assert [device.report().row()["what"] for device in (thawed, fewer, plain)] == ["own", "own", "all"]


def test_a_loop_of_ones_own_trains_and_pays_for_the_same(opened) -> None:
    """Breaks if a loop over all parameters trains frozen layers, or is charged for them."""
    own, told = opened(*OFF, *RESNET, HEAD), opened(*OFF, *RESNET, HEAD)
    optimizer = torch.optim.SGD(own.model.parameters(), lr=0.01)
    frozen = copy.deepcopy(own.model.stem.state_dict())
    fedge.training.update.what.training_mode(own.model)
    with own.counted(optimizer) as count:
        for x_BCHW, y_B in own.batches(0):
            optimizer.zero_grad()
            loss = F.cross_entropy(own.model(x_BCHW), y_B)
            loss.backward()
            optimizer.step()
            count.step(seen=len(y_B), loss=loss)
    told.train()
    mine, its = own.report(), told.report()
    assert mine.macs_done == its.macs_done and mine.row()["what"] == "head"
    assert all(torch.equal(tensor, frozen[name]) for name, tensor in own.model.stem.state_dict().items())


def test_frozen_weights_changed_by_hand_are_still_refused(opened) -> None:
    """Breaks if weights that no gradient reaches can be changed unseen."""
    device = opened(*OFF, HEAD)
    device.train()
    with torch.no_grad():
        device.model.conv1.weight.add_(1)
    with pytest.raises(UserError, match="nothing was counted"):
        device.report()


@pytest.mark.parametrize("what", ["head", "norm", "last"])
def test_memory_is_asked_for_what_is_trained(opened, small, what: str) -> None:
    """Breaks if a device declines a head that it could hold, or the forecast tells of another need."""
    changes = (
        *OFF,
        *RESNET,
        f"training.what={what}",
        "training.optimizer={kind='adamw'}",
        "training.batch_size=8",
    )
    device = opened(*changes)
    device.train()
    asked = device.report().memory_bytes
    assert asked == plan_scenario(small(*changes))[0]["memory_need_bytes"]
    truth = allocator_peak(device.model, batch_size=8, input_shape=device.shard.shape, optimizer="adam")
    assert asked == pytest.approx(1.06 * truth, rel=0.02)


def test_a_policy_and_a_device_class_may_choose_it(small, tmp_path) -> None:
    """Breaks if a weak class cannot train its head alone, or memory is that of another round's choice."""
    policy = tmp_path / "policy.py"
    policy.write_text(
        "def plan(round, client, history, args):\n    return {'training.what': 'head'} if round > 1 else {}"
    )
    changes = *OFF, *RESNET, f"schedule={{program='{policy}'}}", "fleet.2.training={what='norm'}"
    rows = fedge.run(small(*changes), tmp_path / "out").reports()
    words = {(row["round"], row["device"]): row["what"] for row in rows}
    assert {word for (round, _), word in words.items() if round == 2} == {"head"}
    assert words[1, "raspberry-pi-3b-plus"] == "norm" and words[1, "jetson-nano"] == "all"
    needs = {row["round"]: row["memory_bytes"] for row in rows if row["client"] == 0}
    assert needs[2] < needs[1] / 2


def test_unknown_layers_are_told_before_anything_runs(small, tmp_path) -> None:
    """Breaks if a typing error ends a run in its first round, device by device."""
    for ask in (partial(fedge.run, out=Path(tmp_path) / "out"), plan_scenario):
        with pytest.raises(UserError, match=r"'conv9', which is unknown; did you mean 'conv"):
            ask(small("training.what=['conv9']"))
        with pytest.raises(UserError, match="no norm with a scale"):
            ask(small("fleet.1.training={what='norm'}"))
