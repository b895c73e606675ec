"""A device and its stream, round by round: what is tested, stored, trained on, and what it remembers."""

from collections.abc import Callable
from itertools import count, pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

import fedge
from fedge.coordinator.schedule import plan_round
from fedge.device.budget.battery import Battery, Charge
from fedge.device.device import Device
from fedge.device.location import Location
from fedge.device.simulated import Simulated
from fedge.device.state import DeviceState, StateFolder
from fedge.errors import UserError
from fedge.prepare import prepare
from fedge.protocol.report import STREAM_FIELDS

STREAM = (
    "data.stream.rate_per_h=40",
    "data.stream.memory=24",
    "data.stream.holdout=0.2",
    "training.instance_filter.kind=none",
    "training.error_maps.keep=1.0",
    "training.pruning.level=0",
    "rounds=5",
)
CHARGE = Charge(Battery(None, 0.0), 0.0)

Make = Callable[..., object]


@pytest.fixture
def rounds_of(small, tmp_path: Path) -> Callable[..., list[Device]]:
    """Client 0 through these rounds, each from the state on disk that the one before left."""

    numbers = count()

    def go(*changes: str, rounds=(1, 2, 3)) -> list[Device]:
        scenario = small(*STREAM, *changes)
        folder, states = Path(prepare(scenario).folder), StateFolder(tmp_path / str(next(numbers)))
        location = Location(0, 0, folder, states.folder, Simulated.of(scenario, 0))
        gone = []
        for round in rounds:
            device = Device(location, plan_round(scenario, round), states.before(round))
            device.begin()
            device.train()
            states.write(device.state_after(device.report(), CHARGE))
            gone.append(device)
        return gone

    return go


@pytest.mark.parametrize("order", ["iid", "parked"])
def test_no_sample_is_tested_after_it_was_trained_on(rounds_of, monkeypatch, order: str) -> None:
    """Breaks if test-then-train tests a row that the network may have seen: then it measures memory."""
    from fedge.device.storage import intake as module

    tested: list[list[int]] = []
    blind_right = module.blind_right

    def watched(stream, interval, frames):
        tested.append(frames.row.tolist())
        return blind_right(stream, interval, frames)

    monkeypatch.setattr(module, "blind_right", watched)
    trained: set[int] = set()
    for device, rows in zip(
        rounds_of(f"data.stream.order='{order}'", rounds=(1, 2, 3, 4)), tested, strict=True
    ):
        assert not trained & set(rows)
        intake = device._round.intake
        trained |= set(intake.stored.row[intake._trained_M].tolist())
        assert device.last_report().ttt_count == len(rows)
    assert trained and any(tested)


def test_memory_holds_what_it_may_and_training_sees_no_more(rounds_of) -> None:
    """Breaks if a device trains on frames that it has not stored, or on held-out rows."""
    for device in rounds_of(rounds=(1, 2, 4, 5)):
        report, shard = device.last_report(), device.shard
        assert report.stored == len(shard) == 24
        assert report.samples_seen == 24 * device.training.epochs
        frames = device._round.intake._in_memory
        assert not frames.held_out.any() and (frames.time_h <= device.plan.round).all()
        assert (shard.y == frames.label).all()


def test_a_device_that_was_away_takes_in_all_that_came(rounds_of) -> None:
    """Breaks if frames are lost, or counted twice, where a round was missed."""
    stepwise = [device.last_report().arrived for device in rounds_of(rounds=(1, 2, 3, 4))]
    assert rounds_of(rounds=(4,))[0].last_report().arrived == sum(stepwise)


def test_no_label_is_trained_on_before_it_has_come(rounds_of) -> None:
    """Breaks if label delay is a word only, or if a round with nothing to train on yet ends the device's work."""
    first, second, third = rounds_of(
        "data.stream.label_delay_h=1.5", "data.stream.keep='fifo'", "data.stream.memory=90"
    )
    assert first.last_report().samples_seen == first.last_report().trained == 0
    assert first.last_report().stored > 20 and first.steps == 0
    for device in (second, third):
        frames = device._round.intake._in_memory
        known = frames.time_h + 1.5 <= device.plan.round
        assert len(device.shard) == known.sum() < len(frames)
    assert third.last_report().samples_seen > 0


def test_a_frame_counts_as_trained_once(rounds_of) -> None:
    """Breaks if the share of frames trained, which says who keeps up, counts a frame in every epoch and round."""
    devices = rounds_of(rounds=(1, 2, 3))
    assert devices[0].last_report().trained == 24
    new = [len(set(now._round.intake.stored.number) - set(before._round.intake.stored.number))
           for before, now in pairwise(devices)]  # fmt: skip
    assert [device.last_report().trained for device in devices[1:]] == new


def test_a_device_that_cannot_keep_up_trains_on_fewer_frames(rounds_of) -> None:
    """Breaks if the stream waits for a slow device, so that a step saved is worth nothing."""
    slow = (
        "availability.round_every_h=2.2e-7",  # 0.8 ms, in which a Jetson takes two steps
        "data.stream.rate_per_h=2.0e8",
        "training.batch_size=4",
        "clock.device_sigma=0.0",
        "clock.round_sigma=0.0",
    )
    [hurried] = rounds_of(*slow, rounds=(2,))
    [waited] = rounds_of(*slow, "data.stream.realtime=false", rounds=(2,))
    assert 0 < hurried.last_report().trained < waited.last_report().trained == 24
    assert hurried.steps < waited.steps


