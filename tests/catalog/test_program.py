"""What travels with a program: the modules beside it that it imports, and nothing else."""

from pathlib import Path

import pytest

from fedge.catalog.program import read_programs
from fedge.errors import UserError


def write(folder: Path, **files: str) -> None:
    for name, text in files.items():
        path = folder / f"{name.replace('__in__', '/')}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def test_modules_beside_it_travel_and_what_they_import(tmp_path: Path) -> None:
    """Breaks if a helper of a helper stays behind, or if the folder's other files come along."""
    write(tmp_path, mine="def f():\n    import first", first="from second.part import x", unused="")
    write(tmp_path / "second", __init__="", part="import third\nx = 1", other="")
    write(tmp_path, third="import mine, first")
    program = read_programs(tmp_path / "mine.py")
    assert set(program.files) == {
        "first.py", "third.py", "second/__init__.py", "second/part.py", "second/other.py",
    }  # fmt: skip
    assert program.as_files("client")["client.py"].startswith("def f()")


def test_a_package_travels_whole(tmp_path: Path) -> None:
    """Breaks if a program cannot be a folder, or if its parts cannot import a module beside the folder."""
    write(tmp_path / "mine", __init__="from .parts import app", parts="import helper\napp = 1")
    write(tmp_path, helper="")
    program = read_programs(tmp_path / "mine")
    assert (program.name, program.is_package) == ("mine", True)
    assert set(program.as_files("client")) == {"mine/__init__.py", "mine/parts.py", "helper.py"}


def test_what_is_installed_is_not_taken_from_beside(tmp_path: Path) -> None:
    """Breaks if a file called random.py beside a program replaces Python's for everybody in the process."""
    write(tmp_path, mine="import random, torch, json.decoder", random="", torch="", json="")
    assert read_programs(tmp_path / "mine.py").files == {}


def test_a_module_of_the_kept_name_moves_the_program(tmp_path: Path) -> None:
    """Breaks if the run folder's copy of a program overwrites a module called client."""
    write(tmp_path, mine="import client", client="x = 1")
    files = read_programs(tmp_path / "mine.py").as_files("client")
    assert files == {"client_program.py": "import client", "client.py": "x = 1"}


def test_a_program_that_is_no_python_travels_as_it_is(tmp_path: Path) -> None:
    """Breaks if the line of a syntax error is lost before anybody could be told."""
    write(tmp_path, mine="def broken(:\n")
    assert read_programs(tmp_path / "mine.py").source == "def broken(:\n"


def test_a_helper_in_another_encoding_is_named(tmp_path: Path) -> None:
    """Breaks if a helper module fails without its name."""
    write(tmp_path, mine="import helper")
    (tmp_path / "helper.py").write_bytes(b"x = '\xfc'")
    with pytest.raises(UserError, match=r"helper\.py: cannot be read: line 1 is not UTF-8"):
        read_programs(tmp_path / "mine.py")
