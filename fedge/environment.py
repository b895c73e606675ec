"""What a run ran on, for its record: versions and the processor. Read from what is installed, without importing it."""

import importlib.metadata
import platform
import sys
from pathlib import Path

PACKAGES = (
    "fedge", "torch", "torchvision", "flwr", "flwr-datasets", "ray", "numpy", "scikit-learn",
    "pydantic", "safetensors",
)  # fmt: skip  # those on which numbers or the wire depend

Facts = dict[str, str | None]


def environment() -> Facts:
    """The versions of Python and of `PACKAGES` (None: not installed), the platform and the processor of this host."""
    versions: Facts = {name: _version(name) for name in PACKAGES}
    return {
        "python": platform.python_version(),
        **versions,
        "platform": platform.platform(),
        "processor": processor(),
    }


def host_environment() -> Facts:
    """The same of a process in which devices run: with what torch computes with (AVX2, AVX512, ...)."""
    torch = sys.modules.get("torch")
    return {
        **environment(),
        "vector_instructions": str(torch.backends.cpu.get_cpu_capability()) if torch else None,
    }


def processor() -> str:
    """The processor's name as Linux knows it, else as Python does."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
