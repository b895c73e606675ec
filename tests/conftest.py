"""One Ray for all tests (its start takes seconds); a cache of the session's own; nothing phones home."""

import os
import sys
from collections.abc import Callable, Iterator
from functools import cache

os.environ |= {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_worker_niceness": "0",  # else hosts get next to nothing of a busy machine, and tests run into their limits
}

import pytest
import torch

import fedge
import fedge.launch
import fedge.study.run
from fedge import cli
from fedge.engine.cluster import RayCluster
from fedge.launch import RunResult
from fedge.scenario.load import load_scenario
from fedge.scenario.schema import Scenario


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that share the Ray below run one after the other, in one of pytest's processes."""
    for item in items:
        if "cluster" in item.fixturenames:
            item.add_marker(pytest.mark.xdist_group("ray"))


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory) -> None:
    """Prepared data are made once per session, and never taken from the user's own cache."""
    os.environ["FEDGE_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session", autouse=True)
def _no_pages() -> None:
    """A run draws its page at its end, which takes longer than most of the tests' runs; tests/page draws them."""
    fedge.launch.draw_page = lambda folder, notice: None
    fedge.study.run.draw_page = lambda out: None


@pytest.fixture(scope="session")
def cluster() -> Iterator[RayCluster]:
    """Two CPUs and one `camera`; started here and not by RayCluster, which therefore must leave it
    running.
    """
    import ray

    ray.init(
        address="local",
        num_cpus=2,
        resources={"camera": 1},
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
        object_store_memory=80 * 2**20,
    )
    yield RayCluster()
    assert ray.is_initialized()
    ray.shutdown()


SIX_CLIENTS = tuple(f"fleet.{index}.count=2" for index in range(3))


@pytest.fixture(scope="session")
def small() -> Callable[..., Scenario]:
    """Quickstart cut to six clients and two rounds; further arguments are --set changes,
    and `shape=()` leaves the fleet to them."""

    def make(*changes: str, shape: tuple[str, ...] = SIX_CLIENTS) -> Scenario:
        short = ["rounds=2", "training.epochs=1", "model.factory.epochs=1", "engine.kind=inline"]
        return load_scenario("quickstart", [*short, *shape, *changes])

    return make


@pytest.fixture(scope="session")
def finished(small, tmp_path_factory) -> Callable[..., RunResult]:
    """A run of `small(*changes)` at its end, made once for all tests: to be read, and copied before it is changed."""

    @cache
    def run(*changes: str) -> RunResult:
        return fedge.run(small(*changes), tmp_path_factory.mktemp("finished") / "out")

    return run


@pytest.fixture(name="fedge")
def command_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Run one command, as a person types it; returns (exit code, stdout, stderr)."""

    def command(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["fedge", *arguments])
        try:
            cli.main()
            code = 0
        except SystemExit as end:
            code = int(end.code or 0)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return command
