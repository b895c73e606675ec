"""A study's page from its folder."""

from pathlib import Path

from fedge.page.study_page import study_page
from fedge.results.reading import STUDY, read_json
from fedge.study.rows import study_rows
from fedge.study.table import verdicts


def page_of(folder: Path) -> str:
    """The HTML. UserError where the folder holds no study, or a damaged one."""
    summary = read_json(folder / STUDY)
    return study_page(folder, summary, study_rows(folder, summary), verdicts(summary))
