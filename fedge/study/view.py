"""What a person watches while a study runs: cells done, those that run, the time left."""

import sys
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from fedge.study.cells import Cell
from fedge.study.runner import StudyObserver


class PlainStudy(StudyObserver):
    """A line per cell, for logs and pipes."""

    def __init__(self) -> None:
        self._cells = self._done = 0

    def started(self, cells: int, done: int) -> None:
        self._cells, self._done = cells, done
        self._say(f"{cells} cells, {done} of them done before")

    def cell_finished(self, cell: Cell, error: str | None) -> None:
        self._done += 1
        self._say(f"cell {self._done:>3}/{self._cells}  {cell}" + (f"  failed: {error}" if error else ""))

    def notice(self, cell: Cell, text: str) -> None:
        self._say(f"{cell}: {text}")

    def _say(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)


class LiveStudy(StudyObserver):
    """One bar over all cells, and a line for each that runs."""

    def __init__(self, console: Console) -> None:
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.completed:.0f}/{task.total:.0f}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console,
        )
        self._all: TaskID | None = None
        self._running: dict[str, TaskID] = {}

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def started(self, cells: int, done: int) -> None:
        self._all = self._bar.add_task("cells", total=cells, completed=done)

    def cell_started(self, cell: Cell) -> None:
        self._running[cell.id] = self._bar.add_task(str(cell), total=cell.scenario.all_rounds)

    def round_finished(self, cell: Cell, round: int) -> None:
        self._bar.update(self._running[cell.id], completed=round)

    def cell_finished(self, cell: Cell, error: str | None) -> None:
        self._bar.remove_task(self._running.pop(cell.id))
        if self._all is not None:
            self._bar.advance(self._all)
        if error:
            self.notice(cell, f"failed: {error}")

    def notice(self, cell: Cell, text: str) -> None:
        self._bar.console.print(f"{cell}: {text}", highlight=False, markup=False, soft_wrap=True)
