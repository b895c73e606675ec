"""A device's state on disk: what comes back is what was written, and damage is noticed."""

from pathlib import Path

import numpy as np
import pytest
import torch

from fedge.device.budget.battery import Battery, Charge
from fedge.device.course import Course
from fedge.device.state import KEEP_ROUNDS, DeviceState, StateFolder
from fedge.protocol import DeviceFailure, Status


def state(round: int) -> DeviceState:
    generator = torch.Generator().manual_seed(round)
    return DeviceState(
        round=round,
        topology='{"layers": {}}',
        model={"w": torch.randn(3, 2, generator=generator), "n": torch.tensor(round)},
        instance_filter={"threshold": torch.tensor(0.5)},
        report=f'{{"round": {round}}}',
        charge=Charge(Battery(1000.0, 10.0 * round), 60.0 * round),
    )


def same(a: DeviceState, b: DeviceState) -> bool:
    tensors = all(
        left.keys() == right.keys() and all(torch.equal(left[key], right[key]) for key in left)
        for left, right in ((a.model, b.model), (a.instance_filter, b.instance_filter))
    )
    return tensors and all(
        getattr(a, name) == getattr(b, name) for name in ("round", "topology", "report", "charge")
    )


def test_what_was_written_comes_back(tmp_path) -> None:
    """Breaks if a weight, the filter's memory, the topology or the report is lost between rounds."""
    folder = StateFolder(tmp_path)
    folder.write(state(4))
    assert same(folder.at(4), state(4))
    assert same(folder.before(5), state(4))


def test_nothing_is_kept_as_nothing(tmp_path) -> None:
    """Breaks if a device that stores no frame of its stream, or whose detector waits for no label, cannot go on."""
    empty = DeviceState(
        1, stream={"known_h": torch.from_numpy(np.empty(0)), "wrong": torch.zeros(0, dtype=torch.bool)}
    )
    StateFolder(tmp_path).write(empty)
    found = StateFolder(tmp_path).at(1)
    assert found is not None and {name: tensor.numel() for name, tensor in found.stream.items()} == {
        "known_h": 0,
        "wrong": 0,
    }


def test_where_a_device_stands_comes_back(tmp_path) -> None:
    """Breaks if a device that grew back forgets so, and is cut before it was trained whole, or grows back again."""
    StateFolder(tmp_path).write(DeviceState(7, course=Course(cut=3, regrown=7, since=8)))
    assert StateFolder(tmp_path).before(8).course == Course(cut=3, regrown=7, since=8)


def test_a_fresh_device_has_the_factorys_state(tmp_path) -> None:
    """Breaks if a device's first round needs a file that nobody wrote."""
    folder = StateFolder(tmp_path / "new")
    assert folder.at(1) is None
    assert folder.before(1) == DeviceState(round=0)


def test_a_repeated_round_starts_from_the_round_before(tmp_path) -> None:
    """Breaks if a run taken up at round 2 starts from what round 2 or 3 had written before the crash."""
    folder = StateFolder(tmp_path)
    for round in (1, 2, 3):
        folder.write(state(round))
    assert same(folder.before(2), state(1))


def test_a_missed_round_is_bridged(tmp_path) -> None:
    """Breaks if a device that failed in round 2 forgets what it learnt in round 1."""
    folder = StateFolder(tmp_path)
    folder.write(state(1))
    assert same(folder.before(3), state(1))


def test_old_rounds_are_forgotten(tmp_path) -> None:
    """Breaks if a device's disk grows with the number of rounds."""
    folder = StateFolder(tmp_path)
    for round in range(1, 10):
        folder.write(state(round))
    assert len(list(tmp_path.iterdir())) == KEEP_ROUNDS


@pytest.mark.parametrize("where", [0, 7, 60, -1])
@pytest.mark.parametrize("how", ["cut", "flip"])
def test_a_damaged_file_is_lost_state(tmp_path: Path, where: int, how: str) -> None:
    """Breaks if a device trains on from damaged weights, or from older ones without a word."""
    folder = StateFolder(tmp_path)
    folder.write(state(1))
    folder.write(state(2))
    path = tmp_path / "round-000002.safetensors"
    data = bytearray(path.read_bytes())
    if how == "cut":
        data = data[:where]
    else:
        data[where] ^= 0xFF
    path.write_bytes(data)
    assert folder.at(2) is None
    with pytest.raises(DeviceFailure, match=r"round-000002\.safetensors: the file is damaged") as caught:
        folder.before(3, after=1)
    assert caught.value.status is Status.LOST_STATE
    assert same(folder.before(2, after=1), state(1))  # a run that is taken up before it does without


@pytest.mark.parametrize(("held", "after"), [((), 1), ((1,), 2), ((3, 4), 5)])
def test_a_state_older_than_the_last_report_is_lost_state(
    tmp_path: Path, held: tuple[int, ...], after: int
) -> None:
    """Breaks if a device whose folder was removed, or restored from an old copy, goes on as if nothing were amiss."""
    folder = StateFolder(tmp_path / "device")
    for round in held:
        folder.write(state(round))
    with pytest.raises(DeviceFailure, match=f"round {after} was reported") as caught:
        folder.before(after + 1, after=after)
    assert caught.value.status is Status.LOST_STATE


def test_a_state_newer_than_the_last_report_is_taken(tmp_path: Path) -> None:
    """Breaks if a device is refused because its last report was lost on the way."""
    folder = StateFolder(tmp_path)
    folder.write(state(1))
    folder.write(state(2))
    assert same(folder.before(3, after=1), state(2))


@pytest.mark.parametrize("source", ["0/round-000001", "1/round-000002"])
def test_a_state_of_another_round_or_device_is_lost_state(tmp_path: Path, source: str) -> None:
    """Breaks if a file that was copied over this one's, whole as it is, is trained on as this device's own."""
    for name in ("0", "1"):
        for round in (1, 2):
            StateFolder(tmp_path / name).write(state(round))
    target = tmp_path / "0" / "round-000002.safetensors"
    target.write_bytes((tmp_path / f"{source}.safetensors").read_bytes())
    with pytest.raises(DeviceFailure, match="damaged") as caught:
        StateFolder(tmp_path / "0").before(3, after=2)
    assert caught.value.status is Status.LOST_STATE
