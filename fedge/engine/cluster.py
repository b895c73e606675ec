"""A Ray cluster for one run: started here, or joined because the scenario names its address.

Preparation runs here as Ray tasks, so that the process which coordinates never imports torch nor opens a data
file.
"""

import logging
import os
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

from fedge.engine.placement import Node
from fedge.engine.tasks import JsonValue, call, unpack
from fedge.errors import RunError, UserError

_QUIET = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}
_OBJECT_STORE_BYTES = 80 * 2**20  # Ray's least is 75 MB; messages are a few kilobytes and bypass it


def quiet_environment() -> None:
    """Nothing phones home, unless the user's own environment says otherwise."""
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)


class RayCluster:
    """A context manager around Ray. `address` "local" starts a Ray of our own, anything else joins a running
    one.

    A Ray that this process is connected to already is used as it is. `close` shuts Ray down only if we
    started or joined it. `num_cpus` is for a Ray of our own: the CPUs it may use (default: the machine's).
    """

    def __init__(self, address: str = "local", *, num_cpus: float | None = None) -> None:
        quiet_environment()
        import ray  # after the environment: Ray reads parts of it when it is imported

        self._ray = ray
        self._ours = not ray.is_initialized()
        if self._ours:
            self._connect(address, num_cpus)

    def _connect(self, address: str, num_cpus: float | None) -> None:
        options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
        if address == "local":
            options |= {
                "include_dashboard": False,
                "num_cpus": num_cpus,
                "object_store_memory": _OBJECT_STORE_BYTES,
            }
        try:
            self._ray.init(address=address, **options)
        except (ConnectionError, ValueError) as error:
            raise UserError(
                f"no Ray cluster answers at '{address}' ({_first_line(error)}): "
                'start one with `ray start --head`, or use engine.address = "local"'
            ) from error
        except Exception as error:
            raise RunError(f"Ray did not start: {_first_line(error)}") from error

    def nodes(self) -> list[Node]:
        """The nodes that are alive, with a name for each that survives a restart of Ray."""
        return [
            Node(node["NodeID"], f"{node['NodeName']}:{node['NodeManagerAddress']}", dict(node["Resources"]))
            for node in self._ray.nodes()
            if node["Alive"]
        ]

    def run_task(
        self,
        target: str,
        arguments: Mapping[str, JsonValue],
        *,
        num_cpus: float = 1.0,
        traceback_dir: str | None = None,
    ) -> JsonValue:
        """Call `package.module:function(**arguments)` in a Ray worker and return what it returns, all of it
        JSON.

        A FedgeError comes back as the same class with the same line; anything else is a RunError that names
        the exception's class and the file on the worker's node that holds the traceback (in `traceback_dir`,
        else in the temporary folder).
        """
        remote = self._ray.remote(num_cpus=num_cpus, max_retries=0)(call)
        try:
            return unpack(self._ray.get(remote.remote(target, dict(arguments), traceback_dir)))
        except self._ray.exceptions.RayError as error:
            raise RunError(
                f"{target} did not finish: its Ray worker ended ({type(error).__name__})"
            ) from error

    def close(self) -> None:
        """Disconnect; ends the Ray processes that we started. May be called twice."""
        if self._ours:
            self._ray.shutdown()
            self._ours = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
