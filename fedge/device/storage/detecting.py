"""A device's drift detector and what it is fed: its errors on the frames that came, as their labels come.

An error is made when a frame comes and known when its label does; until then it waits. So a detector is never ahead of
the labels, and what waits is bounded by the rate and the delay. Shapes: F frames, W that wait.
"""

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedge.training.drift_detector import Adwin


class Detecting:
    """`alarms` is how often this round's frames were a change for the worse."""

    def __init__(self, detector: Adwin, learnt: Mapping[str, Tensor]) -> None:
        self._detector = detector
        self.alarms = 0
        self._known_h, self._wrong = np.empty(0), np.empty(0, bool)
        if learnt:
            detector.load(dict(learnt))
            self._known_h, self._wrong = learnt["known_h"].numpy(), learnt["wrong"].numpy()

    def answered(self, wrong_F: NDArray[np.bool_], label_h: NDArray[np.float64]) -> None:
        """The device's answers to frames, in the order in which they came; `label_h`: when their labels come."""
        self._known_h = np.concatenate([self._known_h, label_h])
        self._wrong = np.concatenate([self._wrong, wrong_F])

    def look(self, hour: float) -> None:
        """Take in what is known by `hour`, in the order in which it became known."""
        order_W = np.argsort(self._known_h, kind="stable")
        known_W, wrong_W = self._known_h[order_W], self._wrong[order_W]
        now = int(np.searchsorted(known_W, hour, side="right"))
        self.alarms += self._detector.alarms(wrong_W[:now])
        self._known_h, self._wrong = known_W[now:], wrong_W[now:]

    def reset(self) -> None:
        """The network is another: what it got wrong before, known or not, says nothing of it. Alarms stay counted."""
        self._detector.reset()
        self._known_h, self._wrong = np.empty(0), np.empty(0, bool)

    def tensors(self) -> dict[str, Tensor]:
        """For the device's state."""
        return self._detector.tensors() | {
            "known_h": torch.from_numpy(self._known_h),
            "wrong": torch.from_numpy(self._wrong),
        }
