"""A study's file: arms, grid, and what is wrong with one, in one line."""

import re
from pathlib import Path

import pytest

from fedge.errors import UserError
from fedge.page.study_charts import factory_models
from fedge.page.study_page import answer
from fedge.study.cells import Cell, cells_of
from fedge.study.outcome import outcomes
from fedge.study.study import as_settings, load_study
from fedge.study.summary import CellResult, summarise
from fedge.study.table import arm_rows, verdicts

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
        (
            'scenario = "quickstart"\n[arms.a]\nyardstick = "fedprox"',
            "arms.a.yardstick is 'fedprox'; did you mean",
        ),
        (
            'scenario = "quickstart"\n[arms.a]\nyardstick = "fedavg"\ntraining.pruning.level = 0.5',
            "arms.a sets 'training.pruning.level', which plays no part in a yardstick: leave it out",
        ),
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
        (
            'scenario = "quickstart"\n[arms.a]\nyardstick = "fedavg_finetune"\ntraining.decay.kind = "cosine"',
            "arm 'a': yardstick 'fedavg_finetune' serves what the last round trains",
        ),
    ],
)
def test_what_is_wrong_with_an_arm_names_it(text: str, line: str, tmp_path: Path) -> None:
    """Breaks if a mistake in one of ten arms has to be looked for."""
    study, path = load_study(written(tmp_path, text))
    with pytest.raises(UserError, match=re.escape(line)):
        cells_of(study, path.parent)


def test_a_yardstick_takes_the_points_of_the_grid_that_change_it(tmp_path: Path) -> None:
    """Breaks if an average is run once per pruning level, and shown as if it had been pruned."""
    text = ARMS.replace(
        "[arms.dense]",
        '"training.learning_rate" = [0.1, 0.2]\n[arms.avg]\nyardstick = "fedavg"\n[arms.dense]',
    )
    study, _ = load_study(written(tmp_path, text))
    assert [label for label in study.trials() if label.startswith("avg")] == [
        "avg learning_rate=0.1",
        "avg learning_rate=0.2",
    ]


NARROW = """
scenario = "quickstart"
[arms.pruned]
[arms.dense]
training.pruning.level = 0.0
[arms.narrow]
model.args.width = 0.7
"""


def finished(cell: Cell, factory: int, right: int) -> CellResult:
    """A cell of two clients with 10 test rows each."""
    rows = [
        {"status": "ok", "round": 1, "client": client, "device": "pi", "macs_done": 5, "energy_j": 1.0,
         "test_count": 10, "test_correct": right, "factory_correct": factory, "told_correct": factory,
         "test_gained": max(0, right - factory), "test_lost": max(0, factory - right)}
        for client in range(2)
    ]  # fmt: skip
    return CellResult(cell, outcomes(rows, "last"), {"macs": 10, "energy_j": 2.0, "time_s": 1.0, "bytes": 9})


def test_a_network_that_ships_narrower_is_compared_by_accuracy(tmp_path: Path) -> None:
    """Breaks if an arm looks best for the sole reason that its own factory model is worse."""
    study, path = load_study(written(tmp_path, NARROW))
    cells = {cell.arm: cell for cell in cells_of(study, path.parent)}
    assert cells["pruned"].factory_id == cells["dense"].factory_id != cells["narrow"].factory_id
    results = [
        finished(cells["pruned"], 7, 8),
        finished(cells["dense"], 7, 9),
        finished(cells["narrow"], 5, 8),
    ]
    summary = summarise("mine", study, results)
    assert summary["arms"]["narrow"]["gain"]["mean"] == pytest.approx(0.3)
    said = [line for line in verdicts(summary) if "another factory model" in line]
    assert said == [
        "* narrow starts from another factory model (50.0% right) than pruned (70.0%): gain, told and hurt are against "
        "its own. Compare accuracies, or take an arm as baseline."
    ]
    assert [row[3] for row in arm_rows(summary)] == ["+10.0 pp", "+20.0 pp", "+30.0 pp*"]
    assert "The arm of the highest mean accuracy is <b>dense</b>" in answer(summary)
    by_arm = study.model_copy(update={"baseline": "dense"})
    against = summarise("mine", by_arm, results)["arms"]
    assert (against["narrow"]["gain"]["mean"], against["pruned"]["gain"]["mean"]) == pytest.approx(
        (-0.1, -0.1)
    )
    assert set(factory_models(summary)) == {"factory of pruned", "factory of narrow"}


def test_arms_with_other_rows_are_not_paired(tmp_path: Path) -> None:
    """Breaks if client 3 of one division is compared with client 3 of another, row by row."""
    text = (
        'scenario = "quickstart"\nbaseline = "{0}"\n[arms.a]\n[arms.b]\ndata.partition = {{ kind = "iid" }}\n'
    )
    study, path = load_study(written(tmp_path, text.format("a")))
    with pytest.raises(UserError, match="arm 'b' has clients with other rows than the baseline 'a'"):
        cells_of(study, path.parent)
    study, path = load_study(written(tmp_path, text.format("factory")))
    assert len({cell.factory_id for cell in cells_of(study, path.parent)}) == 2


def test_a_yardstick_says_what_it_leaves_out(tmp_path: Path) -> None:
    """Breaks if a reader takes an average for one of pruned networks because the scenario prunes."""
    text = 'scenario = "quickstart"\n[arms.a]\n[arms.avg]\nyardstick = "fedavg"\n'
    study, path = load_study(written(tmp_path, text))
    summary = summarise("mine", study, [finished(cell, 7, 8) for cell in cells_of(study, path.parent)])
    assert "no_part" not in summary["arms"]["a"]
    (said,) = (line for line in verdicts(summary) if "play no part" in line)
    assert said.startswith(
        "avg: of the scenario, training.pruning, training.instance_filter, training.error_maps"
    )


def test_changes_survive_as_settings() -> None:
    """Breaks if a value changes its type on its way through --set."""
    changes = {"a.b": True, "c": 0.5, "d": "x y", "e": ["p", 1], "f": {"kind": "none", "keep": 0.5}}
    assert as_settings(changes) == [
        "a.b=true", "c=0.5", 'd="x y"', 'e=["p", 1]', 'f={"kind" = "none", "keep" = 0.5}',
    ]  # fmt: skip
