"""A mistake in what the user has named: the line says which of them."""

from typing import Any

import pytest

from fedge.errors import UserError
from fedge.scenario.load import load_scenario

MISTAKES: dict[str, tuple[str, str]] = {
    "a figure's range": (
        "report.figures.macro_f1={least=0.0, most=1.0, steps=1}",
        "report.figures.macro_f1.steps is 1;",
    ),
    "a figure's key": (
        "report.figures.recall={least=0.0, most=1.0, stepz=4}",
        "'report.figures.recall.stepz'; did you mean 'steps'",
    ),
    "a figure's ends": (
        "report.figures.recall={least=1.0, most=1.0, steps=4}",
        "report.figures.recall: least is 1 and most 1",
    ),
    "no section": (
        "report.figures.recall=3",
        "report.figures.recall is 3; it is a section: allowed: least, most, steps",
    ),
    "a name like another key": (
        "report.figures.seed={least=0.0, most=1.0, steps=1}",
        "report.figures.seed.steps is 1;",
    ),
    "a resource": ("fleet.1.ray.resources.camera=-1.0", "fleet.1.ray.resources.camera is -1"),
    "an argument of a network": ("model={program='net.py', args={width={}}}", "model.args.width is {}"),
}


@pytest.mark.parametrize("what", MISTAKES)
def test_the_name_is_in_the_line(what: str, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks if somebody with five figures is told that "report.figures.steps" is wrong."""
    monkeypatch.chdir(tmp_path)
    change, words = MISTAKES[what]
    with pytest.raises(UserError) as caught:
        load_scenario("quickstart", [change])
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
