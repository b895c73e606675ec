"""What a figure was measured on: ratios of times move with the processor, too."""

import os
import platform
from pathlib import Path

import torch

_CPUINFO = Path("/proc/cpuinfo")


def machine() -> str:
    """The processor in its own words, the vectors that torch uses on it, its cores, and torch's version."""
    vectors = torch.backends.cpu.get_cpu_capability()
    return f"{_processor()}, {vectors}, {os.cpu_count()} cores, torch {torch.__version__}"


def _processor() -> str:
    """Virtual machines tend to hide the model's name, so family and model stand beside it."""
    if not _CPUINFO.exists():
        return platform.processor() or platform.machine()
    lines = (line.partition(":") for line in _CPUINFO.read_text().splitlines())
    said = {key.strip(): value.strip() for key, _, value in lines}
    if "model name" not in said:
        return platform.machine()
    return f"{said['model name']} (family {said.get('cpu family', '?')}, model {said.get('model', '?')})"
