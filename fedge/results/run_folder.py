"""The folder of a run's results: append-only logs and a checkpoint that says how far they are good.

A round is committed in this order: its lines are appended to the logs and synced, then `checkpoint.json` is replaced
by one that holds the logs' lengths and digests; the one before stays as `checkpoint.previous.json`. What lies behind
the lengths is cut off when a run is taken up again. So a run that was killed at any moment goes on from its last
whole round, and a damaged checkpoint or log is seen, named, and passed over for the one before.
"""

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from fedge.errors import RunError, UserError
from fedge.protocol import TIMING_FIELDS
from fedge.results.owner import LOCK
from fedge.results.record import NO_RECORD, Record
from fedge.results.write import replace_text

LOGS = ("reports.jsonl", "rounds.jsonl", "egress.jsonl", "plans.jsonl")
_LATER = ("plans.jsonl",)  # which folders of earlier versions do not have
CHECKPOINTS = ("checkpoint.json", "checkpoint.previous.json")
SCENARIO = "scenario.toml"
SUMMARY = "summary.json"
PAGE = "report.html"

Row = Mapping[str, Any]


def refuse_unusable(folder: Path, *, resume: bool) -> None:
    """Raise UserError where `folder` cannot take a run's results; write nothing. Asked before anything is started."""
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file; give --out a folder")
    if _holds_something(folder) and not (folder / SCENARIO).is_file():
        raise UserError(f"{folder} is not empty and holds no earlier run; give --out another folder")
    if resume and not (folder / SCENARIO).is_file():
        raise UserError(f"{folder} holds no run to resume; run without --resume")
    standing = next(parent for parent in (folder, *folder.parents) if parent.exists())
    if not standing.is_dir():
        raise UserError(f"{standing} is a file, so {folder} cannot be made; give --out another folder")
    if not os.access(standing, os.W_OK | os.X_OK):
        raise UserError(f"{standing} cannot be written; give --out another folder")


def _holds_something(folder: Path) -> bool:
    return folder.is_dir() and any(path.name != LOCK for path in folder.iterdir())


def rounds_held(folder: Path) -> int:
    """Whole rounds of an earlier run in `folder`, as its checkpoint says; 0 where there was none.

    Where no checkpoint can be read, as many as the log has lines: better one too many than a run lost unasked.
    """
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        return int(json.loads((folder / CHECKPOINTS[0]).read_text(encoding="utf-8"))["round"])
    if not any((folder / name).exists() for name in CHECKPOINTS):
        return 0
    log = folder / "rounds.jsonl"
    return len(log.read_text(encoding="utf-8").splitlines()) if log.is_file() else 0


def read_reports(folder: Path, *, timing: bool = True) -> list[dict[str, Any]]:
    """The lines of the folder's reports.jsonl, in order of round and client.

    timing=False leaves out the seconds that the simulation itself took: then equal runs give equal reports.
    """
    if not (folder / LOGS[0]).is_file():
        raise UserError(no_reports(folder))
    rows = [json.loads(line) for line in (folder / LOGS[0]).read_text(encoding="utf-8").splitlines()]
    left_out = () if timing else TIMING_FIELDS
    return [{name: value for name, value in row.items() if name not in left_out} for row in rows]


def no_reports(folder: Path) -> str:
    """Why a run's folder has no reports.jsonl."""
    return (
        f"{folder} has no reports.jsonl: with privacy.view = 'sums', or an epsilon, the coordinator sees no report; "
        "rounds.jsonl holds what it knows, devices/<client>/report.json what each device has kept of its own"
    )


