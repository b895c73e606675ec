"""Has what comes changed? River's ADWIN on a device's own errors, as they become known.

ADWIN (Bifet and Gavalda, SDM 2007) keeps a window of the values so far, of which it drops the older part once the means
of some older and some newer part differ by more than chance explains at `delta`: the lower, the rarer are false alarms.
For values in 0..1, as errors are. Only a change for the worse is an alarm; a network that gets better changes its error
too. River is an extra, `pip install fedge[streams]`, and imported when a detector is made.

Nothing here is counted as arithmetic: a window costs some hundred additions a value, a network's answer millions.
"""

from collections.abc import Iterable
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fedge.errors import RunError, UserError


class Adwin:
    """delta: 0..1, ADWIN's significance. Its state is what it has seen: `tensors` and `load` are exact."""

    def __init__(self, delta: float) -> None:
        self._delta = delta
        self._window = _adwin()(delta=delta)

    def reset(self) -> None:
        """Forget all: the values that come are of another network."""
        self._window = _adwin()(delta=self._delta)

    def alarms(self, values: Iterable[float]) -> int:
        """Take in values in 0..1, in order; how often they got worse on the way."""
        alarms = 0
        for value in values:
            before = self._window.estimation
            self._window.update(float(value))
            alarms += bool(self._window.drift_detected and self._window.estimation > before)
        return alarms

    @property
    def width(self) -> int:
        """Values in the window."""
        return int(self._window.width)

    def tensors(self) -> dict[str, Tensor]:
        """For the device's state: river's own bytes, whose they are, and whether the last value was a change (after
        which river begins a new window)."""
        return {
            "window": _bytes(self._window._helper.__getstate__()),
            "river": _bytes(version("river").encode()),
            "changed": torch.tensor(bool(self._window.drift_detected)),
        }

    def load(self, tensors: dict[str, Tensor]) -> None:
        """What `tensors` gave. RunError where another river wrote it, which may read it otherwise."""
        wrote, reads = tensors["river"].numpy().tobytes().decode(), version("river")
        if wrote != reads:
            raise RunError(
                f"the drift detector's state was written by river {wrote} and this is river {reads}: install river "
                f"{wrote} to go on, or start the run over"
            )
        self._window._helper.__setstate__(tensors["window"].numpy().tobytes())
        self._window._drift_detected = bool(tensors["changed"])


def _bytes(content: bytes) -> Tensor:
    return torch.from_numpy(np.frombuffer(content, np.uint8).copy())


def _adwin() -> Any:
    """River's class; UserError, in one line, where there is no river."""
    try:
        from river.drift import ADWIN
    except ImportError as error:
        raise UserError(
            f"schedule.detector takes river, which does not load ({error}): pip install 'fedge[streams]' where the "
            "devices run"
        ) from None
    return ADWIN
