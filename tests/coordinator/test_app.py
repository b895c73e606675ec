"""The ServerApp as Flower's own runtime calls it: with a configuration, and no fedge around it."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from flwr.app import Context, Message, MetricRecord, RecordDict

from fedge.catalog.files import client_path
from fedge.coordinator.app import app
from fedge.coordinator.exchange import find_clients
from fedge.engine.flower_private import SERVER_NODE_ID, identify
from fedge.engine.inline import InlineGrid
from fedge.engine.roster import ClientProgram
from fedge.errors import RunError, UserError
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


class SilentGrid:
    """Six nodes of another runtime, whose program answers a hello with a report of its own making."""

    def __init__(self, content: RecordDict) -> None:
        self.content = content

    def get_node_ids(self) -> list[int]:
        return [1, 2, 3, 4, 5, 6]

    def push_messages(self, messages: list[Message]) -> list[str]:
        self.replies = [Message(self.content, reply_to=message) for message in messages]
        return [reply.metadata.reply_to_message_id for reply in self.replies]

    def pull_messages(self, ids: Iterable[str]) -> list[Message]:
        return self.replies


@pytest.mark.parametrize(
    "content", [{}, {"report": MetricRecord()}, {"report": MetricRecord({"client": [0]})}]
)
def test_a_hello_that_names_no_client_is_told(small: Any, content: dict[str, MetricRecord]) -> None:
    """Breaks if nodes that run another program end the run with a traceback."""
    identify(SERVER_NODE_ID)
    grid: Any = SilentGrid(RecordDict(content))
    with pytest.raises(RunError, match="says that its client is"):
        find_clients(grid, small())


def test_a_fleet_is_a_sequence(small: Any) -> None:
    """Breaks if a part of a roster is not the members it is made of."""
    roster = FleetRoster(small())
    assert roster[1:3] == [roster[1], roster[2]] == list(roster)[1:3]
    assert roster[::-1] == list(reversed(roster))


@pytest.mark.parametrize("options", [{}, {"resume": True}, {"overwrite": True}])
def test_a_folder_in_use_is_refused_here_too(small: Any, tmp_path: Path, options: dict[str, bool]) -> None:
    """Breaks if two runs that were submitted to a SuperLink write into one folder."""
    with owned(tmp_path / "out"):
        before = sorted((tmp_path / "out").iterdir())
        with pytest.raises(UserError, match="in use by another run"):
            call(small(), tmp_path, tmp_path / "out", **options)
        assert sorted((tmp_path / "out").iterdir()) == before
