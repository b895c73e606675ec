"""`fedge audit`: the four parts, one after another, and what came of them as one table of JSON."""

import json
import os
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fedge.audit import leaks, membership, mixes, one_run, worlds
from fedge.audit.views import observer, server
from fedge.audit.worlds import World, reporting, trimmed, without_fortune
from fedge.catalog.names import did_you_mean
from fedge.errors import UserError
from fedge.prepare import prepare_json
from fedge.results.reading import AUDIT
from fedge.results.run_folder import PAGE, read_reports
from fedge.results.write import replace_text
from fedge.scenario.schema import Scenario
from fedge.seeding import derive_seed

PARTS = ("canaries", "reports", "property", "membership")
CLIENTS = 12  # of a large fleet, that take part in all but the first
_ROUNDS = {"canaries": 4, "reports": 2, "property": 2, "membership": 4}
_FEW_CLIENTS = 24  # of a larger fleet the planted run has two rounds
_DRAWS = 2  # of rows and mixes
_START_S = 15.0  # of the planted run's processes, or of two that run worlds
_SPEED = "speed"  # folder of the rounds that the forecast goes by

Say = Callable[[str], None]


@dataclass(frozen=True)
class Ask:
    """What is to be audited: which parts, with how many clients, by how many processes (None: one per core)."""

    parts: Sequence[str] = PARTS
    clients: int = CLIENTS
    jobs: int | None = None

    def __post_init__(self) -> None:
        for part in self.parts:
            if part not in PARTS:
                raise UserError(f"--only is {part!r}; {did_you_mean(part, PARTS)}")
        if self.clients < 4:
            raise UserError(
                f"--clients is {self.clients}; guesses need 4 or more, of which two are learnt from"
            )


def audit(scenario: Scenario, out: Path, ask: Ask, say: Say) -> dict[str, Any]:
    """What leaks of `scenario`, measured; also in out/audit.json. `say` is told how far it is.

    Errors as a run's; UserError for what cannot be audited.
    """
    since_s = time.perf_counter()
    if "canaries" in ask.parts:
        leaks.require_here(scenario)
    _make_room(out)
    prepared = Path(str(prepare_json(scenario.model_dump_json(exclude_none=True))["folder"]))
    asked = _Asked(scenario, prepared, out, ask)
    forecast_s = asked.forecast_s()
    say(f"audit of {scenario.name}: {asked.sentence()}; about {forecast_s:,.0f} s")
    found: dict[str, Any] = {
        "format": "fedge-audit",
        "version": 1,
        "scenario": scenario.name,
        "clients": scenario.clients,
        "audited_clients": len(asked.chosen),
        "seed": scenario.seed,
        "privacy": scenario.privacy.model_dump(),
        "forecast_s": round(forecast_s, 1),
        "skipped": asked.skipped,
    }
    for part in asked.parts:
        began_s = time.perf_counter()
        found[part] = asked.run(part)
        asked.tidy(part)
        say(f"{part}: {time.perf_counter() - began_s:,.0f} s")
    found["took_s"] = round(time.perf_counter() - since_s, 1)
    replace_text(out / AUDIT, json.dumps(found, indent=2) + "\n")
    return found


def _make_room(out: Path) -> None:
    """An empty folder; an earlier audit's goes. UserError where it holds something else."""
    if out.is_file():
        raise UserError(f"{out} is a file; give --out a folder")
    if out.is_dir() and any(out.iterdir()):
        if not _is_audits(out):
            raise UserError(f"{out} is not empty and holds no audit; give --out another folder")
        shutil.rmtree(out, ignore_errors=True)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{out} cannot be made: {error.strerror}; give another --out") from None


def _is_audits(out: Path) -> bool:
    """Whether all that lies there is what an audit leaves, be it at its end or not."""
    return {path.name for path in out.iterdir()} <= {*PARTS, AUDIT, PAGE, _SPEED}


