"""What ran is on record, and a run does not go on with something else."""

import json
from pathlib import Path

import pytest

from fedge.errors import UserError
from fedge.results.record import ENVIRONMENT, Record, refuse_changed_programs

FILES = {"client.py": "import helper\n", "helper.py": "rate = 0.1\n"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    Record(FILES, {"torch": "2.13.0", "hosts": [{"torch": "2.13.0"}]}).write(tmp_path)
    return tmp_path


def test_the_record_says_what_ran(folder: Path) -> None:
    """Breaks if nobody can tell afterwards which program, with which versions, made the numbers."""
    assert {path.name: path.read_text() for path in (folder / "programs").iterdir()} == FILES
    facts = json.loads((folder / ENVIRONMENT).read_text())
    assert facts["torch"] == "2.13.0"
    assert set(facts["programs"]) == set(FILES)


def test_a_new_run_forgets_the_programs_of_the_last(folder: Path) -> None:
    """Breaks if a file of an earlier run passes for one of this."""
    Record({"client.py": "x = 1\n"}, {}).write(folder)
    assert [path.name for path in (folder / "programs").iterdir()] == ["client.py"]


@pytest.mark.parametrize(
    ("now", "named"),
    [
        ({**FILES, "client.py": "import helper  # mended\n"}, "client.py"),
        ({**FILES, "helper.py": "rate = 0.2\n"}, "helper.py"),
        ({"client.py": FILES["client.py"]}, "helper.py"),
        ({**FILES, "more.py": ""}, "more.py"),
    ],
)
def test_changed_programs_are_refused_with_what_to_do(folder: Path, now: dict[str, str], named: str) -> None:
    """Breaks if half a run is of one program and half of another, through a helper module too."""
    way = f"{named} has changed since round 3: resume with --set client={folder}/programs/client.py, or take"
    with pytest.raises(UserError) as caught:
        refuse_changed_programs(folder, now, round=3)
    assert str(caught.value).startswith(way)
    refuse_changed_programs(folder, FILES, round=3)


def test_an_edited_copy_is_not_recommended(folder: Path) -> None:
    """Breaks if a person is sent to a file that is not what ran either."""
    edited = {**FILES, "client.py": "import helper  # edited in place\n"}
    (folder / "programs" / "client.py").write_text(edited["client.py"])
    with pytest.raises(UserError, match=r"client\.py has changed since round 1: take --overwrite"):
        refuse_changed_programs(folder, edited, round=1)


def test_going_on_elsewhere_is_noted_once(folder: Path) -> None:
    """Breaks if a run whose second half ran on another torch looks like a run of one."""
    elsewhere = Record(FILES, {"torch": "2.14.0", "hosts": [{"torch": "2.14.0"}]})
    for round in (3, 5):
        elsewhere.write_resumed(folder, round)
    facts = json.loads((folder / ENVIRONMENT).read_text())
    assert facts["torch"] == "2.13.0"
    assert facts["resumed"] == [{"after_round": 3, "torch": "2.14.0", "hosts": [{"torch": "2.14.0"}]}]
