"""What a client program can import is the same on both engines, whatever the shell's folder and `sys.path` are."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fedge.engine.cluster import RayCluster
from fedge.engine.inline import InlineGrid
from fedge.engine.programs.modules import TravelledModules, installed_only
from fedge.engine.ray import RayGrid
from fedge.engine.roster import ClientProgram, HostRequest

SEES = """
import importlib.util
from helper import rate
from parts.inner import twice
found = [importlib.util.find_spec(name) is not None for name in ("only_in_cwd", "numpy", "late")]
import late
return reply(message, rate=twice(rate), found=[int(one) for one in found], late=late.x)
"""
FILES = {
    "helper.py": "rate = 0.25",
    "late.py": "x = 3",
    "parts/__init__.py": "",
    "parts/inner.py": "from . import base\nfrom helper import rate\ntwice = lambda x: x * base.two",
    "parts/base.py": "two = 2",
}


@pytest.fixture(params=["inline", "ray"])
def open_grid(request: pytest.FixtureRequest) -> Callable[..., Any]:
    def make(program: ClientProgram, roster: Any) -> Any:
        if request.param == "inline":
            return InlineGrid(program, roster, {})
        cluster: RayCluster = request.getfixturevalue("cluster")
        return RayGrid(program, roster, {"a": HostRequest(1)}, {}, cluster=cluster)

    return make


def test_both_engines_see_what_travels_and_what_is_installed(
    open_grid: Any, program: Any, fleet: Any, plans: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Breaks if a helper is found on one engine only, or a module of the working directory on either."""
    (tmp_path / "only_in_cwd.py").write_text("x = 1")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.syspath_prepend("")
    source = program(SEES).source
    with open_grid(ClientProgram("mine", source, files=FILES), fleet(a=1)) as grid:
        (answer,) = grid.send_and_receive(plans(1))
    assert not answer.has_error(), answer.error
    assert dict(answer.content["report"]) == {"rate": 0.5, "found": [0, 1, 1], "late": 3}
    assert str(tmp_path) in sys.path  # the caller's own


def test_a_package_is_a_program(open_grid: Any, program: Any, fleet: Any, plans: Any) -> None:
    """Breaks if a program in a folder cannot use its own parts by either way of naming them."""
    body = "from .inner import two\nfrom pack.inner import two as same\nreturn reply(message, v=two * same)"
    packed = ClientProgram("pack", program(body).source, files={"pack/inner.py": "two = 2"}, is_package=True)
    with open_grid(packed, fleet(a=1)) as grid:
        (answer,) = grid.send_and_receive(plans(1))
    assert not answer.has_error(), answer.error
    assert answer.content["report"]["v"] == 4


def test_two_programs_in_a_row_have_their_own_helpers(program: Any, fleet: Any, plans: Any) -> None:
    """Breaks if a second run in a notebook gets the first one's helper, or the notebook's own is gone afterwards."""
    source = program("import helper\nreturn reply(message, v=helper.v)").source
    values = []
    for v in (1, 2):
        with InlineGrid(
            ClientProgram("mine", source, files={"helper.py": f"v = {v}"}), fleet(a=1), {}
        ) as grid:
            values.append(grid.send_and_receive(plans(1))[0].content["report"]["v"])
    assert values == [1, 2]
    assert "helper" not in sys.modules


def test_what_was_imported_before_is_back_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks if a run changes what the caller's own `import helper` means."""
    own = type(sys)("helper")
    monkeypatch.setitem(sys.modules, "helper", own)
    modules = TravelledModules({"helper.py": "v = 1"})
    modules.install()
    import helper  # type: ignore[import-not-found]

    assert helper.v == 1
    modules.remove()
    modules.remove()
    assert sys.modules["helper"] is own
    assert modules not in sys.meta_path


def test_pythonpath_counts_as_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks if what a person installs by PYTHONPATH is hidden from client programs."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "named"))
    monkeypatch.setattr(sys, "path", ["", str(tmp_path), str(tmp_path / "named"), *sys.path])
    before = list(sys.path)
    with installed_only():
        assert str(tmp_path / "named") in sys.path
        assert "" not in sys.path
        assert str(tmp_path) not in sys.path
    assert sys.path == before


def test_a_helper_that_fails_names_its_line(program: Any, fleet: Any) -> None:
    """Breaks if a mistake in a helper module is a traceback."""
    source = program("pass").source.replace("import os", "import helper, os")
    with pytest.raises(Exception, match="'mine' does not load: ZeroDivisionError"):
        InlineGrid(ClientProgram("mine", source, files={"helper.py": "1 / 0"}), fleet(a=1), {})
    assert not [finder for finder in sys.meta_path if isinstance(finder, TravelledModules)]
