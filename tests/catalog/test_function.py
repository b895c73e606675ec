"""A function of one's own as a client program: what travels with it, and what is refused."""

import functools
import json as texts
from collections import Counter
from math import pi
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from fedge.catalog import function as module
from fedge.catalog.function import program_of
from fedge.errors import UserError

EPOCHS = 3
NAMES = {"a": [1, 2.5, None], "b": ("c", True)}
WEIGHTS = np.zeros(3)


def helper(x):
    """Used by `uses_much`."""
    return deeper(x) + EPOCHS


def deeper(x):
    return x + len(NAMES)


renamed = helper


class Base:
    def scale(self) -> float:
        return pi


class Step(Base):
    """A class is called anew each round."""

    def __call__(self, device, plan):
        return texts.dumps([self.scale(), super().scale()])


def uses_much(device: "Counter[str]", plan=EPOCHS) -> str:
    """Everything that may travel, in one function."""
    local = [renamed(number) for number in range(EPOCHS)]
    return texts.dumps([local, sorted(Counter("aab").items()), Path("a").name, Step()(1, 2), pi])


def uses_an_array(device, plan):
    return WEIGHTS.sum()


def uses_an_array_below(device, plan):
    return below()


def below():
    return WEIGHTS


def uses_nothing_known(device, plan):
    return nosuch  # noqa: F821


def shadows(device, plan):
    WEIGHTS = [1]
    return [WEIGHTS * 2 for WEIGHTS in WEIGHTS]


def made_by(value):
    def inner(device, plan):
        return value

    return inner


def three(device, plan, third):
    return third


class Needs:
    def __init__(self, what):
        self.what = what

    def __call__(self, device, plan):
        return self.what


def executed(step: object) -> ModuleType:
    """The program's module, without the part that only a device has."""
    source = program_of(step).source
    made = ModuleType("made")
    exec(source.partition("\napp = ")[0], made.__dict__)
    return made


def test_imports_functions_and_values_travel() -> None:
    """Breaks if a function that works in the notebook fails on the device for something that lay beside it."""
    assert executed(uses_much).uses_much(None, None) == uses_much(None, None)
    assert executed(Step).Step()(None, None) == Step()(None, None)


def test_a_local_name_is_no_name_from_outside() -> None:
    """Breaks if a function is refused for a variable of its own."""
    assert executed(shadows).shadows(None, None) == [2]


def test_only_what_is_used_travels() -> None:
    """Breaks if the rest of a notebook, private data among it, goes along."""
    source = program_of(three_free).source
    assert "WEIGHTS" not in source and "helper" not in source


def three_free(device, plan):
    return 3


REFUSED = {
    "an array": (uses_an_array, "uses 'WEIGHTS', a ndarray .* cannot travel.*client.args"),
    "an array below": (uses_an_array_below, "uses 'WEIGHTS', a ndarray"),
    "what is not defined": (uses_nothing_known, "uses 'nosuch', which is not defined"),
    "a closure": (made_by(3), "closes over 'value'"),
    "a lambda": (lambda device, plan: None, "is a lambda"),
    "other arguments": (three, r"called with \(device, plan\), and cannot be"),
    "a class with arguments": (Needs, "made without arguments"),
    "a partial": (functools.partial(three, third=1), "a partial"),
    "a method": (Step().__call__, "a bound method"),
    "a number": (3, "a int; a function"),
    "a builtin": (len, "a builtin_function_or_method"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_travel_is_refused_in_one_line(what: str) -> None:
    """Breaks if it fails on the devices instead, one after another, or ends here in a traceback."""
    step, words = REFUSED[what]
    with pytest.raises(UserError, match=words) as caught:
        program_of(step)
    assert "\n" not in str(caught.value)


def test_a_function_without_text_is_refused() -> None:
    """Breaks if something typed at a prompt, whose text is gone, ends in an OSError."""
    names: dict = {}
    exec("def typed(device, plan):\n    return 1\n", names)
    with pytest.raises(UserError, match="cannot be read"):
        program_of(names["typed"])


def test_anothers_text_is_not_taken_for_a_functions(tmp_path: Path) -> None:
    """Breaks if a device runs what stands in a file by now, or in `python -c`, in place of what was defined."""
    file = tmp_path / "mine.py"
    file.write_text("def typed(device, plan):\n    return 1\n")
    names: dict = {}
    exec(compile(file.read_text(), str(file), "exec"), names)
    file.write_text("import sys\n\nprint(sys.argv)\n")
    with pytest.raises(UserError, match="cannot be read"):
        program_of(names["typed"])


def test_modules_beside_it_travel(tmp_path: Path, monkeypatch) -> None:
    """Breaks if a function loses the file beside its own that it imports."""
    (tmp_path / "own_steps.py").write_text(
        "import own_parts\n\ndef step(device, plan):\n    return own_parts.half(4)\n"
    )
    (tmp_path / "own_parts.py").write_text("def half(x):\n    return x / 2\n")
    monkeypatch.syspath_prepend(tmp_path)
    import own_steps

    program = program_of(own_steps.step)
    assert set(program.files) == {"own_parts.py"}
    assert "import own_parts" in program.source


def test_an_import_that_was_overwritten_is_not_believed(monkeypatch) -> None:
    """Breaks if a name that now means something else travels as what it meant when the module was read."""
    monkeypatch.setitem(globals(), "pi", 3)
    assert "pi = 3" in program_of(Base_user).source


def Base_user(device, plan):
    return pi


def test_cells_of_a_notebook_are_read_for_imports() -> None:
    """Breaks if a magic line hides a cell's imports."""
    cells = [
        "%matplotlib inline\nimport numpy as np",
        "!ls\nfrom math import (pi,\n  tau as full)",
        "def broken(:",
    ]
    assert dict(module._import_lines(cells)) == {
        "np": "import numpy as np",
        "pi": "from math import pi",
        "full": "from math import tau as full",
    }
