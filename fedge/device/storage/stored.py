"""What a device remembers of its stream from round to round: the frames that it stores, by number.

Nothing here grows with virtual time: at most N frames, and a mark for each of the client's own rows.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Stored:
    """M frames in memory, in the order in which they came.

    number, row, time_h: as in `Frames` [M]. score: the filter's when it came [M]. trained: trained on already [M].
    met_R: rows that were in memory at the end of a round, and so may have been trained on [R]. until: the last
    interval taken in. met: frames that could have been stored so far. rule: what the rule's own parts have learnt.
    """

    number: NDArray[np.int64]
    row: NDArray[np.int64]
    time_h: NDArray[np.float64]
    score: NDArray[np.float64]
    trained: NDArray[np.bool_]
    met_R: NDArray[np.bool_]
    until: int = 0
    met: int = 0
    rule: Mapping[str, Tensor] = field(default_factory=dict)

    @classmethod
    def empty(cls, rows: int) -> "Stored":
        """Before the first frame, of a client with so many training rows."""
        whole, real, mark = np.empty(0, np.int64), np.empty(0, np.float64), np.empty(0, np.bool_)
        return cls(whole, whole, real, real, mark, np.zeros(rows, bool))

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor], rows: int) -> "Stored":
        """From what `tensors` gave; empty where that is nothing."""
        if not tensors:
            return cls.empty(rows)
        arrays = {name: tensors[name].numpy() for name in _ARRAYS}
        until, met = tensors["counts"].tolist()
        rule = {
            name.removeprefix(_RULE): tensor for name, tensor in tensors.items() if name.startswith(_RULE)
        }
        return cls(**arrays, until=until, met=met, rule=rule)

    def tensors(self) -> dict[str, Tensor]:
        """For the device's state."""
        held = {name: torch.from_numpy(getattr(self, name)) for name in _ARRAYS}
        return (
            held
            | {"counts": torch.tensor([self.until, self.met])}
            | {f"{_RULE}{name}": tensor for name, tensor in self.rule.items()}
        )

    def __len__(self) -> int:
        return len(self.number)

    def chosen(self, which_M: NDArray[np.int64]) -> "Stored":
        """With these of its frames."""
        return replace(self, **{name: getattr(self, name)[which_M] for name in _OF_FRAMES})

    def joined(self, **more: NDArray[Any]) -> "Stored":
        """With frames behind its own: an array for each of their fields."""
        longer: dict[str, Any] = {
            name: np.concatenate([getattr(self, name), more[name]]) for name in _OF_FRAMES
        }
        return replace(self, **longer)


_RULE = "rule."
_OF_FRAMES = ("number", "row", "time_h", "score", "trained")
_ARRAYS = (*_OF_FRAMES, "met_R")