def test_what_is_remembered_does_not_grow(rounds_of, tmp_path: Path) -> None:
    """Breaks if a device's state grows with virtual time."""
    for device in rounds_of(rounds=(1, 5)):
        state = device._round.intake.state()
        assert (
            sum(tensor.numel() for tensor in state.values())
            == 5 * 24 + device._round.own_shard.count("train") + 2
        )
    assert set(state) == {"number", "row", "time_h", "score", "trained", "met_R", "counts"}


def test_a_state_comes_back_as_it_was_written(rounds_of, tmp_path: Path) -> None:
    """Breaks if resume goes on with other frames, or with scenes forgotten."""
    first, second = rounds_of("data.stream.keep='scenes'", "data.stream.order='parked'", rounds=(1, 2))
    kept, written = second._round.intake.state(), StateFolder(tmp_path / "0").at(2).stream
    assert kept.keys() == written.keys() and any(name.startswith("rule.") for name in kept)
    assert all(torch.equal(kept[name], written[name]) for name in kept)
    assert first.last_report().macs_filter > 0


def test_the_filters_score_decides_and_what_it_costs_is_counted(rounds_of) -> None:
    """Breaks if keep "filter" stores other frames than those that the early filter of before the round ranks first."""
    early = (
        "data.stream.keep='filter'",
        "training.instance_filter.kind='early'",
        "training.instance_filter.keep=0.5",
    )
    [device] = rounds_of(*early, rounds=(1,))
    stream, instance_filter = device._round.intake.stream, device._round.methods.instance_filter()
    frames = stream.interval(1)
    frames = frames[~frames.held_out]
    x_FCHW = next(stream.shard.with_training(stream.pictures(frames), frames.label).batches("train", 99))[0]
    with torch.no_grad():
        logits_F2 = instance_filter.network(x_FCHW)
    best = frames.number[np.argsort((logits_F2[:, 0] - logits_F2[:, 1]).numpy(), kind="stable")[:24]]
    assert set(device._round.intake.stored.number) == set(best)
    looked = len(frames) * instance_filter.table.forward
    assert device._round.intake.watch.macs == looked
    assert (
        device.last_report().macs_filter == looked
    )  # its own training did not look: filter left out of train()


def test_ones_own_rule_is_asked(rounds_of, tmp_path: Path) -> None:
    """Breaks if `file.py:name` is not what decides, or sees other frames than the device."""
    (tmp_path / "mine.py").write_text(
        "import numpy as np\n"
        "def darkest(frames, room, generator):\n"
        "    bright_F = frames.pictures().reshape(len(frames), -1).mean(1)\n"
        "    return np.argsort(bright_F)[:room]\n"
    )
    [device] = rounds_of(f"data.stream.keep='{tmp_path}/mine.py:darkest'", rounds=(2,))
    stream = device._round.intake.stream
    all_of_them = [stream.interval(k) for k in (1, 2)]
    bright = np.concatenate(
        [
            stream.pictures(each[~each.held_out]).reshape((~each.held_out).sum(), -1).mean(1)
            for each in all_of_them
        ]
    )
    mine = device.shard.x.reshape(24, -1).mean(1)
    assert sorted(mine) == pytest.approx(sorted(bright)[:24])


def test_without_a_stream_nothing_of_it_is_said(opened) -> None:
    """Breaks if reports of plain scenarios cost bits for fields that they have no use for."""
    report = opened(*STREAM[3:]).report()
    assert not set(STREAM_FIELDS) & set(report.content()["report"])
    assert DeviceState(0).stream == {}


def test_a_program_cannot_speak_by_a_streams_fields(small, tmp_path: Path) -> None:
    """Breaks if a client program without a stream may send its own numbers in the stream's fields."""
    program = tmp_path / "loud.py"
    edge = (Path(fedge.__file__).parents[1] / "clients" / "dense.py").read_text()
    program.write_text(
        edge.replace("return device.report()", "return device.report().model_copy(update={'arrived': 7})")
    )
    changes = (f"client='{program}'", "rounds=1", *STREAM[3:6], "schedule.finetune_rounds=0")
    rows = fedge.run(small(*changes), tmp_path / "out").reports()
    assert rows and not any("arrived" in row for row in rows)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (["data.stream.order='recorded'"], "data.stream.order is 'recorded', which needs rows in the order"),
        (["privacy.least_count=4"], "a stream's counts may be of a few frames"),
        (["training.answers='own'"], "training.answers is 'own'"),
        (["data.stream.keep='filter'"], "data.stream.keep is 'filter'"),
        (
            ["data.stream.memory=90000000"],
            "data.stream.memory is 90,000,000 samples of 256 bytes, and device class",
        ),
        (["data.stream.trace='x.csv'"], "give one of them: a rate, or a csv"),
        (["data.stream.keep='lifo'"], "'lifo' is unknown; did you mean 'fifo'?"),
        (["data.stream.drift=[{what='concept', at_h=1.0, kind='gradual'}]"], "need a width_h"),
    ],
)
def test_what_cannot_be_is_said_before_anything_runs(small, changes: list[str], said: str) -> None:
    """Breaks if a stream that cannot be is found out after hours, or in many lines."""
    with pytest.raises(UserError) as caught:
        small(*STREAM, *changes)
    assert said in str(caught.value) and "\n" not in str(caught.value)