class RunFolder:
    """Open with `start` or `resume`. `round` is the last committed round, 0 before the first."""

    def __init__(self, folder: Path, round: int = 0, *, reports: bool = True) -> None:
        """reports: whether there is a reports.jsonl; not where the coordinator reads no report."""
        self.folder = folder
        self.round = round
        self._logs = LOGS if reports else LOGS[1:]
        self._digests = {log: hashlib.blake2b(digest_size=16) for log in self._logs}
        self._lengths = dict.fromkeys(self._logs, 0)

    @classmethod
    def start(
        cls,
        folder: Path,
        scenario_toml: str,
        record: Record = NO_RECORD,
        *,
        reports: bool = True,
        keep: tuple[str, ...] = (),
    ) -> "RunFolder":
        """Begin a run. An earlier run's results in `folder` are replaced; anything else there is refused.

        keep: names of files that stay with the devices and with the helper, if any.
        """
        refuse_unusable(folder, resume=False)
        try:
            for name in (*LOGS, *CHECKPOINTS, SUMMARY, PAGE):
                (folder / name).unlink(missing_ok=True)
            # a device answers a round that it has done already
            for whose in ("devices", "helper"):
                _clear(folder / whose, keep)
            folder.mkdir(parents=True, exist_ok=True)
            replace_text(folder / SCENARIO, scenario_toml)
            record.write(folder)
            self = cls(folder, reports=reports)
            for log in self._logs:
                (folder / log).touch()
        except OSError as error:
            raise UserError(
                f"{folder}: cannot be written: {error.strerror}; give --out another folder"
            ) from None
        return self

    @classmethod
    def resume(
        cls,
        folder: Path,
        scenario_toml: str | None = None,
        record: Record = NO_RECORD,
        *,
        reports: bool = True,
        keep: tuple[str, ...] = (),
    ) -> "RunFolder":
        """Take up the run in `folder` after its last whole round; the logs are cut back to it.

        scenario_toml: the scenario that it goes on with, where that is not the folder's to the letter. keep: as of
        `start`, where the run's first round was never whole.
        """
        refuse_unusable(folder, resume=True)
        complaints = []
        for name in CHECKPOINTS:
            try:
                self = cls._at(folder, json.loads((folder / name).read_text(encoding="utf-8")))
                self._go_on(scenario_toml, record)
                return self
            except FileNotFoundError:
                complaints.append(f"{name} is missing")
            except (ValueError, KeyError, TypeError) as error:
                complaints.append(f"{name} is damaged ({error})")
        if all(complaint.endswith("missing") for complaint in complaints):  # its first round was never whole
            text = scenario_toml or (folder / SCENARIO).read_text(encoding="utf-8")
            return cls.start(folder, text, record, reports=reports, keep=keep)
        raise RunError(
            f"{folder} cannot be resumed: {'; '.join(complaints)}; run with --overwrite to start over"
        )

    @classmethod
    def _at(cls, folder: Path, checkpoint: dict[str, Any]) -> "RunFolder":
        """The folder at a checkpoint; ValueError where the checkpoint or a log is not what was written."""
        if checkpoint.pop("digest") != _digest(json.dumps(checkpoint, sort_keys=True).encode()):
            raise ValueError("its digest is wrong")
        self = cls(folder, checkpoint["round"], reports=LOGS[0] in checkpoint["logs"])
        for log in self._logs:
            if log in _LATER and log not in checkpoint["logs"]:
                (folder / log).write_bytes(b"")
                continue
            length, digest = checkpoint["logs"][log]
            good = (folder / log).read_bytes()[:length]
            if _digest(good) != digest:
                raise ValueError(f"{log} was changed or cut since")
            self._digests[log].update(good)
            self._lengths[log] = length
        for log in self._logs:
            os.truncate(folder / log, self._lengths[log])
        return self

    def _go_on(self, scenario_toml: str | None, record: Record) -> None:
        try:
            if scenario_toml is not None and scenario_toml != (self.folder / SCENARIO).read_text("utf-8"):
                (self.folder / SUMMARY).unlink(missing_ok=True)  # it is of a run that ended elsewhere
                replace_text(self.folder / SCENARIO, scenario_toml)
            record.write_resumed(self.folder, self.round)
        except OSError as error:
            raise UserError(
                f"{self.folder}: cannot be written: {error.strerror}; mend that and run again"
            ) from None

    def keep_failed(
        self, *, reports: Iterable[Row], egress: Iterable[Row], summary: Row, plans: Iterable[Row] = ()
    ) -> None:
        """Write down a round that ends the run, to be read by a person: a resumed run does it again."""
        for log, rows in zip(LOGS, (reports, [summary], egress, plans), strict=True):
            self._append(log, rows)

    def commit(
        self,
        round: int,
        *,
        reports: Iterable[Row],
        egress: Iterable[Row],
        summary: Row,
        plans: Iterable[Row] = (),
    ) -> None:
        """Append one round and make it the state that a resumed run starts from."""
        try:
            for log, rows in zip(LOGS, (reports, [summary], egress, plans), strict=True):
                self._append(log, rows)
            self._checkpoint(round)
        except OSError as error:
            raise RunError(
                f"{self.folder}: round {round} cannot be written: {error.strerror}; the results up to round "
                f"{self.round} are whole: make room and run again with --resume"
            ) from None
        self.round = round

    def finish(self, summary: Row) -> None:
        """Write summary.json."""
        try:
            replace_text(self.folder / SUMMARY, json.dumps(summary, indent=2) + "\n")
        except OSError as error:
            raise RunError(f"{self.folder / SUMMARY}: cannot be written: {error.strerror}") from None

    def rows(self, log: str) -> Iterable[dict[str, Any]]:
        """The committed lines of a log."""
        with open(self.folder / log, encoding="utf-8") as lines:
            yield from map(json.loads, lines)

    def _append(self, log: str, rows: Iterable[Row]) -> None:
        if log not in self._logs:
            return
        with open(self.folder / log, "ab") as file:
            for row in rows:
                line = json.dumps(row, allow_nan=False).encode() + b"\n"
                file.write(line)
                self._digests[log].update(line)
                self._lengths[log] += len(line)
            file.flush()
            os.fsync(file.fileno())

    def _checkpoint(self, round: int) -> None:
        logs = {log: (self._lengths[log], self._digests[log].hexdigest()) for log in self._logs}
        checkpoint: dict[str, Any] = {"round": round, "logs": logs}
        checkpoint["digest"] = _digest(json.dumps(checkpoint, sort_keys=True).encode())
        current, previous = (self.folder / name for name in CHECKPOINTS)
        if current.exists():
            shutil.copyfile(current, previous.with_suffix(".partial"))
            previous.with_suffix(".partial").replace(previous)
        replace_text(current, json.dumps(checkpoint))


def _clear(folder: Path, keep: tuple[str, ...]) -> None:
    """Remove a folder; of a folder that holds files to be kept everything else."""
    if not keep:
        shutil.rmtree(folder, ignore_errors=True)
        return
    for path in sorted(folder.rglob("*"), reverse=True):  # what is in a folder before it
        with contextlib.suppress(OSError):
            if path.is_dir() and not path.is_symlink():
                path.rmdir()
            elif path.name not in keep:
                path.unlink()


def _digest(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=16).hexdigest()
