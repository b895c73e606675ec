"""`privacy.isolation = "client"`: what one client's process sees, and what of its answer goes on.

fedge.engine.isolation confines; here is what belongs to whom: a client has its own folder among the results, to read
and write, and beside the factory model its own rows, to read. The answer is held against the gate's rules again,
outside, where the client program cannot have changed them.
"""

from pathlib import Path

from flwr.app import Error, Message, RecordDict

from fedge.engine.isolation.room import Isolation, NodeConfig, Room
from fedge.errors import FedgeError
from fedge.privacy.egress import checked_report
from fedge.privacy.leaving import leaving
from fedge.protocol import DeviceFailure, Status, failure_reply
from fedge.protocol.run_config import out_folder, scenario_of
from fedge.scenario.schema import Scenario

_HERE = "fedge.privacy.isolation"
_PRELOAD = ("torch", "fedge.device.handler", "fedge.device.device", "fedge.privacy.egress")


def isolation_of(scenario: Scenario) -> Isolation | None:
    """What the scenario asks of the engine."""
    if scenario.privacy.isolation == "none":
        return None
    return Isolation(f"{_HERE}:room", f"{_HERE}:checked", _PRELOAD, "fedge.device.warm:warm")


def room(node_config: NodeConfig, run_config: NodeConfig) -> Room:
    """A client's: its folder, which is made where it is missing, and its part of the prepared data."""
    client, home = int(node_config["partition-id"]), _home(run_config, node_config)
    home.mkdir(parents=True, exist_ok=True)
    data = Path(str(run_config["data-path"])) / "own" / str(client)
    shown = {**node_config, "data-path": str(data), "device-dir": str(home)}
    return Room((str(data),), (str(home),), str(home), shown)


def _home(run_config: NodeConfig, node_config: NodeConfig) -> Path:
    return out_folder(run_config) / "devices" / str(int(node_config["partition-id"]))


def checked(
    message: Message, payload: RecordDict | Error, run_config: NodeConfig, node_config: NodeConfig
) -> RecordDict | Error:
    """What leaves of a report within its ranges, rounded, of this client; else a word of `Status`, and nothing else."""
    if isinstance(payload, Error):
        return failure_reply(_word(payload), message).error
    try:
        scenario = scenario_of(run_config)
        report = checked_report(Message(payload, reply_to=message), message, scenario.report.figures)
        if report.client != node_config["partition-id"]:
            raise DeviceFailure(Status.BLOCKED_VALUE)
        home = Path(str(node_config.get("device-dir") or _home(run_config, node_config)))
        return leaving(report, message, scenario, home)
    except DeviceFailure as failure:
        return failure_reply(failure.status, message).error
    except FedgeError:  # of the device's own ledger
        return failure_reply(Status.CLIENT_RAISED, message).error


def _word(error: Error) -> Status:
    try:
        return Status(error.reason or "")
    except ValueError:
        return Status.CLIENT_RAISED
