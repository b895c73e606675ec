"""A study from its file to study.json and table.md."""

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedge.errors import RunError
from fedge.results.owner import owned
from fedge.results.write import replace_text
from fedge.study.cells import Cell, cells_of
from fedge.study.rows import study_rows
from fedge.study.runner import StudyObserver, run_cells
from fedge.study.stream.drifts import drift_tables
from fedge.study.study import Study, load_study
from fedge.study.summary import read_cell, summarise
from fedge.study.table import table_md
from fedge.watch.watchers import study_watched_by

if TYPE_CHECKING:
    import pandas

STUDY, TABLE = "study.json", "table.md"


@dataclass(frozen=True)
class StudyResult:
    """A finished study: `summary` is study.json, `out` the folder with its cells."""

    out: Path
    summary: Mapping[str, Any]
    cells: Sequence[Cell]

    def frame(self) -> "pandas.DataFrame":
        """One row per arm, world, seed and client: the counts on its test rows, and what its rounds cost."""
        import pandas

        return pandas.DataFrame(study_rows(self.out, self.summary))


def draw_page(out: Path) -> None:
    """Put the study's page into its folder; where it cannot be drawn, a line on standard error says so."""
    from fedge.page.page import draw_beside
    from fedge.study.page import page_of

    draw_beside(out, lambda: page_of(out), lambda text: print(text, file=sys.stderr))


def study(
    name: str | Path,
    out: str | Path | None = None,
    *,
    jobs: int = 1,
    settings: Sequence[str] = (),
    watch: Sequence[str] = (),
    observer: StudyObserver = StudyObserver(),  # noqa: B008 - it has no state
) -> StudyResult:
    """Run what is missing of a study and summarise it; `out` defaults to studies/<its name> in the working directory.

    name: in studies/, or the path of a TOML file. jobs: cells at a time; results do not depend on it. settings: changes
    of the scenario for every cell, as --set takes them. watch: who is told of every cell, as --watch takes them. Killed
    and called again it ends the same.
    Raises UserError for what the caller can mend, and RunError where cells failed.
    """
    asked, path = load_study(str(name))
    return run_study(
        asked, path, study_out(path, out), jobs=jobs, settings=settings, watch=watch, observer=observer
    )


def study_out(path: Path, out: str | Path | None) -> Path:
    return Path(out or Path("studies") / path.stem).expanduser().absolute()


def run_study(
    asked: Study,
    path: Path,
    out: Path,
    *,
    jobs: int,
    settings: Sequence[str],
    watch: Sequence[str] = (),
    observer: StudyObserver,
) -> StudyResult:
    """`study` for one that has just been loaded from `path`."""
    cells = cells_of(asked, path.absolute().parent, settings)
    with owned(out), study_watched_by(watch, path.stem, out) as group:
        failed: RunError | None = None
        try:
            run_cells(cells, out, jobs=jobs, observer=observer, watch=group)
        except RunError as error:
            failed = error
        done = [cell for cell in cells if cell.is_done(out)]
        if not done and failed:
            raise failed
        summary = summarise(path.stem, asked, [read_cell(cell, out, asked.select) for cell in done])
        group.summary = None if failed else summary
        replace_text(out / STUDY, json.dumps(summary, indent=2, allow_nan=False) + "\n")
        replace_text(out / TABLE, table_md(summary) + drift_tables(out, summary))
        draw_page(out)
    if failed:
        raise failed
    return StudyResult(out, summary, done)
