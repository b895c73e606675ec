"""Writes report.html; after a run or a study by itself, when a failure to draw is a notice and no more."""

from collections.abc import Callable
from pathlib import Path

from fedge.errors import UserError
from fedge.results.run_folder import PAGE
from fedge.results.write import replace_text


def write_page(path: Path, text: str) -> None:
    """UserError where the file cannot be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_text(path, text)
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror or error}; give another --out") from None


def draw_beside(folder: Path, draw: Callable[[], str], notice: Callable[[str], None]) -> None:
    """Put what `draw` makes into `folder` as report.html. Results are never lost over it: `notice` is told instead."""
    try:
        write_page(folder / PAGE, draw())
    except Exception as error:
        said = " ".join(str(error).split())[:200]
        notice(f"the page was not drawn ({type(error).__name__}: {said}); try: fedge report {folder}")
