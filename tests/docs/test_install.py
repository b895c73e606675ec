"""pyproject.toml, constraints.txt, CITATION.cff and .pre-commit-config.yaml agree with one another."""

import re
import tomllib

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.docs.snippets import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
RANGES = [
    *PROJECT["dependencies"],
    *(one for extra in PROJECT["optional-dependencies"].values() for one in extra),
]


def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    stated = (line.split("==") for line in lines if line and not line.startswith("#"))
    return {canonicalize_name(name): version for name, version in stated}


@pytest.mark.parametrize("text", RANGES)
def test_every_dependency_has_a_tested_version_in_its_range(text: str) -> None:
    """Breaks if the README's install command takes a version that nobody tried, or cannot be resolved."""
    wanted = Requirement(text)
    assert pins()[canonicalize_name(wanted.name)] in wanted.specifier


def test_the_citation_is_of_this_version_and_both_papers() -> None:
    """Breaks if somebody who cites fedge names another version, or one paper only."""
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == PROJECT["version"]
    assert [paper["url"][-10:] for paper in citation["references"]] == ["2006.08554", "2007.03213"]


def test_hooks_check_with_the_versions_that_ci_has() -> None:
    """Breaks if a commit passes the hooks and fails in CI over a version of ruff."""
    hooks = (ROOT / ".pre-commit-config.yaml").read_text()
    assert set(re.findall(r"ruff==([\d.]+)", hooks)) == {pins()["ruff"]}


def test_issue_forms_ask_something() -> None:
    """Breaks if GitHub would refuse a form, which it does without a word to the user."""
    forms = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"))
    for form in (yaml.safe_load(path.read_text()) for path in forms if path.stem != "config"):
        assert {"name", "description", "body"} <= form.keys()
        assert any(field.get("validations", {}).get("required") for field in form["body"])
