"""`[[device]]`: a device class of one's own, in the columns of fedge/catalog/devices.csv and with its checks.

The six numbers that cost time, memory or energy must be there, and say whether it has a battery: a missing cost is an
error. What one Ray host takes is the simulation's affair and has the table's usual values.
"""

import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import Field, model_validator

from fedge.catalog.devices import DeviceProfile
from fedge.catalog.fingerprint import parse_fingerprint, read_fingerprint
from fedge.catalog.program import Program
from fedge.scenario.beside import Beside
from fedge.scenario.section import Positive, Section


class _Column(NamedTuple):
    """What a column measures (`stem`), in what unit it is shown, and what one of other units is in it."""

    stem: str
    unit: str
    others: Mapping[str, float]


_BYTES = {
    "b": 1e-6,
    "bytes": 1e-6,
    "kb": 1e-3,
    "gb": 1e3,
    "kib": 1024 / 1e6,
    "mib": 2**20 / 1e6,
    "gib": 2**30 / 1e6,
}
_BITS = {"bps": 1e-6, "kbps": 1e-3, "gbps": 1e3, "kbit/s": 1e-3, "mbit/s": 1.0, "gbit/s": 1e3, "mb/s": 8.0}
_WATTS = {"mw": 1e-3, "kw": 1e3}
_COLUMNS = {
    "train_gflops": _Column(
        "train", "GFLOP/s", {"flops": 1e-9, "mflops": 1e-3, "tflops": 1e3, "tflop/s": 1e3}
    ),
    "memory_mb": _Column("memory", "MB", _BYTES),
    "memory_gbs": _Column("memory", "GB/s", {"mbs": 1e-3, "mb/s": 1e-3}),
    "down_mbps": _Column("down", "Mbit/s", _BITS),
    "up_mbps": _Column("up", "Mbit/s", _BITS),
    "idle_w": _Column("idle", "W", _WATTS),
    "load_w": _Column("load", "W", _WATTS),
    "battery_wh": _Column("battery", "Wh", {"mwh": 1e-3, "kwh": 1e3, "j": 1 / 3600, "kj": 1 / 3.6}),
}
_QUANTITY = re.compile(r"\s*([0-9.]+(?:e[+-]?[0-9]+)?)\s*([a-z/]+)\s*", re.IGNORECASE)


_LEARNT = ("train_gflops", "memory_gbs")
"""Columns that a fingerprint fills."""


class OwnDevice(Section):
    """One profile. GFLOP/s: training as it runs, 2 FLOP per multiply-accumulate. Mbps: 1e6 bit/s. "none": on mains.

    fingerprint: a file of `fedge fingerprint`, which says what a step takes in place of train_gflops and memory_gbs.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
    kind: Annotated[str, Field(min_length=1)] = "own"
    fingerprint: Annotated[str, Beside()] | None = None
    train_gflops: Positive | None = None
    memory_mb: Positive
    memory_gbs: Positive | None = None
    down_mbps: Positive
    up_mbps: Positive
    idle_w: Positive
    load_w: Positive
    battery_wh: Positive | Literal["none"]
    ray_num_cpus: Positive = 0.5
    ray_memory_mb: Positive = 700.0
    evidence: str = ""
    train_basis: str = ""
    source: str = ""

    def profile(self, programs: Mapping[str, Program]) -> DeviceProfile:
        """The same as a line of the table. programs: the texts that travel with a scenario, its fingerprint's too."""
        columns = self.model_dump()
        if self.fingerprint is not None:
            text = _travelled(self.fingerprint, programs)
            learnt = parse_fingerprint(text, self.fingerprint)
            columns |= {name: getattr(learnt, name) for name in _LEARNT} | {"fingerprint": text}
        return DeviceProfile(
            **columns | {"battery_wh": None if self.battery_wh == "none" else self.battery_wh}
        )

    @model_validator(mode="before")
    @classmethod
    def _columns_in_their_units(cls, table: Any) -> Any:
        """What is given in another unit, or not at all, is told by its column; a typing error has the nearest key."""
        if not isinstance(table, dict):
            return table
        for told in _in_other_units(table):
            raise ValueError(told)
        learnt = table.get("fingerprint") is not None
        missing = [
            name
            for name, field in cls.model_fields.items()
            if (field.is_required() or (name in _LEARNT and not learnt)) and name not in table
        ]
        if missing and not table.keys() - cls.model_fields.keys():
            called = f"{table['name']!r} " if "name" in table else ""
            raise ValueError(
                f"{called}lacks {', '.join(map(_described, missing))}; a missing cost is an error: give a number"
            )
        if learnt and (said := [name for name in _LEARNT if table.get(name) is not None]):
            raise ValueError(
                f"{said[0]} is {table[said[0]]!r} and fingerprint is given, which says it: leave {said[0]} out"
            )
        return table

    @model_validator(mode="after")
    def _works_harder_than_it_rests(self) -> "OwnDevice":
        if self.idle_w > self.load_w:
            raise ValueError(
                f"idle_w is {self.idle_w:g} and load_w {self.load_w:g}; a device at work takes no less than one at rest"
            )
        return self


def _travelled(path: str, programs: Mapping[str, Program]) -> str:
    """The text that came with the scenario; of one made by hand, the file's."""
    return programs[path].source if path in programs else read_fingerprint(Path(path))


def _in_other_units(table: Mapping[str, Any]) -> Iterator[str]:
    """For each value that stands in another unit, by its key or in its text: what to write."""
    for key, value in table.items():
        stem, _, unit = key.rpartition("_")
        for name, column in _COLUMNS.items():
            factor = column.others.get(unit)
            if key not in OwnDevice.model_fields and stem == column.stem and factor is not None:
                yield f"{key} is {value!r}; it is given in {column.unit}: {_written(name, value, factor)}"
    for name, column in _COLUMNS.items():
        value = table.get(name)
        if isinstance(value, str) and (quantity := _QUANTITY.fullmatch(value)):
            number, unit = quantity[1], quantity[2].lower()
            own = unit == column.unit.lower() or unit == name.rpartition("_")[2]
            factor = 1.0 if own else column.others.get(unit)
            written = name if factor is None else _written(name, number, factor)
            yield f"{name} is {value!r}; it is a number of {column.unit}, without its unit: {written}"
    if "battery_mah" in table and "battery_wh" not in table:
        yield f"battery_mah is {table['battery_mah']!r}; give Wh, which is mAh times volts / 1000: battery_wh"


def _written(name: str, value: Any, factor: float) -> str:
    try:
        number = float(value) * factor
    except (TypeError, ValueError):
        return name
    return f"{name} = {number:.6g}" if math.isfinite(number) else name


def _described(name: str) -> str:
    """A column with its unit: `load_w` (W)."""
    if name not in _COLUMNS:
        return name
    mains = ', or "none" on mains' if name == "battery_wh" else ""
    return f"{name} ({_COLUMNS[name].unit}{mains})"
