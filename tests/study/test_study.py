"""A study's file: arms, grid, and what is wrong with one, in one line."""

import re
from pathlib import Path

import pytest

from fedge.errors import UserError
from fedge.study.cells import cells_of
from fedge.study.study import as_settings, load_study

ARMS = """
scenario = "quickstart"
worlds = [7, 8]
seeds = [1, 2, 3]
[grid]
"training.pruning.level" = [0.0, 0.5]
[arms.dense]
"training.pruning.level" = 0.0
training.instance_filter = { kind = "none" }
[arms.methods]
"""


def written(folder: Path, text: str) -> str:
    path = folder / "mine.toml"
    path.write_text(text)
    return str(path)


def test_an_arm_takes_every_point_of_the_grid_that_it_leaves_open(tmp_path: Path) -> None:
    """Breaks if a dense arm is run once per pruning level, or an arm's own key is overwritten."""
    study, path = load_study(written(tmp_path, ARMS))
    assert list(study.trials()) == ["dense", "methods level=0.0", "methods level=0.5"]
    cells = cells_of(study, path.parent)
    assert len(cells) == 3 * 2 * 3
    levels = {cell.arm: cell.scenario.training.pruning.level for cell in cells}
    assert levels == {"dense": 0.0, "methods level=0.0": 0.0, "methods level=0.5": 0.5}
    assert {(cell.scenario.data.seed, cell.scenario.seed) for cell in cells} == {
        (world, seed) for world in (7, 8) for seed in (1, 2, 3)
    }
    assert cells[0].scenario.training.instance_filter.kind == "none"


def test_a_cell_is_named_by_what_is_run_and_by_nothing_else(tmp_path: Path) -> None:
    """Breaks if a renamed arm is run again, or a changed program is taken for done."""
    program = tmp_path / "mine.py"
    program.write_text((Path(__file__).parents[2] / "clients" / "dense.py").read_text())
    text = 'scenario = "quickstart"\n[arms.{name}]\nclient = "mine.py"\n'

    def id_of(name: str, *settings: str) -> str:
        study, path = load_study(written(tmp_path, text.format(name=name)))
        (cell,) = cells_of(study, path.parent, settings)
        return cell.id

    first = id_of("one")
    assert id_of("two") == first
    assert id_of("one", "engine.kind=inline") == first
    assert id_of("one", "training.epochs=1") != first
    program.write_text(program.read_text() + "# changed\n")
    assert id_of("one") != first


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("seeds = [1]", "'scenario' is missing"),
        ('scenario = "quickstart"\nseeds = []', "'seeds' is empty"),
        ('scenario = "quickstart"\nseeds = [1, 1]', "holds a value twice"),
        ('scenario = "quickstart"\nbaseline = "factroy"', "did you mean 'factory'"),
        ('scenario = "quickstart"\nselect = "test"', 'select is "test"; it should be'),
        ('scenario = "quickstart"\n[arms.factory]', "which are baselines"),
        ('scenario = "quickstart"\n[arms.a]\nseed = 3', "the study's `worlds` and `seeds` do"),
        ('scenario = "quickstart"\n[arms.a]\ndata.seed = 3', "the study's `worlds` and `seeds` do"),
        ('scenario = "quickstart"\n[grid]\nseed = [3]', "the study's `worlds` and `seeds` do"),
        ('scenario = "quickstart"\n[arms.a]\nschedule.unseen = 0.1', "the study's `unseen` does"),
        ('scenario = "quickstart"\narm = 3', "unknown key 'arm'; did you mean 'arms'"),
        ("scenario = ", "not valid TOML"),
    ],
)
def test_what_is_wrong_with_a_study_is_one_line(text: str, line: str, tmp_path: Path) -> None:
    """Breaks if a wrong study is run, or refused with a traceback."""
    with pytest.raises(UserError, match=re.escape(line)) as error:
        load_study(written(tmp_path, text))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('scenario = "quikstart"', "did you mean 'quickstart'"),
        ('scenario = "quickstart"\n[arms.a]\ntraning.epochs = 3', "arm 'a': --set: unknown key 'traning'"),
        ('scenario = "quickstart"\n[arms.a]\nclient = "none.py"', "arm 'a':"),
    ],
)
def test_what_is_wrong_with_an_arm_names_it(text: str, line: str, tmp_path: Path) -> None:
    """Breaks if a mistake in one of ten arms has to be looked for."""
    study, path = load_study(written(tmp_path, text))
    with pytest.raises(UserError, match=re.escape(line)):
        cells_of(study, path.parent)


def test_changes_survive_as_settings() -> None:
    """Breaks if a value changes its type on its way through --set."""
    changes = {"a.b": True, "c": 0.5, "d": "x y", "e": ["p", 1], "f": {"kind": "none", "keep": 0.5}}
    assert as_settings(changes) == [
        "a.b=true", "c=0.5", 'd="x y"', 'e=["p", 1]', 'f={"kind" = "none", "keep" = 0.5}',
    ]  # fmt: skip
