"""A run's configuration as Flower carries it, to the ServerApp and to every ClientApp: flat, plain values.

    scenario-json   the resolved scenario (fedge's own engines), or
    scenario        a scenario's name or path (flwr run)
    out             folder of results; absolute where processes start elsewhere
    data-path       prepared data, where they were prepared beforehand
    resume          whether to go on with what lies in `out`
    overwrite       whether to drop what lies in `out`, where it is unfinished or of another scenario

A node's configuration says which client it is (`partition-id`) and may name its `device-dir` and `data-path`.
"""

import functools
from collections.abc import Mapping
from pathlib import Path

from flwr.app import Context

from fedge.catalog.files import scenario_path
from fedge.errors import UserError
from fedge.scenario.file import read_scenario
from fedge.scenario.schema import Scenario

RunConfig = Mapping[str, bool | float | int | str]


def scenario_of(run: RunConfig) -> Scenario:
    """The run's scenario. Read once per process."""
    if text := run.get("scenario-json"):
        return _parsed(str(text))
    if name := run.get("scenario"):
        return _read(str(name))
    raise UserError(
        "the run's configuration names no `scenario`; pass one, as in: -c 'scenario=\"quickstart\"'"
    )


def out_folder(run: RunConfig) -> Path:
    """Folder of results, `runs/<scenario>` unless the configuration says otherwise."""
    return Path(str(run.get("out") or Path("runs") / scenario_of(run).name)).absolute()


def device_folder(context: Context) -> Path:
    """The folder that is one device's own: its node's `device-dir`, else devices/<client> among the results."""
    node = context.node_config
    if own := node.get("device-dir"):
        return Path(str(own))
    return out_folder(context.run_config) / "devices" / str(node["partition-id"])


@functools.lru_cache(maxsize=4)
def _parsed(text: str) -> Scenario:
    return Scenario.model_validate_json(text)


@functools.lru_cache(maxsize=4)
def _read(name: str) -> Scenario:
    return read_scenario(scenario_path(name))
