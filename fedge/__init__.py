"""fedge: simulated edge devices that improve their own networks; nothing private moves.

    import fedge
    result = fedge.run(fedge.load_scenario("quickstart"), out="runs/quickstart")
    result.summary["accuracy"]["mean"]

Importing fedge imports neither torch nor ray; the names below bring what they need when they are first used.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fedge.console.observer import Observer
    from fedge.data.own.folder import write_dataset
    from fedge.launch import run
    from fedge.scenario.load import load_scenario
    from fedge.study.run import study

__all__ = ["Observer", "load_scenario", "run", "study", "write_dataset"]

_HOMES = {
    "Observer": "fedge.console.observer",
    "load_scenario": "fedge.scenario.load",
    "run": "fedge.launch",
    "study": "fedge.study.run",
    "write_dataset": "fedge.data.own.folder",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'fedge' has no attribute {name!r}")
