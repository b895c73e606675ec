"""The pages themselves: links lead somewhere, names are those of the tree, figures stand beside commands."""

import re
from pathlib import Path

import pytest

from tests.docs.snippets import PAGES, ROOT

LINK = re.compile(r"(?<!`)\[[^\]]+\]\(([^)#\s]*)(#[\w-]+)?\)")
SOURCE = re.compile(
    r"`((?:fedge|tests|clients|scenarios|benchmarks|docs)/[\w./-]*\.(?:py|csv|toml|md))(?:::(\w+))?`"
)
BENCHMARK = re.compile(r"python -m benchmarks (?:table )?([a-z_]+)")
GONE = (
    "FEDGE_NATIVE",
    "channelwise",
    "direct_convolution",
    "few_channels",
    "C compiler is",
    "by hand,",
    "(by hand",
)
WRITTEN = [*PAGES, ROOT / "CHANGELOG.md"]

pages = pytest.mark.parametrize("page", WRITTEN, ids=lambda page: str(page.relative_to(ROOT)))


def anchors(page: Path) -> set[str]:
    """The headings of a page, as links name them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {"#" + re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@pages
def test_links_lead_somewhere(page: Path) -> None:
    """Breaks if a reader follows a link to nothing."""
    for target, anchor in LINK.findall(page.read_text(encoding="utf-8")):
        if target.startswith(("http://", "https://")):
            continue
        there = (page.parent / target).resolve() if target else page
        assert there.exists(), f"{page.name}: {target}"
        if anchor:
            assert anchor in anchors(there), f"{page.name}: {target}{anchor}"


@pages
def test_files_and_tests_that_are_named_exist(page: Path) -> None:
    """Breaks if a move or a new name leaves the docs behind."""
    for name, test in SOURCE.findall(page.read_text(encoding="utf-8")):
        assert (ROOT / name).is_file(), f"{page.name}: {name}"
        if test:
            assert f"def {test}(" in (ROOT / name).read_text(encoding="utf-8"), f"{page.name}: {name}::{test}"


def test_pages_that_the_code_names_exist() -> None:
    """Breaks if an error message or a comment sends its reader to a page that has moved."""
    sources = [path for folder in ("fedge", "clients", "scenarios") for path in (ROOT / folder).rglob("*.*")]
    named = {
        (path.name, page)
        for path in sources
        if path.suffix in (".py", ".toml")
        for page in re.findall(r"docs/[\w/]+\.md", path.read_text(encoding="utf-8"))
    }
    assert named
    assert not [(path, page) for path, page in named if not (ROOT / page).is_file()]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_nothing_that_is_gone_is_promised(page: Path) -> None:
    """Breaks if a page speaks of the C kernels, or gives a figure that nobody can make again."""
    text = page.read_text(encoding="utf-8")
    assert not [word for word in GONE if word in text]


def test_benchmarks_that_are_named_exist() -> None:
    """Breaks if a figure's command is not one of the benchmarks' command line."""
    from benchmarks.__main__ import MODULES

    named = {name for page in PAGES for name in BENCHMARK.findall(page.read_text(encoding="utf-8"))}
    assert named - {"list", "table"} <= set(MODULES)
    assert len(named) > 5
