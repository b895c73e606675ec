"""The coordinator's end of the helper: starts its process, hands it sealed shares, takes sums."""

import base64
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from fedge.errors import FedgeError, RunError, UserError
from fedge.privacy.noise.gaussian import FOR_TESTS
from fedge.scenario.schema import Scenario

FOLDER = "helper"
_MODULE = "fedge.privacy.sums.helper"
_CLOSE_S = 5.0
_KEPT = ("PATH", "HOME", "LANG", "LC_ALL", "PYTHONPATH", "LD_LIBRARY_PATH", FOR_TESTS)


@dataclass(frozen=True)
class HelpersSum:
    """silent: why there is none. clients: whose shares are in `total`; sigma, spent: of its noise, where there is."""

    silent: str | None = None
    clients: tuple[int, ...] = ()
    total: tuple[int, ...] = ()
    sigma: float | None = None
    spent: float | None = None


class Helping:
    """A context manager. key: the helper's public one. foreseen: its noise comes from a seed, for tests.

    UserError, in one line, where a package is missing; RunError where the helper's process ends, or its ledger is
    damaged.
    """

    def __init__(self, scenario: Scenario, out: Path) -> None:
        variables = {name: os.environ[name] for name in _KEPT if name in os.environ}
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", _MODULE],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=None if "FEDGE_DEBUG" in os.environ else subprocess.DEVNULL,
            text=True,
            encoding="utf-8",
            env=variables | {"PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)},
            start_new_session=True,  # a person's Ctrl-C is the coordinator's to act on
        )
        begin = {
            "scenario": scenario.model_dump_json(exclude_none=True, exclude={"programs"}),
            "folder": str(out / FOLDER),
        }
        try:
            greeting = self._ask(begin)
        except BaseException:
            self.close()
            raise
        self.key, self.foreseen = bytes.fromhex(greeting["key"]), bool(greeting["foreseen"])

    @property
    def pid(self) -> int:
        """Of the helper's process."""
        return self._process.pid

    def sum(self, round: int, sealed: Mapping[int, bytes]) -> HelpersSum:
        """What the helper says of these shares, client -> sealed."""
        shares = {client: base64.b64encode(share).decode() for client, share in sealed.items()}
        said = self._ask({"round": round, "sealed": shares})
        if "silent" in said:
            return HelpersSum(silent=said["silent"])
        return HelpersSum(
            None, tuple(said["clients"]), tuple(said["sum"]), said.get("sigma"), said.get("spent")
        )

    def _ask(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        line = ""
        with suppress(BrokenPipeError):
            print(json.dumps(asked), file=self._process.stdin, flush=True)
            line = self._process.stdout.readline() if self._process.stdout else ""
        if not line:
            raise RunError(
                "the helper, the second server of privacy.view = 'sums', has ended: run again with --resume"
            )
        said: dict[str, Any] = json.loads(line)
        if "error" in said:
            kind: type[FedgeError] = UserError if said["exit_code"] == UserError.exit_code else RunError
            raise kind(said["error"])
        return said

    def close(self) -> None:
        """End the helper. May be called twice."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()
        try:
            self._process.wait(_CLOSE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
