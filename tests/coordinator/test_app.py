"""The ServerApp as Flower's own runtime calls it: with a configuration, and no fedge around it."""

import json
from pathlib import Path
from typing import Any

import pytest
from flwr.app import Context, RecordDict

from fedge.catalog.files import client_path
from fedge.coordinator.app import app
from fedge.engine.inline import InlineGrid
from fedge.engine.roster import ClientProgram
from fedge.errors import UserError
from fedge.launch import FleetRoster
from fedge.results.owner import owned
from fedge.scenario.file import scenario_toml


def call(scenario: Any, folder: Path, out: Path, **options: bool) -> None:
    """Run `app` over an inline grid that was told no more than `flwr run` tells."""
    path = folder / "s.toml"
    path.write_text(scenario_toml(scenario))
    config = {"scenario": str(path), "out": str(out), **options}
    program = ClientProgram("edge", client_path("edge").read_text())
    with InlineGrid(program, FleetRoster(scenario), config) as grid:
        app(grid, Context(grid.run.run_id, 0, {}, RecordDict(), config))


def test_flowers_runtime_gives_the_same_results_and_a_record(
    small: Any, finished: Any, tmp_path: Path
) -> None:
    """Breaks if the app needs anything of `fedge run`, or computes something else without it."""
    out = tmp_path / "out"
    call(small(), tmp_path, out)
    whole = finished().reports(timing=False)
    rows = [json.loads(line) for line in (out / "reports.jsonl").read_text().splitlines()]
    assert [{name: row[name] for name in whole[0]} for row in rows] == whole
    assert json.loads((out / "environment.json").read_text())["runtime"] == "flower"
    assert not (out / ".lock").exists()


@pytest.mark.parametrize("options", [{}, {"resume": True}, {"overwrite": True}])
def test_a_folder_in_use_is_refused_here_too(small: Any, tmp_path: Path, options: dict[str, bool]) -> None:
    """Breaks if two runs that were submitted to a SuperLink write into one folder."""
    with owned(tmp_path / "out"):
        before = sorted((tmp_path / "out").iterdir())
        with pytest.raises(UserError, match="in use by another run"):
            call(small(), tmp_path, tmp_path / "out", **options)
        assert sorted((tmp_path / "out").iterdir()) == before
