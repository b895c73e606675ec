"""TensorBoard's event files, in `tensorboard/` of the run's folder; written by tensorboardX, which needs no torch."""

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fedge.watch.series import round_series, run_series
from fedge.watch.tracker import ALONE, Place, Tracker


@contextmanager
def _torch_left_out() -> Iterator[None]:
    """tensorboardX imports torch where it is installed, for a type's name; the process that coordinates has none."""
    if "torch" in sys.modules:
        yield
        return
    sys.modules["torch"] = None  # type: ignore[assignment]  # an import of it fails, as where it is not installed
    try:
        yield
    finally:
        del sys.modules["torch"]


with _torch_left_out():
    from tensorboardX import SummaryWriter


class TensorBoard(Tracker):
    """Scalars per round, and the clients' accuracies as a histogram."""

    def __init__(self, folder: Path, place: Place = ALONE) -> None:
        super().__init__(folder, place)
        self._writer: Any = None
        self._accuracies: list[float] = []

    def round_started(self, round: int, clients: int) -> None:
        if self._writer is None:  # what an earlier run left of this round and later ones is not shown
            self._writer = SummaryWriter(str(self.folder / "tensorboard"), purge_step=round)
        self._accuracies = []

    def report_arrived(self, row: Mapping[str, Any]) -> None:
        if row["status"] == "ok" and row["test_count"]:
            self._accuracies.append(row["test_correct"] / row["test_count"])

    def round_finished(self, figures: Mapping[str, Any]) -> None:
        self.round = figures["round"]
        for name, value in round_series(figures).items():
            self._writer.add_scalar(name, value, self.round)
        if self._accuracies:
            self._writer.add_histogram("clients/accuracy", self._accuracies, self.round)
        self._writer.flush()

    def run_finished(self, summary: Mapping[str, Any]) -> None:
        for name, value in run_series(summary).items() if self._writer else ():
            self._writer.add_scalar(name, value, self.round)

    def close(self, *, finished: bool) -> None:
        if self._writer is not None:
            self._writer.close()
