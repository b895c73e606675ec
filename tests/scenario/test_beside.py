"""Paths in a scenario are relative to its file, those of --set to the shell's folder."""

import tomllib
from pathlib import Path
from typing import Annotated

import pytest
from pydantic import BaseModel

from fedge.catalog.files import client_path, scenario_path
from fedge.errors import UserError
from fedge.scenario.beside import Beside, path_fields, resolve
from fedge.scenario.file import absolute, read_scenario, scenario_toml
from fedge.scenario.load import load_scenario


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a scenario and its files, looked at from a folder beside it."""
    folder, shell = tmp_path / "project", tmp_path / "shell"
    for made in (folder, shell):
        made.mkdir()
        (made / "mine.py").write_bytes(client_path("edge").read_bytes())
        (made / "who.csv").write_text("id,start,end\na,0,5000\n")
    text = scenario_path("quickstart").read_text().replace('client = "edge"', 'client = "mine.py"')
    trace = '[availability]\nkind = "trace"\npath = "who.csv"\n'
    text = text.replace("[data]", '[data]\nroot = "files"', 1)
    (folder / "s.toml").write_text(f"{text}\n{trace}")
    monkeypatch.chdir(shell)
    return folder


@pytest.mark.parametrize("name", ["../project/s.toml", "s.toml"])
def test_a_files_paths_lie_beside_it(project: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Breaks if a scenario runs from its own folder only."""
    if name == "s.toml":
        monkeypatch.chdir(project)
    scenario = load_scenario(name)
    paths = (scenario.client, scenario.availability.path, scenario.data.root)
    assert paths == tuple(str(project / name) for name in ("mine.py", "who.csv", "files"))


def test_a_changes_paths_lie_in_the_shells_folder(project: Path) -> None:
    """Breaks if tab completion on a command line names another file than the run uses."""
    shell = project.parent / "shell"
    changes = ["client=./mine.py", "availability={kind='trace', path='who.csv'}", "data.root=~/data"]
    scenario = load_scenario("../project/s.toml", changes)
    assert scenario.client == str(shell / "mine.py")
    assert scenario.availability.path == str(shell / "who.csv")
    assert scenario.data.root == str(Path.home() / "data")


def test_a_name_is_no_path(project: Path) -> None:
    """Breaks if `client = "edge"` is looked for beside the scenario."""
    assert load_scenario("../project/s.toml", ["client=edge"]).client == "edge"


def test_the_resolved_scenario_runs_from_anywhere(project: Path, tmp_path: Path) -> None:
    """Breaks if the scenario.toml of a run folder, which lies elsewhere, names other files."""
    scenario = load_scenario("../project/s.toml")
    copy = tmp_path / "runs" / "x" / "scenario.toml"
    copy.parent.mkdir(parents=True)
    copy.write_text(scenario_toml(scenario))
    assert read_scenario(copy) == scenario


def test_a_scenario_made_in_python_is_relative_to_the_working_directory(project: Path) -> None:
    """Breaks if `fedge.run` of an object writes a scenario.toml that only runs from the caller's folder."""
    scenario = load_scenario("quickstart").model_copy(update={"client": "mine.py"})
    assert absolute(scenario).client == str(project.parent / "shell" / "mine.py")
    assert tomllib.loads(scenario_toml(absolute(scenario)))["client"].startswith("/")


def test_a_folder_that_is_no_package_is_no_client(project: Path) -> None:
    """Breaks if a folder without __init__.py fails later and elsewhere."""
    with pytest.raises(
        UserError, match=r"is a folder; it needs an __init__\.py in it, or name one of its files"
    ):
        load_scenario("quickstart", ["client=../project"])
    (project / "__init__.py").touch()
    assert load_scenario("quickstart", ["client=../project"]).client == str(project)


class Inner(BaseModel):
    weights: Annotated[str, Beside()] | None = None
    transform: Annotated[str, Beside(".py")] = "none"


class Outer(BaseModel):
    parts: tuple[Inner, ...] = ()
    client: Annotated[str, Beside(".py")] | Inner = "edge"


def test_marks_are_found_in_sections_arrays_and_unions(tmp_path: Path) -> None:
    """Breaks if a key that is added to the scenario, and marked, is not resolved."""
    table = {"parts": [{"weights": "w.pt", "transform": "augment.py:jitter"}, {"transform": "crop_flip"}]}
    resolved = resolve(table, tmp_path, path_fields(Outer))
    first, second = resolved["parts"]
    assert first == {"weights": f"{tmp_path}/w.pt", "transform": f"{tmp_path}/augment.py:jitter"}
    assert second == {"transform": "crop_flip"}
    assert set(path_fields(Outer)) == {
        ("parts", "weights"), ("parts", "transform"), ("client",), ("client", "weights"), ("client", "transform"),
    }  # fmt: skip
