"""A device that learns by contrast: what it reads, keeps, counts and refuses."""

from collections.abc import Callable
from dataclasses import replace
from itertools import count
from pathlib import Path

import numpy as np
import pytest
import torch

from fedge.coordinator.schedule import plan_round
from fedge.data.stream.stream import Stream
from fedge.device.budget.battery import Battery, Charge
from fedge.device.contrast.memory import contrast_peak
from fedge.device.device import Device
from fedge.device.location import Location
from fedge.device.memory.peak import LiveBytes
from fedge.device.simulated import Simulated
from fedge.device.state import StateFolder
from fedge.errors import UserError
from fedge.prepare import prepare
from fedge.protocol import DeviceFailure, Status
from fedge.scenario.methods.contrast import Contrast
from fedge.training.contrast.nt_xent import NtXent, partners
from fedge.training.contrast.projection import WIDTH, in_place_of_head, linear_head, made_projection
from fedge.training.macs import count_macs

CONTRAST = (
    "data.stream.rate_per_h=40",
    "data.stream.memory=24",
    "data.stream.holdout=0.2",
    "training.instance_filter.kind=none",
    "training.error_maps.keep=1.0",
    "training.pruning.level=0",
    "training.contrast.buffer=6",
    "training.contrast.labels=2",
    "rounds=5",
)
CHARGE = Charge(Battery(None, 0.0), 0.0)

Rounds = Callable[..., list[Device]]


@pytest.fixture
def rounds_of(small, tmp_path: Path) -> Rounds:
    """Client 0 through these rounds, each from the state on disk that the one before left."""
    numbers = count()

    def go(*changes: str, rounds=(1, 2)) -> list[Device]:
        scenario = small(*CONTRAST, *changes)
        folder, states = Path(prepare(scenario).folder), StateFolder(tmp_path / str(next(numbers)))
        location = Location(0, 0, folder, states.folder, Simulated.of(scenario, 0))
        gone = []
        for round in rounds:
            device = Device(location, plan_round(scenario, round), states.before(round))
            device.begin()
            device.train(error_maps=device.error_maps())
            states.write(device.state_after(device.report(), CHARGE))
            gone.append(device)
        return gone

    return go


def trunk(device: Device) -> dict[str, torch.Tensor]:
    name, _ = linear_head(device.model, device.prepared.input_shape)
    return {
        key: tensor for key, tensor in device.model.state_dict().items() if not key.startswith(f"{name}.")
    }


@pytest.mark.parametrize(
    "rule", ["contrast", *(pytest.param(rule, marks=pytest.mark.slow) for rule in ("minred", "reservoir"))]
)
def test_no_label_is_read_before_the_probe(rounds_of: Rounds, monkeypatch, rule: str) -> None:
    """Breaks if labels choose, order or train anything but the head."""
    honest = rounds_of(f"training.contrast.rule={rule}")[-1]
    labels = Stream._labels
    monkeypatch.setattr(Stream, "_labels", lambda *given: (labels(*given) + 3) % 10)
    lied_to = rounds_of(f"training.contrast.rule={rule}")[-1]
    torch.testing.assert_close(trunk(lied_to), trunk(honest), rtol=0, atol=0)
    assert not torch.equal(
        *(linear_head(device.model, device.prepared.input_shape)[1].weight for device in (honest, lied_to))
    )


def test_it_learns_before_any_label_has_come(rounds_of: Rounds) -> None:
    """Breaks if a device without labels stands still, or if its head is trained on labels that have not come."""
    [device] = rounds_of("data.stream.label_delay_h=9", rounds=(1,))
    factory = device.prepared.factory_model()
    name, head = linear_head(device.model, device.prepared.input_shape)
    assert torch.equal(head.weight, factory.get_submodule(name).weight)
    assert device.steps > 0 and device.last_report().loss is not None
    assert any(not torch.equal(now, factory.state_dict()[key]) for key, now in trunk(device).items())


def test_what_it_cost_is_counted_to_the_last_product(rounds_of: Rounds) -> None:
    """Breaks if a second view, a score's two passes, the loss's products or the probe come for nothing."""
    [device] = rounds_of("training.contrast.rule=contrast", rounds=(1,))
    report, shape = device.last_report(), device.prepared.input_shape
    name, head = linear_head(device.model, shape)
    with in_place_of_head(device.model, name, made_projection(head.in_features, 0)):
        table = count_macs(device.model, shape)
    segments, rest = divmod(report.arrived, 6)
    assert device.steps == segments + (rest > 0) and report.samples_seen == 12 * device.steps
    scored = 6 + (segments - 1) * 12 + (6 + rest if rest else 0)
    assert report.macs_filter == 2 * scored * table.forward
    products = NtXent().macs(12, WIDTH) * device.steps
    [contrast, probe] = device._trainer.epochs
    assert contrast.macs_done == report.samples_seen * table.training + products + report.macs_filter
    assert report.macs_done == contrast.macs_done + probe.macs_done
    few = report.trained
    assert 2 <= few <= 20 and probe.macs_done > few * count_macs(device.model, shape).forward
    assert report.macs_dense == report.samples_seen * device.prepared.macs_training
    assert report.bit_operations == 1024 * report.macs_done


