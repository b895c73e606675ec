"""Does the plan fit the device? Asked before the round, answered with one line: need, have, what was done.

What does not fit is handled as the scenario says:

    refuse  the device declines the round; the others go on
    shrink  the batch is halved, down to 2; then the pruning level is raised in steps of 0.05, up to 0.95

(`limits.memory = "fail"` is refuse on the device; ending the run is the coordinator's part.)

need = peak of the tensors (fedge.device.memory) x overhead. An allocator that gives memory back at once was
measured at 1.06 of the tensors; glibc's default keeps about 1.7.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

Policy = Literal["refuse", "shrink"]

SMALLEST_BATCH = 2  # batch normalisation has no statistics of one instance
LEVEL_STEP = 0.05
HIGHEST_LEVEL = 0.95


@dataclass(frozen=True)
class Fit:
    """The decision. `fits` false: the device declines. `batch_size` and `level` are what the round is to use.
    `asked_bytes` is what the plan needs as it was, `need_bytes` as it became."""

    fits: bool
    batch_size: int
    level: float
    asked_bytes: int
    need_bytes: int
    have_bytes: int
    line: str


def fit(
    need: Callable[[int, float], int],
    have_bytes: int,
    *,
    who: str,
    batch_size: int,
    level: float,
    policy: Policy,
    may_prune: bool = True,
) -> Fit:
    """Decide for one device. `need(batch_size, level)` is in bytes, overhead included, and is asked only as often
    as necessary; `who` begins the line ("client 17, device 'phone-low'"). `may_prune` false: the network stays
    as it is in this round, so only the batch can shrink.
    """
    asked = need(batch_size, level)
    said = f"{who}: the plan needs {_mb(asked)}, the device has {_mb(have_bytes)}"
    if asked <= have_bytes:
        return Fit(True, batch_size, level, asked, asked, have_bytes, f"{said}: it fits")
    advice = f"lower batch_size (now {batch_size}) or raise pruning.level (now {level:g})"
    if policy == "refuse":
        return Fit(False, batch_size, level, asked, asked, have_bytes, f"{said}: declined; {advice}")
    for smaller, higher in _smaller(batch_size, level, may_prune):
        got = need(smaller, higher)
        if got <= have_bytes:
            done = f"shrunk to batch_size {smaller}, pruning.level {higher:g}: {_mb(got)}"
            return Fit(True, smaller, higher, asked, got, have_bytes, f"{said}: {done}")
    smallest = f"declined; not even batch_size {smaller}, pruning.level {higher:g} fits"
    return Fit(False, batch_size, level, asked, asked, have_bytes, f"{said}: {smallest}")


def _smaller(batch_size: int, level: float, may_prune: bool) -> Iterator[tuple[int, float]]:
    """Ever smaller choices after (batch_size, level), the gentlest first; at least one."""
    smaller = max(batch_size // 2, min(batch_size, SMALLEST_BATCH))
    yield smaller, level
    while smaller > SMALLEST_BATCH:
        smaller = max(smaller // 2, SMALLEST_BATCH)
        yield smaller, level
    steps = round((HIGHEST_LEVEL - level) / LEVEL_STEP) if may_prune else 0
    for step in range(1, steps + 1):
        yield smaller, round(min(level + step * LEVEL_STEP, HIGHEST_LEVEL), 4)


def _mb(size_bytes: int) -> str:
    return f"{size_bytes / 1e6:.3g} MB" if size_bytes < 100e6 else f"{size_bytes / 1e6:.0f} MB"
