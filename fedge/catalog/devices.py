"""What a class of device can do: `profile("jetson-nano")`, from the table in devices.csv. No torch here.

Each number's evidence stands in the table: R read in the named source, D derived from such (peak from clocks,
memory as a share), K recalled and not verified, A assumed by one of these rules:

    train_gflops  boards and laptops: HPL (fp64, the whole board); GPU boards: 0.2 x fp32 peak (0.1 to 0.3 is
                  plausible: sweep it); phones: FLASH's measured training, or a stated multiple of a neighbour
    memory_mb     what training may take: 0.75 of what is built in (0.25 on a phone, all of an MCU)
    idle_w        0.3 x load_w (where both were read, it is 0.17 to 0.42)
    load_w        phones 3 to 10 W by age; 20 W for a fanless laptop; 0.5 W for a microcontroller with radio
    network       phones, laptops: 6.1 Mbps down, 0.76 of it up (FedScale, FLASH); MCUs 1, 0.5; else 20, 10

So figures compare well within a family and poorly across families. A blank is refused, never taken for 0;
`none` under battery_wh means mains power. docs/methods/devices.md has the table and the cost formulas.
"""

import csv
import importlib.resources
import math
from collections.abc import Iterable
from dataclasses import dataclass, fields
from types import MappingProxyType
from typing import Any

from fedge.catalog.names import did_you_mean
from fedge.errors import UserError


@dataclass(frozen=True)
class DeviceProfile:
    """One device class. GFLOP/s: training as it runs, 2 FLOP per multiply-accumulate. Mbps: 1e6 bit/s."""

    name: str
    kind: str
    train_gflops: float
    memory_mb: float
    memory_gbs: float
    down_mbps: float
    up_mbps: float
    idle_w: float
    load_w: float
    battery_wh: float | None  # None: on mains power
    ray_num_cpus: float  # what one Ray host of this class asks for, unless the scenario says otherwise
    ray_memory_mb: float
    evidence: str
    train_basis: str
    source: str
    fingerprint: str | None = (
        None  # the text of one (catalog/fingerprint.py), by which its time goes; None: by the two terms
    )

    @property
    def memory_bytes(self) -> int:
        """Memory that training may take."""
        return int(self.memory_mb * 1e6)

    @classmethod
    def from_row(cls, row: dict[str, str]) -> "DeviceProfile":
        """One line of the table. UserError for a number that is missing, no number, or not above 0."""
        columns = (field for field in fields(cls) if field.name != "fingerprint")
        values: dict[str, Any] = {field.name: _parse(row, field.name, field.type) for field in columns}
        return cls(**values)


def _parse(row: dict[str, str], column: str, kind: object) -> str | float | None:
    text = (row.get(column) or "").strip()
    if kind is str and text:
        return text
    if column == "battery_wh" and text == "none":
        return None
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 < number < math.inf:
        raise UserError(
            f"device profile '{row.get('name')}': {column} is '{text}'; it must be a number above 0"
            " (a missing cost is an error)"
        )
    return number


def _load() -> MappingProxyType[str, DeviceProfile]:
    table = importlib.resources.files("fedge.catalog").joinpath("devices.csv")
    rows = csv.DictReader(table.read_text(encoding="utf-8").splitlines())
    return MappingProxyType({row["name"]: DeviceProfile.from_row(row) for row in rows})


PROFILES = _load()
"""Name -> profile, in the table's order."""


def profile(name: str, own: Iterable[DeviceProfile] = ()) -> DeviceProfile:
    """The profile called `name`, of the table or of a scenario's `own`; UserError, with the nearest name, where there
    is none."""
    known = {**PROFILES, **{device.name: device for device in own}}
    if name in known:
        return known[name]
    raise UserError(
        f"fleet device is '{name}'; {did_you_mean(name, known, cutoff=0.5)}, or give a [[device]] of your own"
    )
