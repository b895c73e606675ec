"""A battery that runs down and recharges, by counting what goes in and out. No torch here.

    level_j <- clamp(level_j + charger_w * plugged_s - idle_w * unplugged_s - energy_j,  0 .. capacity_j)
    joins a round   if on mains, plugged in, or level > admit * capacity
    aborts a round  at the moment its energy would take the level below floor * capacity (plugged in: never)

capacity_j = 3600 * battery_wh of the profile. A device without a battery is on mains: it always joins and never
aborts. Each device is plugged in once a day, at an hour of its own: `plug_h` plus up to 2 h either way, by (seed,
client), for `plugged_for_h`. Units: J, W, s; hours for times of day. Lithium cells lose a few per cent in charging
and give less in the cold: neither is modelled.
"""

import random
from dataclasses import dataclass, replace

from fedge.catalog.devices import DeviceProfile
from fedge.scenario.schema import Energy
from fedge.seeding import derive_seed

_HOUR_S = 3600.0
_DAY_S = 24 * _HOUR_S
_PLUG_JITTER_H = 2.0


@dataclass(frozen=True)
class Battery:
    """A device's battery at one moment; every method gives a new one."""

    capacity_j: float | None  # None: on mains
    level_j: float

    @classmethod
    def of(cls, profile: DeviceProfile, settings: Energy) -> "Battery":
        """As it is before the first round."""
        if profile.battery_wh is None:
            return cls(None, 0.0)
        capacity_j = profile.battery_wh * _HOUR_S
        return cls(capacity_j, capacity_j * settings.start)

    @property
    def share(self) -> float:
        """Level, 0..1; 1 on mains."""
        return 1.0 if self.capacity_j is None else self.level_j / self.capacity_j

    def joins(self, settings: Energy, *, plugged: bool) -> bool:
        """Whether the device takes part in a round."""
        return plugged or self.share > settings.admit

    def lasts(self, energy_j: float, settings: Energy, *, plugged: bool) -> float:
        """The share (0..1) of a round of `energy_j` after which the device aborts; 1: it ends the round."""
        if self.capacity_j is None or plugged or energy_j <= 0:
            return 1.0
        spare_j = max(0.0, self.level_j - settings.floor * self.capacity_j)
        return min(1.0, spare_j / energy_j)

    def spend(self, energy_j: float) -> "Battery":
        """After a round's energy, idle power included."""
        return self._to(self.level_j - energy_j)

    def rest(self, idle_w: float, settings: Energy, *, plugged_s: float, unplugged_s: float) -> "Battery":
        """After time without work."""
        return self._to(self.level_j + settings.charger_w * plugged_s - idle_w * unplugged_s)

    def _to(self, level_j: float) -> "Battery":
        return replace(self, level_j=min(max(level_j, 0.0), self.capacity_j or 0.0))


@dataclass(frozen=True)
class Charge:
    """A battery at a moment of virtual time, in seconds since the midnight before the run."""

    battery: Battery
    time_s: float


def plugged_seconds(settings: Energy, *, seed: int, client: int, start_s: float, end_s: float) -> float:
    """How long `client` is plugged in between two virtual times, in seconds since a midnight."""
    jitter_h = random.Random(derive_seed(seed, client, "plug")).uniform(-_PLUG_JITTER_H, _PLUG_JITTER_H)
    plug_s = (settings.plug_h + jitter_h) * _HOUR_S
    length_s = settings.plugged_for_h * _HOUR_S

    def until(time_s: float) -> float:
        """Plugged seconds from the first plugging to `time_s` (negative before it)."""
        days, into_s = divmod(time_s - plug_s, _DAY_S)
        return days * length_s + min(into_s, length_s)

    return until(end_s) - until(start_s)


def is_plugged(settings: Energy, *, seed: int, client: int, time_s: float) -> bool:
    """Whether `client` is plugged in at a virtual time."""
    return plugged_seconds(settings, seed=seed, client=client, start_s=time_s, end_s=time_s + 1.0) > 0.5
