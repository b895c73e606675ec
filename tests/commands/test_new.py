"""`fedge new` and `fedge show`: files to start from, each of which runs as it is written."""

import shlex
from pathlib import Path

import pytest

import fedge as api
from fedge.catalog.files import shipped_names
from fedge.commands.new import KINDS
from fedge.scenario.load import load_scenario

TINY = ["engine.kind=inline", "rounds=2", "training.epochs=1", "model.factory.epochs=1"]
FEW = [*TINY, *(f"fleet.{index}.count=1" for index in range(3))]


@pytest.mark.parametrize("kind", KINDS)
def test_every_template_runs_as_the_command_says(fedge, tmp_path: Path, monkeypatch, kind: str) -> None:
    """Breaks if the first thing that a newcomer has is a file that does not work, or a command that does not."""
    monkeypatch.chdir(tmp_path)
    name = "first.toml" if kind == "scenario" else "mine.py"
    code, out, err = fedge("new", name, "--kind", kind)
    assert code == 0, err
    command = shlex.split(out.partition("try it:")[2])
    assert command[0] == "fedge"
    changes = [command[index + 1] for index, word in enumerate(command) if word == "--set"]
    few = ["fleet.0.count=1", "fleet.1.count=1", *TINY] if kind == "scenario" else FEW
    result = api.run(load_scenario(command[2], [*few, *changes]), tmp_path / "run")
    assert {row["status"] for row in result.reports()} == {"ok"}
    ran = result.reports()[-1]
    own = {"criterion": "criterion", "filter": "instance_filter", "score": "error_maps"}
    assert kind not in own or ran[own[kind]] == "own"


def test_the_command_that_it_names_is_understood(fedge, tmp_path: Path, monkeypatch) -> None:
    """Breaks if the line that is printed has an option that there is not."""
    monkeypatch.chdir(tmp_path)
    _, out, _ = fedge("new", "mine.py")
    code, out, err = fedge(*shlex.split(out.partition("try it:")[2])[1:], "--set", "model.factory.epochs=1")
    assert code == 0, err
    assert "client 0 on jetson-nano" in out


def test_nothing_is_overwritten(fedge, tmp_path: Path) -> None:
    """Breaks if somebody's work is lost by asking for a template."""
    file = tmp_path / "mine.py"
    file.write_text("mine")
    code, out, err = fedge("new", str(file))
    assert (code, out, file.read_text()) == (2, "", "mine")
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["mine.py", "--kind", "clientt"], "did you mean 'client'"),
        (["mine.toml", "--kind", "client"], "ends in .py"),
        (["mine.py", "--kind", "scenario"], "ends in .toml"),
        (["nowhere/mine.py"], "cannot be written"),
        (["torch.py"], "would hide"),
    ],
)
def test_what_cannot_be_made_is_one_line(
    fedge, tmp_path, monkeypatch, arguments: list[str], words: str
) -> None:
    """Breaks if a mistake leaves a file behind, or a traceback."""
    monkeypatch.chdir(tmp_path)
    code, _, err = fedge("new", *arguments)
    assert (code, len(err.splitlines())) == (2, 1)
    assert words in err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", shipped_names())
def test_what_is_shipped_is_shown_below_its_path(fedge, name: str) -> None:
    """Breaks if somebody has to dig in site-packages for a file to copy."""
    code, out, _ = fedge("show", name)
    first, _, text = out.partition("\n")
    assert code == 0
    assert Path(first.removeprefix("# ")).read_text() == text


def test_an_unknown_name_is_met_with_the_nearest(fedge) -> None:
    """Breaks if a slip of the finger is not understood."""
    code, _, err = fedge("show", "edgy")
    assert (code, len(err.splitlines())) == (2, 1)
    assert "did you mean 'edge'" in err