class _Asked:
    """The parts that can be had of a scenario, and the runs that they take."""

    def __init__(self, scenario: Scenario, prepared: Path, out: Path, ask: Ask) -> None:
        self._scenario, self._prepared, self._out = scenario, prepared, out
        self._jobs = ask.jobs or len(os.sched_getaffinity(0))
        small, self.chosen = trimmed(scenario, ask.clients)
        self._small = small
        self.skipped = self._cannot(ask.parts)
        self.parts = [part for part in PARTS if part in ask.parts and part not in self.skipped]

    def _cannot(self, parts: Sequence[str]) -> dict[str, str]:
        found = {part: "not asked for" for part in PARTS if part not in parts}
        if worlds.num_classes(self._prepared) is None:
            why = "of data whose task is classes alone"
            found |= {part: why for part in ("property", "membership") if part in parts}
        if self._scenario.data.stream is not None and "membership" in parts:
            found["membership"] = "of data that do not come in a stream alone"
        if len(self.chosen) < worlds.FEWEST:
            why = f"the scenario has {len(self.chosen)} clients, and guesses need {worlds.FEWEST}"
            found |= {part: why for part in ("reports", "property", "membership") if part in parts}
        return found

    def _rounds(self, part: str) -> int:
        many = part == "canaries" and self._scenario.clients > _FEW_CLIENTS
        return without_fortune(self._scenario, 2 if many else _ROUNDS[part]).rounds

    def _runs(self, part: str) -> int:
        arms = 2 * len(membership.ARMS)
        return {
            "canaries": 1,
            "reports": 1 + len(one_run.PARTS),
            "property": mixes.MIXES * _DRAWS,
            "membership": arms,
        }[part]

    def _client_rounds(self, part: str) -> int:
        clients = self._scenario.clients if part == "canaries" else len(self.chosen)
        return self._runs(part) * self._rounds(part) * clients

    def sentence(self) -> str:
        """What will be done."""
        runs = sum(self._runs(part) for part in self.parts)
        rounds = sum(self._client_rounds(part) for part in self.parts)
        parts = f"{', '.join(self.parts)}" or "nothing that can be had"
        return f"{parts}; {runs} runs, {rounds:,} rounds of a client"

    def forecast_s(self) -> float:
        """By what one client's rounds take here and now: the last of them, for the first brings libraries along."""
        one, _ = trimmed(self._scenario, 1)
        scenario = reporting(without_fortune(one, 2))
        place = self._out / _SPEED
        data = worlds.changed(self._prepared, [worlds.rows_of(self._prepared, 0)], place / "data")
        worlds.run(World(scenario, data, place / "run"))
        per_round_s = float(read_reports(place / "run")[-1].get("wall_s", 0.0))
        shutil.rmtree(place, ignore_errors=True)
        rounds = sum(self._client_rounds(part) for part in self.parts)
        return per_round_s * rounds / self._jobs + _START_S * len(self.parts)

    def run(self, part: str) -> dict[str, Any]:
        folder = self._out / part
        folder.mkdir()
        made: dict[str, Callable[[Path, np.random.Generator], dict[str, Any]]] = {
            "canaries": self._canaries,
            "reports": self._reports,
            "property": self._property,
            "membership": self._membership,
        }
        chance = np.random.default_rng(derive_seed(self._scenario.seed, "audit", part))
        return made[part](folder, chance)

    def tidy(self, part: str) -> None:
        """Copies of clients' rows go, and all but the planted run, which the page shows."""
        folder = self._out / part
        for path in folder.iterdir():
            if path.is_dir() and not (part == "canaries" and path.name == leaks.RUN):
                shutil.rmtree(path, ignore_errors=True)

    def _canaries(self, folder: Path, chance: np.random.Generator) -> dict[str, Any]:
        planted = without_fortune(self._scenario, self._rounds("canaries"))
        return leaks.audit(planted, self._prepared, folder)

    def _reports(self, folder: Path, chance: np.random.Generator) -> dict[str, Any]:
        scenario = without_fortune(self._small, self._rounds("reports"))
        made = one_run.worlds(reporting(scenario), self._prepared, self.chosen, folder, chance)
        reports = worlds.run_all(made, self._jobs)
        guessed = one_run.audit([observer(scenario), server(scenario)], reports, len(self.chosen), chance)
        return {"rounds": scenario.rounds, "guesses": [each.as_json() for each in guessed]}

    def _property(self, folder: Path, chance: np.random.Generator) -> dict[str, Any]:
        scenario = without_fortune(self._small, self._rounds("property"))
        made = mixes.worlds(reporting(scenario), self._prepared, self.chosen, folder, _DRAWS, chance)
        reports = worlds.run_all(made, self._jobs)
        inferred = mixes.audit([observer(scenario), server(scenario)], reports, len(self.chosen), chance)
        return {
            "rounds": scenario.rounds,
            "share": mixes.SHARE,
            "views": [each.as_json() for each in inferred],
        }

    def _membership(self, folder: Path, chance: np.random.Generator) -> dict[str, Any]:
        scenario = reporting(without_fortune(self._small, self._rounds("membership")))
        made, population = membership.worlds(scenario, self._prepared, self.chosen, folder, chance)
        worlds.run_all(made, self._jobs)
        return {"rounds": scenario.rounds, "arms": membership.audit(made, population, chance)}
