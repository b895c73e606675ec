"""A device's private state on its own disk: one safetensors file per round, written atomically.

The file holds the network's and the filter's tensors, those of the network that serves where it is another, and the
factory model's answers; its header holds the topology record, the report of the round, whose and of which round it is,
and a digest over all of it. Keyed by round, so that a repeated plan is answered and not executed again, and so that a
run taken up at round r finds the state of round r - 1 though later rounds had been written.
"""

import contextlib
import hashlib
import json
import os
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from fedge.device.budget.battery import Battery, Charge
from fedge.device.course import Course
from fedge.errors import RunError
from fedge.protocol import DeviceFailure, Status

KEEP_ROUNDS = 3  # this round's state, and two for a run that is taken up at an earlier round

_NAME = re.compile(r"round-(\d{6})\.safetensors")


@dataclass(frozen=True)
class KeptNetwork:
    """A network as it lies on the device."""

    topology: str | None  # JSON record; None: the factory network's own shape
    model: dict[str, torch.Tensor]


@dataclass(frozen=True)
class Served:
    """Which network answers on the device: that of round `of`, 0 being the factory's. Of the trained ones that of round
    `best` is the best so far; `network` holds it where it is not the one that training goes on from."""

    of: int
    best: int
    network: KeptNetwork | None = None


@dataclass(frozen=True)
class DeviceState:
    """What a device knows after `round`. Round 0 is a device fresh from the factory."""

    round: int
    topology: str | None = None  # JSON record; None: the factory network's own shape
    model: dict[str, torch.Tensor] = field(default_factory=dict)
    instance_filter: dict[str, torch.Tensor] = field(default_factory=dict)
    factory: dict[str, torch.Tensor] = field(default_factory=dict)  # FactoryAnswers on the client's test rows
    stream: dict[str, torch.Tensor] = field(default_factory=dict)  # what is stored of a stream, by number
    report: str | None = None  # RoundReport as JSON; None: the round was not finished
    charge: Charge | None = None
    served: Served | None = None  # None: `model` serves, as it is after each round
    course: Course = field(default_factory=Course)  # where it stands in its schedule
    prior: dict[str, torch.Tensor] = field(default_factory=dict)  # LabelPrior, where one is estimated

    def aged(self, round: int, charge: Charge) -> "DeviceState":
        """The same knowledge after a round that came to nothing but cost energy."""
        return replace(self, round=round, report=None, charge=charge)


class StateFolder:
    """The rounds kept in one device's folder. Only that client's program opens it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def at(self, round: int) -> DeviceState | None:
        """The state written by `round`, or None where there is none or it is damaged."""
        path = self._path(round)
        return _read(path, round, self._place(round)) if path.is_file() else None

    def before(self, round: int, *, after: int = 0) -> DeviceState:
        """The newest state from before `round`; the factory's where there never was one.

        DeviceFailure LOST_STATE where that is not of round `after`, the last that the coordinator has heard of, or of
        a later one, and where the newest file is damaged: an older state, or the factory's, would give other numbers
        than this device would have given, and nobody would know.
        """
        newest = max((held for held in self._rounds() if held < round), default=0)
        if newest < after:
            held = f"the newest state is of round {newest}" if newest else "no state is there"
            raise _lost(self.folder, f"{held}, and round {after} was reported")
        if not newest:
            return DeviceState(round=0)
        state = self.at(newest)
        if state is None:
            raise _lost(self._path(newest), "the file is damaged, or of another device or round")
        return state

    def write(self, state: DeviceState) -> None:
        """Write atomically, then forget the rounds that nothing can ask for any more."""
        tensors = {f"model.{key}": tensor.contiguous() for key, tensor in state.model.items()}
        tensors |= {f"filter.{key}": tensor.contiguous() for key, tensor in state.instance_filter.items()}
        tensors |= {f"factory.{key}": tensor for key, tensor in state.factory.items()}
        if state.served and state.served.network:
            kept = state.served.network.model
            tensors |= {f"served.{key}": tensor.contiguous() for key, tensor in kept.items()}
        tensors |= {f"stream.{key}": tensor.contiguous() for key, tensor in state.stream.items()}
        tensors |= {f"prior.{key}": tensor for key, tensor in state.prior.items()}
        header = {
            "place": self._place(state.round),
            "topology": json.dumps(state.topology),
            "report": json.dumps(state.report),
            "charge": json.dumps(state.charge and asdict(state.charge)),
            "course": json.dumps(asdict(state.course)),
        }
        if state.served:
            header["served"] = _served_json(state.served)
        header["digest"] = _digest(tensors, header)
        path = self._path(state.round)
        partial = path.with_suffix(f".{os.getpid()}.partial")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            save_file(tensors, partial, metadata=header)
            partial.replace(path)
        except (OSError, SafetensorError) as error:
            with contextlib.suppress(OSError):
                partial.unlink(missing_ok=True)
            raise RunError(f"{path}: the device's state cannot be written: {error}") from None
        for old in self._rounds():
            if old <= state.round - KEEP_ROUNDS:
                self._path(old).unlink(missing_ok=True)

    def _place(self, round: int) -> str:
        """Of a file: one copied from another device, or from an older round, is known by it."""
        return f"{self.folder.name}/{round}"

    def _path(self, round: int) -> Path:
        return self.folder / f"round-{round:06d}.safetensors"

    def _rounds(self) -> Iterator[int]:
        if self.folder.is_dir():
            names = [_NAME.fullmatch(path.name) for path in self.folder.iterdir()]
            yield from (int(name[1]) for name in names if name)


def _lost(path: Path, reason: str) -> DeviceFailure:
    return DeviceFailure(Status.LOST_STATE, f"{path}: {reason}")


def _read(path: Path, round: int, place: str) -> DeviceState | None:
    try:
        with safe_open(path, framework="pt") as file:
            header = dict(file.metadata() or {})
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a mapping
    except (SafetensorError, OSError):
        return None
    if header.pop("digest", None) != _digest(tensors, header) or header.get("place") != place:
        return None
    return DeviceState(
        round=round,
        topology=json.loads(header["topology"]),
        model=_under("model.", tensors),
        instance_filter=_under("filter.", tensors),
        factory=_under("factory.", tensors),
        stream=_under("stream.", tensors),
        report=json.loads(header["report"]),
        charge=_charge(json.loads(header["charge"])),
        served=_served(header.get("served"), _under("served.", tensors)),
        course=Course(**json.loads(header.get("course", "{}"))),
        prior=_under("prior.", tensors),
    )


def _served_json(served: Served) -> str:
    kept = served.network
    return json.dumps(
        {"of": served.of, "best": served.best, "kept": kept is not None, "topology": kept and kept.topology}
    )


def _served(text: str | None, model: dict[str, torch.Tensor]) -> Served | None:
    if text is None:
        return None
    table = json.loads(text)
    return Served(
        table["of"], table["best"], KeptNetwork(table["topology"], model) if table["kept"] else None
    )


def _charge(saved: dict[str, Any] | None) -> Charge | None:
    return Charge(Battery(**saved["battery"]), saved["time_s"]) if saved else None


def _under(prefix: str, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {key.removeprefix(prefix): tensor for key, tensor in tensors.items() if key.startswith(prefix)}


def _digest(tensors: dict[str, torch.Tensor], header: dict[str, str]) -> str:
    digest = hashlib.blake2b(json.dumps(header, sort_keys=True).encode(), digest_size=16)
    for key in sorted(tensors):
        digest.update(key.encode())
        if not tensors[key].numel():  # without a number there is no stride, and no view as bytes
            continue
        digest.update(tensors[key].detach().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
