"""Which samples of a stream stay in a small buffer, segment by segment. Rules, for N places:

    contrast    the N highest S of buffer and segment (scores.py); of equal ones the latest
    minred      MinRed (Purushwalkam, Morgado, Gupta, ECCV 2022, arXiv 2203.12710): the most redundant goes, one by one,
                i* = argmin_i min over j != i of (1 - m_i . m_j), m a sample's mean embedding, m <- (m + z) / 2 each
                time it is met; of a pair the older goes
    reservoir   every sample so far with the same probability (Vitter, algorithm R, ACM TOMS 11(1), 1985)
    random      N of buffer and segment by lot: what is old goes geometrically
    fifo        the latest N

contrast and minred look at samples: at each new one, and at one that is in the buffer every T-th time it is met (lazy
scoring), T = 1: always. The others look at nothing. A buffer knows places and no pictures: its owner keeps whatever
belongs to them in the order in which `offer` says. Shapes: M in the buffer, K = M + new candidates, D as an embedding.
"""

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from fedge.errors import UserError

RULES = ("reservoir", "contrast", "minred", "random", "fifo")
LOOKS = ("contrast", "minred")
"""Rules that look at samples."""

Look = Callable[[Tensor], Tensor]
"""Of the candidates at these places [L]: their scores [L] for contrast, their unit embeddings [L, D] for minred."""


class Buffer:
    """At most `room` samples, in the order in which they came; `len` is how many there are.

    lazy: T. `looked` counts the samples that were looked at since the buffer was made.
    """

    def __init__(self, rule: str, room: int, *, lazy: int = 1) -> None:
        if rule not in RULES:
            raise UserError(f"contrast: there is no rule {rule!r}; take one of {', '.join(RULES)}")
        if room < 2 or lazy < 1:
            raise UserError(
                f"contrast: a buffer of {room} samples, scored every {lazy}: at least 2 and 1 are wanted"
            )
        self.rule, self.room, self.lazy = rule, room, lazy
        self.looked = 0
        self._met = 0  # samples that were offered so far
        self._age_M = torch.zeros(0, dtype=torch.int64)  # segments since a sample came
        self._known = torch.zeros(0)  # scores [M], or mean embeddings [M, D]

    def __len__(self) -> int:
        return len(self._age_M)

    def offer(self, new: int, look: Look, generator: torch.Generator) -> Tensor:
        """Offer `new` samples; says which of the candidates (those in the buffer, then the new ones) stay, rising.

        All chance comes from `generator`.
        """
        held, count = len(self), len(self) + new
        age_K = torch.cat([self._age_M + 1, torch.zeros(new, dtype=torch.int64)])
        if self.rule in LOOKS:
            self._look(age_K, held, look)
        kept = self._chosen(held, count, generator)
        self._met += new
        self._age_M = age_K[kept]
        if self.rule in LOOKS:
            self._known = self._known[kept]
        return kept

    def tensors(self) -> dict[str, Tensor]:
        """What it has to remember, for a state; `load` takes it back."""
        counts = torch.tensor([self._met, self.looked])
        return {"age": self._age_M, "known": self._known, "counts": counts}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Go on where `tensors` was asked."""
        self._age_M, self._known = tensors["age"], tensors["known"]
        self._met, self.looked = tensors["counts"].tolist()

    def _look(self, age_K: Tensor, held: int, look: Look) -> None:
        """At what is due; what is not keeps what was known of it."""
        due = torch.nonzero(age_K % self.lazy == 0)[:, 0]
        self.looked += len(due)
        if not len(due):
            return
        found = look(due)
        known_K = found.new_zeros(len(age_K), *found.shape[1:])
        known_K[:held] = self._known if held else found[:0]
        if self.rule == "minred":
            again = due < held
            mean = F.normalize(known_K[due[again]] + found[again], dim=1)
            found = found.clone()
            found[again] = mean
        known_K[due] = found
        self._known = known_K

    def _chosen(self, held: int, count: int, generator: torch.Generator) -> Tensor:
        if self.rule == "reservoir":
            return self._reservoir(held, count, generator)
        if count <= self.room:
            return torch.arange(count)
        if self.rule == "fifo":
            return torch.arange(count - self.room, count)
        if self.rule == "random":
            return torch.randperm(count, generator=generator)[: self.room].sort().values
        if self.rule == "contrast":
            best = self._known.flip(0).sort(descending=True, stable=True).indices[: self.room]
            return (count - 1 - best).sort().values
        return _least_redundant(self._known, self.room)

    def _reservoir(self, held: int, count: int, generator: torch.Generator) -> Tensor:
        """The n-th sample takes a random place with probability room / n."""
        kept = list(range(held))
        for met, candidate in enumerate(range(held, count), start=self._met + 1):
            if len(kept) < self.room:
                kept.append(candidate)
                continue
            place = int(torch.randint(met, (), generator=generator))
            if place < self.room:
                kept[place] = candidate
        return torch.tensor(sorted(kept), dtype=torch.int64)


def _least_redundant(mean_KD: Tensor, room: int) -> Tensor:
    """The candidates that are left when those with the nearest other have gone, one by one, rising [room]."""
    distance_KK = 1 - mean_KD @ mean_KD.T
    distance_KK.fill_diagonal_(torch.inf)
    left_K = torch.ones(len(mean_KD), dtype=torch.bool)
    for _ in range(len(mean_KD) - room):
        goes = int(distance_KK.min(1).values.argmin())
        left_K[goes] = False
        distance_KK[goes] = distance_KK[:, goes] = torch.inf
    return torch.nonzero(left_K)[:, 0]
