"""`fedge report`."""

from pathlib import Path
from typing import Annotated

import typer


def report_command(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", hidden=True)],
    out: Annotated[Path | None, typer.Option(help="The file [default: report.html in FOLDER]")] = None,
) -> None:
    """Draw the page of a run, a study or an audit: one HTML file that needs no network and no script.

    FOLDER: its results. With vl-convert-python (pip install "fedge[report]") charts are drawn by Vega, without it by
    matplotlib; they show the same.
    """
    from fedge.page.page import write_page
    from fedge.page.run_page import run_page
    from fedge.results.reading import kind_of
    from fedge.results.run_folder import PAGE

    kind = kind_of(folder)
    if kind == "study":
        from fedge.study.page import page_of

        text = page_of(folder)
    elif kind == "audit":
        from fedge.page.audit import audit_page

        text = audit_page(folder)
    else:
        text = run_page(folder)
    path = out or folder / PAGE
    write_page(path, text)
    print(path)
