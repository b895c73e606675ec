"""What was run, on record in the run folder: `programs/`, the sources, and `environment.json`, versions and digests.

programs/client.py     the client program, beside the modules of its own that it imports
environment.json       fedge, python, torch, ..., processor, kernels; `hosts`: the same of where the devices ran;
                       `programs`: a digest per file; `resumed`: where a run went on in another environment
"""

import hashlib
import json
import shutil
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedge.errors import UserError
from fedge.results.write import replace_text

PROGRAMS = "programs"
ENVIRONMENT = "environment.json"


@dataclass(frozen=True)
class Record:
    """`programs`: path below programs/ -> text. `environment`: what environment.json says beside their digests."""

    programs: Mapping[str, str]
    environment: Mapping[str, Any]

    def write(self, folder: Path) -> None:
        """Put it into the folder of a run that begins; an earlier run's programs go."""
        shutil.rmtree(folder / PROGRAMS, ignore_errors=True)
        self._write_programs(folder)
        digests = {name: digest(text) for name, text in sorted(self.programs.items())}
        _write_environment(folder, {**self.environment, "programs": digests})

    def write_resumed(self, folder: Path, round: int) -> None:
        """Note that a run goes on after `round`, where that is in another environment than it was begun in."""
        held = _environment(folder)
        if "programs" not in held:  # of a version that kept no record
            self.write(folder)
            return
        latest = {**held, **(held.get("resumed") or [{}])[-1]}
        if changed := {key: value for key, value in self.environment.items() if latest.get(key) != value}:
            resumed = [*held.get("resumed", []), {"after_round": round, **changed}]
            _write_environment(folder, {**held, "resumed": resumed})

    def _write_programs(self, folder: Path) -> None:
        for name, text in self.programs.items():
            path = folder / PROGRAMS / name
            path.parent.mkdir(parents=True, exist_ok=True)
            replace_text(path, text)


NO_RECORD = Record({}, {})


def refuse_changed_programs(
    folder: Path,
    programs: Mapping[str, str],
    *,
    round: int,
    named: Collection[str] = (),
    client_key: str = "client",
) -> None:
    """UserError where a run that holds `round` rounds would go on with other programs than it was begun with.

    named: of `programs`, those that the scenario names elsewhere than by `client_key`: they go back to their places.
    """
    begun = _environment(folder).get("programs")
    if not begun or not programs:  # a version, or a runtime, that keeps no record
        return
    now = {name: digest(text) for name, text in programs.items()}
    if not (changed := sorted(name for name in begun | now if begun.get(name) != now.get(name))):
        return
    kept = folder / PROGRAMS
    client = next((name for name in begun if name.startswith("client")), min(begun))
    intact = all(_digest_of(kept / name) == begun[name] for name in begun)
    back = (
        f"put {kept / changed[0]} back"
        if changed[0] in named
        else f"resume with --set {client_key}={kept / client}"
    )
    way = f"{back}, or take --overwrite" if intact else "take --overwrite"
    raise UserError(f"{changed[0]} has changed since round {round}: {way}, or another --out")


def refuse_changed_weights(folder: Path, environment: Mapping[str, Any]) -> None:
    """UserError where a run would go on with another file of first weights than it was begun with."""
    begun, now = _weights(_environment(folder)), _weights(environment)
    if begun and now and begun != now:
        raise UserError(
            "the file of model.weights has changed since the run was begun: put it back, take --overwrite, or another "
            "--out"
        )


def _weights(environment: Mapping[str, Any]) -> set[str]:
    """The digests of the files that the hosts took the network's first weights from."""
    return {host["weights"] for host in environment.get("hosts", ()) if host.get("weights")}


def digest(text: str) -> str:
    """Of a program's text."""
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def _digest_of(path: Path) -> str | None:
    try:
        return digest(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError):
        return None


def _environment(folder: Path) -> dict[str, Any]:
    try:
        held = json.loads((folder / ENVIRONMENT).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return held if isinstance(held, dict) else {}


def _write_environment(folder: Path, facts: Mapping[str, Any]) -> None:
    replace_text(folder / ENVIRONMENT, json.dumps(facts, indent=2) + "\n")
