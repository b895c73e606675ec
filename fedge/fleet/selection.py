"""Whom to ask in a round and when it is over: over-selection, quorum, deadline, all in virtual time.

As in Bonawitz et al., "Towards federated learning at scale" (arXiv 1902.01046): more devices are asked than wanted
(130 %), the round ends with the wanted number of reports or at its deadline, and it counts if a quorum reported.

    asked  = min(ceil(over_selection * wanted), candidates)
    ends   = time of the wanted-th report, if that is within the deadline;
             else the deadline, if a device is still out then; else the time of the last report
    quorum = ceil(quorum * wanted) reports by then
"""

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fedge.scenario.fleet import Selection
from fedge.seeding import derive_seed


@dataclass(frozen=True)
class Closing:
    """How a round ended. `counted` and `late` are client numbers; `time_s` is its virtual length."""

    counted: tuple[int, ...]
    late: tuple[int, ...]
    time_s: float
    wanted: int
    needed: int

    @property
    def quorum_met(self) -> bool:
        return len(self.counted) >= self.needed


def wanted_reports(settings: Selection, candidates: int) -> int:
    """How many reports a round with that many candidates wants."""
    return min(settings.clients_per_round or candidates, candidates)


def select(candidates: Sequence[int], settings: Selection, *, seed: int, round: int) -> list[int]:
    """The clients to ask, in order of their numbers: a uniform draw by (seed, round). No candidates: nobody."""
    wanted = wanted_reports(settings, len(candidates))
    asked = min(_ceil(settings.over_selection * wanted), len(candidates))
    if asked == len(candidates):
        return sorted(candidates)
    return sorted(random.Random(derive_seed(seed, round, "selection")).sample(sorted(candidates), asked))


def close_round(time_s: Mapping[int, float], settings: Selection, *, wanted: int, silent: int = 0) -> Closing:
    """Decide which reports count. `time_s`: client -> virtual seconds until its report arrived; `silent`: how many
    of those asked will never report (a deadline is then waited for). Nobody: nothing counts, the length is the
    deadline, or 0 without one. At equal times the smaller client number goes first.
    """
    order = sorted(time_s, key=lambda client: (time_s[client], client))
    deadline_s = math.inf if settings.deadline_s is None else settings.deadline_s
    counted = tuple(client for client in order if time_s[client] <= deadline_s)[:wanted]
    late = tuple(order[len(counted) :])
    waits = len(counted) < wanted and (silent or late) and settings.deadline_s is not None
    last_s = time_s[counted[-1]] if counted else 0.0
    return Closing(
        counted=tuple(sorted(counted)),
        late=tuple(sorted(late)),
        time_s=deadline_s if waits else last_s,
        wanted=wanted,
        needed=_ceil(settings.quorum * wanted),
    )


def _ceil(number: float) -> int:
    """Ceiling that forgives rounding: 1.3 * 10 is 13, not 14."""
    return math.ceil(number - 1e-9)
