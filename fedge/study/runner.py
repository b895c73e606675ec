"""Runs the cells of a study that are missing, in one or more jobs, and reports what each does."""

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fedge.errors import RunError
from fedge.study.cells import Cell
from fedge.watch.watchers import Group

NOBODY = Group((), "")
GRACE_S = 30.0  # that a job has to end what it runs


class StudyObserver:
    """Watches nothing; the base of those that do."""

    def started(self, cells: int, done: int) -> None:
        """`done` of `cells` were there already."""

    def cell_started(self, cell: Cell) -> None: ...

    def round_finished(self, cell: Cell, round: int) -> None: ...

    def cell_finished(self, cell: Cell, error: str | None) -> None: ...

    def notice(self, cell: Cell, text: str) -> None: ...


@dataclass
class _Job:
    """A process and the cell that it runs."""

    process: "subprocess.Popen[str]"
    cell: Cell | None = None
    tail: deque[str] = field(default_factory=lambda: deque(maxlen=20))
    listeners: list[threading.Thread] = field(default_factory=list)

    def listen(self, index: int, events: "queue.Queue[Event]") -> None:
        """Pass on what it says, and keep the end of what it complains of."""
        self.listeners = [
            threading.Thread(target=_listen, args=(index, self, events), daemon=True),
            threading.Thread(target=_keep_tail, args=(self,), daemon=True),
        ]
        for thread in self.listeners:
            thread.start()

    def end(self) -> None:
        """Wait for it, by force after a while, and close what it was heard by."""
        try:
            self.process.wait(GRACE_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        for thread in self.listeners:
            thread.join(GRACE_S)
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            assert stream is not None
            with contextlib.suppress(OSError):
                stream.close()

    def begin(self, cell: Cell, out: Path, watch: Group) -> None:
        assert self.process.stdin is not None
        self.cell = cell
        table = {
            "folder": str(cell.folder(out)),
            "scenario": cell.scenario.model_dump_json(exclude_none=True),
            "yardstick": cell.yardstick,
            "watch": {
                "names": watch.names,
                "place": {"name": str(cell), "study": watch.study, "parent": watch.parent},
            },
        }
        self.process.stdin.write(json.dumps(table) + "\n")
        self.process.stdin.flush()


Event = tuple[int, Mapping[str, Any] | None]  # of which job; None: it has ended


def run_cells(
    cells: Sequence[Cell],
    out: Path,
    *,
    jobs: int = 1,
    observer: StudyObserver = StudyObserver(),  # noqa: B008
    watch: Group = NOBODY,
) -> None:
    """Run every cell that has no result yet, begun ones from their last whole round. RunError where cells failed:
    after all the others have ended."""
    wanted = _each_once(cells)
    missing = deque(cell for cell in wanted if not cell.is_done(out))
    observer.started(len(wanted), len(wanted) - len(missing))
    failed: list[tuple[Cell, str]] = []
    with _jobs(min(jobs, len(missing))) as (workers, events):
        for job in workers:
            _next(job, missing, out, observer, watch)
        while any(job.cell for job in workers):
            index, event = events.get()
            job = workers[index]
            if job.cell is None:
                continue
            if event is None:
                event = {"error": "its process ended: " + (job.tail[-1] if job.tail else "without a word")}
            _tell(job.cell, event, observer)
            if "error" in event:
                failed.append((job.cell, str(event["error"])))
            if "error" in event or "done" in event:
                observer.cell_finished(job.cell, event.get("error"))
                _next(job, missing, out, observer, watch)
    if failed:
        cell, why = failed[0]
        raise RunError(f"{len(failed)} of {len(cells)} cells failed; the first, {cell}: {why}")


def _each_once(cells: Sequence[Cell]) -> list[Cell]:
    """Two arms may ask for the same run."""
    return list({cell.id: cell for cell in reversed(cells)}.values())[::-1]


def _next(job: _Job, missing: "deque[Cell]", out: Path, observer: StudyObserver, watch: Group) -> None:
    job.cell = None
    if missing and job.process.poll() is None:
        job.begin(missing.popleft(), out, watch)
        assert job.cell is not None
        observer.cell_started(job.cell)


def _tell(cell: Cell, event: Mapping[str, Any], observer: StudyObserver) -> None:
    if "round" in event:
        observer.round_finished(cell, event["round"])
    elif "notice" in event:
        observer.notice(cell, event["notice"])


@contextmanager
def _jobs(count: int) -> Iterator[tuple[list[_Job], "queue.Queue[Event]"]]:
    """Processes of fedge.study.job, and what they say; ended at the end, by force where they do not."""
    events: queue.Queue[Event] = queue.Queue()
    jobs = [_Job(_process()) for _ in range(count)]
    try:
        for index, job in enumerate(jobs):
            job.listen(index, events)
        yield jobs, events
        for job in jobs:
            assert job.process.stdin is not None
            job.process.stdin.close()
            with contextlib.suppress(subprocess.TimeoutExpired):
                job.process.wait(GRACE_S)
    finally:
        for job in jobs:
            if job.process.poll() is None:
                job.process.send_signal(signal.SIGTERM)
        for job in jobs:
            job.end()


def _process() -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "fedge.study.job"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
        start_new_session=True,  # Ctrl-C reaches the study, which ends its jobs
    )


def _listen(index: int, job: _Job, events: "queue.Queue[Event]") -> None:
    assert job.process.stdout is not None
    for line in job.process.stdout:
        events.put((index, json.loads(line)))
    events.put((index, None))


def _keep_tail(job: _Job) -> None:
    assert job.process.stderr is not None
    job.tail.extend(line.strip() for line in job.process.stderr if line.strip())
