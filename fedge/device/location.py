"""Where a device finds its data, its own folder and its profile, on each runtime that may carry it.

The run's configuration names the scenario (`scenario-json`: its text, or `scenario`: a name) and `out`, and may name
`data-path`, the prepared data. A node's configuration says which client it is (`partition-id`), and on a SuperNode
may name a `data-path` that holds this client's own shard and nothing else, and a `device-dir`. Where nobody names
prepared data, as on Flower's simulation, the client that comes first prepares them.
"""

import functools
from dataclasses import dataclass
from pathlib import Path

from flwr.app import Context

from fedge.device.simulated import Simulated
from fedge.prepare import prepare_json
from fedge.protocol.run_config import device_folder, scenario_of


@dataclass(frozen=True)
class Location:
    """One device's place in the simulation."""

    client: int
    shard: int  # the client's number within data_folder
    data_folder: Path
    device_folder: Path
    simulated: Simulated


def locate(context: Context) -> Location:
    """Read a device's place from its message's context."""
    node, run = context.node_config, context.run_config
    scenario = scenario_of(run)
    client = int(node["partition-id"])
    data = (
        node.get("data-path")
        or run.get("data-path")
        or _prepared(scenario.model_dump_json(exclude_none=True))
    )
    return Location(
        client=client,
        shard=0 if "data-path" in node else client,
        data_folder=Path(str(data)),
        device_folder=device_folder(context),
        simulated=Simulated.of(scenario, client),
    )


@functools.lru_cache(maxsize=2)
def _prepared(scenario_json: str) -> str:
    return str(prepare_json(scenario_json)["folder"])
