"""What a figure was measured on: ratios of times move with the processor, too."""

import os
import platform
import subprocess
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

PACKAGES = ("torch", "flwr", "ray")
_CPUINFO = Path("/proc/cpuinfo")


def stamp() -> dict[str, Any]:
    """What every measured row carries: the machine, versions, the commit (None outside a checkout) and the date."""
    return {
        "machine": machine(),
        "versions": {"python": platform.python_version()} | {name: version(name) for name in PACKAGES},
        "commit": _commit(),
        "date": time.strftime("%Y-%m-%d"),
    }


def machine() -> str:
    """The processor in its own words, the vectors that torch uses on it, and its cores."""
    import torch  # here, so that a measured process is not given torch by the module that describes it

    return f"{_processor()}, {torch.backends.cpu.get_cpu_capability()}, {os.cpu_count()} cores"


def _processor() -> str:
    """Virtual machines tend to hide the model's name, so family and model stand beside it."""
    if not _CPUINFO.exists():
        return platform.processor() or platform.machine()
    lines = (line.partition(":") for line in _CPUINFO.read_text().splitlines())
    values = {key.strip(): value.strip() for key, _, value in lines}
    if "model name" not in values:
        return platform.machine()
    return (
        f"{values['model name']} (family {values.get('cpu family', '?')}, model {values.get('model', '?')})"
    )


def _commit() -> str | None:
    command = ["git", "describe", "--always", "--dirty", "--exclude=*"]
    try:
        said = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return said.stdout.strip()
