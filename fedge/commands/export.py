"""`fedge export`."""

from pathlib import Path
from typing import Annotated

import typer


def export_command(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", hidden=True)],
    to: Annotated[str, typer.Option("--to", metavar="csv|parquet", help="The format.")],
    out: Annotated[
        Path | None, typer.Option(help="The file [default: reports.csv or clients.csv in FOLDER]")
    ] = None,
) -> None:
    """Write a run's reports, or a study's clients, as one table that other programs read.

    FOLDER: the results of a run (a row per round and client, the fields of reports.jsonl) or of a study (a row per arm,
    cell and client, as StudyResult.frame() has it).
    """
    from fedge.errors import UserError
    from fedge.results.export import require_format, write_table
    from fedge.results.reading import REPORTS, STUDY, kind_of, read_json, read_lines
    from fedge.results.run_folder import no_reports
    from fedge.study.rows import study_rows

    require_format(to)
    if kind_of(folder) == "study":
        name, rows = "clients", study_rows(folder, read_json(folder / STUDY))
    else:
        if not (folder / REPORTS).is_file():
            raise UserError(no_reports(folder))
        name, rows = "reports", read_lines(folder / REPORTS)
    path = out or folder / f"{name}.{to}"
    write_table(rows, path, to)
    print(path)
