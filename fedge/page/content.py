"""What a run's page is drawn from: the files of its folder, and the few views of them that several charts share."""

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from fedge.errors import UserError
from fedge.privacy.leaving import KEPT, kept_reports
from fedge.results.reading import REPORTS, read_json, read_lines, read_summary
from fedge.results.record import ENVIRONMENT
from fedge.results.run_folder import SCENARIO

Row = Mapping[str, Any]


@dataclass(frozen=True)
class RunContent:
    """A finished run. `rounds`, `reports`: the lines of their files, without those of the unseen clients' one round,
    whose reports are `unseen`; `scenario`: scenario.toml, read. `kept`: per device the reports on its own side, where
    the coordinator saw none."""

    folder: Path
    summary: Row
    rounds: Sequence[Row]
    reports: Sequence[Row]
    scenario: Row
    scenario_text: str
    environment: Row
    unseen: Sequence[Row] = ()
    kept: Sequence[Sequence[Row]] = ()

    @classmethod
    def read(cls, folder: Path) -> Self:
        """UserError, in one line, for a folder that holds no finished run, or a damaged one."""
        summary = read_summary(folder)
        try:
            text = (folder / SCENARIO).read_text(encoding="utf-8")
            scenario = tomllib.loads(text)
        except (OSError, ValueError) as error:
            raise UserError(f"{folder / SCENARIO} cannot be read: {error}") from None
        rounds, reports = read_lines(folder / "rounds.jsonl"), read_lines(folder / REPORTS)
        return cls(
            folder=folder,
            summary=summary,
            rounds=[row for row in rounds if not row.get("unseen")],
            reports=[row for row in reports if not row.get("unseen")],
            unseen=[row for row in reports if row.get("unseen")],
            kept=_kept(folder, scenario),
            scenario=scenario,
            scenario_text=text,
            environment=read_json(folder / ENVIRONMENT) if (folder / ENVIRONMENT).is_file() else {},
        )

    @cached_property
    def good(self) -> list[Row]:
        """The reports that count, in order."""
        return [row for row in self.reports if row["status"] == "ok"]

    @cached_property
    def last(self) -> list[Row]:
        """Every client's last report that counts, by client number: what the summary speaks of."""
        return [row for _, row in sorted({row["client"]: row for row in self.good}.items())]

    @cached_property
    def tested(self) -> list[Row]:
        """Of them, those with test rows."""
        return [row for row in self.last if row.get("test_count")]

    @cached_property
    def classes(self) -> list[str]:
        """The device classes, in the order of client numbers."""
        first: dict[str, int] = {}
        for row in self.reports:
            first[row["device"]] = min(first.get(row["device"], row["client"]), row["client"])
        return sorted(first, key=lambda name: first[name])


def _kept(folder: Path, scenario: Row) -> list[list[dict[str, Any]]]:
    """The devices' own reports, by client number, without those of unseen clients; a damaged file is passed over."""
    share = scenario.get("schedule", {}).get("unseen", 0)
    paths = sorted(
        (folder / "devices").glob(f"*/{KEPT}"), key=lambda path: (len(path.parent.name), path.parent.name)
    )
    found = [kept_reports(path.parent) for path in paths]
    rounds = scenario["rounds"]
    return [rows for rows in found if rows and not (share and rows[0]["round"] > rounds)]
