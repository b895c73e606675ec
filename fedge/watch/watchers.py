"""`--watch`: who is told of a run beside the person in front of it.

A tracker that fails must not cost the run: it is dropped with one line that names it, and the run goes on. A watcher
of one's own that wants the run to end raises fedge.errors.RunError, whose line is then the command's.
"""

import importlib
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedge.catalog.names import did_you_mean
from fedge.catalog.program import read_programs
from fedge.console.observer import Observer
from fedge.errors import FedgeError, UserError
from fedge.references import resolve_callable
from fedge.watch.tracker import ALONE, Place, Tracker

TRACKERS = {
    "tensorboard": ("fedge.watch.tensorboard", "TensorBoard", "tensorboardX"),
    "mlflow": ("fedge.watch.mlflow", "MLflow", "mlflow-skinny"),
    "wandb": ("fedge.watch.wandb", "WandB", "wandb"),
}

_EVENTS = (
    "progress", "run_started", "round_started", "report_arrived", "round_finished", "run_finished", "notice",
    "host_event",
)  # fmt: skip


@contextmanager
def watched_by(
    names: Sequence[str], folder: Path, seen: Observer, place: Place = ALONE
) -> Iterator[Observer]:
    """An Observer that tells `seen` and then each of `names`; trackers are closed at the end, however that comes.

    folder: of the run's results. place: of the run among others. UserError, in one line, for a name that stands for
    nothing, for a package that is missing, and for a class that cannot be made or is no Observer.
    """
    watchers = {name: watcher(name, folder, place) for name in names}
    if not watchers:
        yield seen
        return
    told = _Told(seen, watchers)
    finished = False
    try:
        yield told
        finished = True
    finally:
        for name, watcher_ in list(told.watchers.items()):
            if isinstance(watcher_, Tracker):
                told.tell(name, watcher_.close, finished=finished)


def watcher(name: str, folder: Path, place: Place = ALONE) -> Observer:
    """One that is named: a tracker's name, or FILE.py:CLASS of one's own, which is made without arguments."""
    if name in TRACKERS:
        module, attribute, package = TRACKERS[name]
        try:
            tracker: Observer = getattr(importlib.import_module(module), attribute)(folder, place)
        except ImportError as error:
            raise UserError(
                f"--watch {name} takes {package}, which does not load ({error}): pip install {package}"
            ) from None
        return tracker
    file, _, attribute = name.rpartition(":")
    if not file.endswith(".py"):
        raise UserError(f"--watch is {name!r}; {did_you_mean(name, TRACKERS)}, or FILE.py:CLASS")
    made = _made(name, file)
    if not isinstance(made, Observer):
        raise UserError(
            f"--watch {name}: {attribute} is no fedge.Observer; write: class {attribute}(fedge.Observer)"
        )
    return made


@contextmanager
def study_watched_by(names: Sequence[str], study: str, folder: Path) -> Iterator["Group"]:
    """What each cell of a study has to be told by. UserError for a name that stands for nothing; trouble with a
    tracker's own service is a line on standard error."""
    for name in names:
        watcher(name, folder)
    group = Group(tuple(names), study)
    parent: Any = None
    if "mlflow" in names:
        from fedge.watch.mlflow import MLflowStudy

        with _tolerated("mlflow"):
            parent = MLflowStudy(study, folder)
            group.parent = parent.parent
    try:
        yield group
    finally:
        if parent is not None:
            with _tolerated("mlflow"):
                parent.close(group.summary)


@dataclass
class Group:
    """The watchers of a study's cells. summary: study.json, once it is there."""

    names: tuple[str, ...]
    study: str
    parent: str = ""
    summary: Mapping[str, Any] | None = None


@contextmanager
def _tolerated(name: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        print(f"--watch {name} failed ({_said(error)}); the study goes on", file=sys.stderr)


def _made(name: str, file: str) -> Any:
    path = Path(file).expanduser()
    if not path.is_file():
        raise UserError(f"--watch {name}: {file}: no such file")
    kind = resolve_callable(name, {file: read_programs(path)}, key="--watch")
    try:
        return kind()
    except Exception as error:
        raise UserError(f"--watch {name}: it cannot be made without arguments ({_said(error)})") from error


class _Told(Observer):
    """Passes all events on; whoever of `watchers` raises is told no more."""

    def __init__(self, seen: Observer, watchers: dict[str, Observer]) -> None:
        self._seen, self.watchers = seen, watchers
        for event in _EVENTS:
            setattr(self, event, self._passing(event))

    def _passing(self, event: str) -> Callable[..., None]:
        def passed(*arguments: Any) -> None:
            getattr(self._seen, event)(*arguments)
            for name, watcher_ in list(self.watchers.items()):
                self.tell(name, getattr(watcher_, event), *arguments)

        return passed

    def tell(self, name: str, call: Callable[..., None], *arguments: Any, **named: Any) -> None:
        """`call`, which is the watcher's of that name; what it raises ends the watcher, and a FedgeError the run."""
        try:
            call(*arguments, **named)
        except FedgeError:
            raise
        except Exception as error:
            self.watchers.pop(name, None)
            self._seen.notice(f"--watch {name} failed and is told no more ({_said(error)}); the run goes on")


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