def test_rules_that_score_nothing_cost_nothing(rounds_of: Rounds) -> None:
    """Breaks if the baseline is charged for what it does not do."""
    [device] = rounds_of(rounds=(1,))
    assert device.training.contrast.rule == "reservoir" and device.last_report().macs_filter == 0


def test_buffer_and_projection_go_on_and_the_network_has_no_part_of_them(rounds_of: Rounds) -> None:
    """Breaks if each round begins with a projection of no use, or if one is shipped with the network that serves."""
    first, second = rounds_of("training.contrast.rule=minred", "training.learning_rate=1e-12")
    left, found = first._trainer._learner, second._round.before.stream
    assert len(left._frames) == 6
    assert np.array_equal(left._frames.number, found["contrast.number"].numpy())
    for name, tensor in left.projection.state_dict().items():
        torch.testing.assert_close(found[f"contrast.projection.{name}"], tensor, rtol=0, atol=0)
    torch.testing.assert_close(second._trainer._learner.projection.state_dict(), left.projection.state_dict())
    assert second._trainer._learner.buffer.looked > left.buffer.looked
    assert second.model.state_dict().keys() == second.prepared.factory_model().state_dict().keys()


def test_a_round_without_training_forgets_nothing(rounds_of: Rounds) -> None:
    """Breaks if what was learnt in round 1 is gone after a round in which a program did not train."""
    [device] = rounds_of(rounds=(1,))
    left = device._stream_state()
    device._trainer._learner = None
    device._round.before = replace(device._round.before, stream=left)  # as a round later
    kept = device._trainer.contrast_state
    assert kept.keys() == {key for key in left if key.startswith("contrast.")} != set()


def test_what_was_learnt_from_is_tested_no_more(rounds_of: Rounds) -> None:
    """Breaks if test-then-train asks for frames that the network has seen, though without a label."""
    [device] = rounds_of("training.contrast.rule=fifo", rounds=(1,))
    came = device._round.intake.came()
    assert len(np.unique(came.row)) > 24  # more than memory holds
    assert device._stream_state()["met_R"].numpy()[came.row].all()


def test_a_slow_device_sees_what_it_has_time_for(rounds_of: Rounds) -> None:
    """Breaks if contrast takes no time, or if scoring does not."""
    [unhurried] = rounds_of("training.contrast.rule=contrast", rounds=(1,))
    hours = 0.5 * unhurried._trainer._compute_s() / 3600
    slow = (f"availability.round_every_h={hours:.10f}", f"data.stream.rate_per_h={40 / hours:.1f}")
    [scoring] = rounds_of(*slow, "training.contrast.rule=contrast", rounds=(1,))
    assert 0 < scoring.steps < -(-scoring.last_report().arrived // 6)
    [plain] = rounds_of(rounds=(1,))
    assert plain._trainer._compute_s() < unhurried._trainer._compute_s()


def test_error_maps_prune_its_backward_pass(rounds_of: Rounds) -> None:
    """Breaks if a method that is a backward pass's does not reach this one."""
    [dense], [pruned] = (rounds_of(f"training.error_maps.keep={keep}", rounds=(1,)) for keep in (1.0, 0.25))
    assert pruned.steps == dense.steps
    assert pruned._trainer.epochs[0].macs_done < 0.8 * dense._trainer.epochs[0].macs_done


@pytest.mark.parametrize("buffer", [4, 48])
def test_peak_memory_is_an_upper_bound(rounds_of: Rounds, buffer: int) -> None:
    """Breaks if one view is reckoned for two."""
    [device] = rounds_of(rounds=(1,))
    model, shape = device.prepared.factory_model(), device.prepared.input_shape
    choice = Contrast(buffer=buffer, labels=2)
    need = contrast_peak(model, device.training, choice, shape, 10)
    name, head = linear_head(model, shape)
    projection = made_projection(head.in_features, 0)
    x_VCHW = torch.rand(2 * buffer, *shape)
    with in_place_of_head(model, name, projection):
        optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
        with LiveBytes([*model.parameters(), *model.buffers(), x_VCHW]) as live:
            for _ in range(2):
                loss = NtXent().mean_loss(model(x_VCHW), partners(2 * buffer))
                loss.backward()
                optimizer.step()
                optimizer.zero_grad()
    assert live.peak <= need < 1.35 * live.peak


def test_what_does_not_fit_says_what_to_lower(rounds_of: Rounds) -> None:
    """Breaks if a device takes views that it cannot hold, or is told to lower a batch that it does not have."""
    [device] = rounds_of(rounds=(1,))
    small = replace(device._round.simulated, profile=replace(device.profile, memory_mb=0.1))
    device._round.simulated = small
    with pytest.raises(DeviceFailure) as refused:
        device.train()
    assert refused.value.status is Status.DOES_NOT_FIT
    assert str(refused.value).endswith("; lower training.contrast.buffer (now 6)")


def test_a_program_that_brings_labels_is_told(rounds_of: Rounds) -> None:
    """Breaks if a filter or a loss of a program's own is dropped without a word."""
    [device] = rounds_of(rounds=(1,))
    with pytest.raises(UserError, match="without labels"):
        device.train(loss=torch.nn.CrossEntropyLoss(reduction="none"))
