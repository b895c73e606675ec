"""Where tensors live: on the CPU, or on a GPU (`engine.device`). A network computes where its parameters are.

What trains, ranks or judges asks the network for its place and brings mini-batches there, so that `train(model,
batches)` is the same on either. Random numbers are drawn on the CPU and brought along, and so two devices differ by
rounding alone; dropout's are torch's own, drawn where the network is. What outlives a round is kept on the CPU.
"""

import itertools
import os
import random
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fedge.errors import UserError

CPU = torch.device("cpu")
ENVIRONMENT = (
    "CUBLAS_WORKSPACE_CONFIG"  # read by cuBLAS; torch asks for it where algorithms are to be deterministic
)


def opened(name: str) -> torch.device:
    """The device of that name, "cpu" or "cuda", set to give equal numbers for equal input, and no coarser ones.

    UserError where torch has no GPU. One GPU's numbers are equal where it has an algorithm that makes them so; for
    others torch warns. A float product is one of floats, not of the 10 bits that TF32 leaves of them.
    """
    if name == "cpu":
        return CPU
    gpu = _gpu()
    os.environ.setdefault(ENVIRONMENT, ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False
    return gpu


def _gpu() -> torch.device:
    if torch.cuda.is_available():
        return torch.device("cuda", 0)  # of those that this process may see
    why = "sees none" if torch.version.cuda else "is built without CUDA"
    raise UserError(
        f"engine.device is 'cuda' and there is no GPU: torch {torch.__version__} {why}: take engine.device = 'cpu', or "
        "a machine and a torch that have one"
    )


def gpu_facts(device: torch.device) -> dict[str, str | None]:
    """For the record of a run: the GPU and the libraries that compute on it; nothing for the CPU."""
    if device.type != "cuda":
        return {}
    return {
        "gpu": torch.cuda.get_device_name(device),
        "cuda": torch.version.cuda,
        "cudnn": str(torch.backends.cudnn.version()),
    }


@contextmanager
def settings_kept() -> Iterator[None]:
    """What `opened` sets is as it was, after; for a process that is not the devices' own."""
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    algorithms = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
    )
    before = cudnn.deterministic, cudnn.benchmark, cudnn.allow_tf32, matmul.allow_tf32
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(algorithms[0], warn_only=algorithms[1])
        cudnn.deterministic, cudnn.benchmark, cudnn.allow_tf32, matmul.allow_tf32 = before


def device_of(model: nn.Module) -> torch.device | None:
    """Where the model computes: at its first parameter, else its first buffer; None: wherever its input is."""
    held = next(itertools.chain(model.parameters(), model.buffers()), None)
    return None if held is None else held.device


@dataclass(frozen=True)
class BroughtTo:
    """Batches on the device, each time that they are gone through; what is no tensor is handed on as it is."""

    batches: Iterable[tuple[Any, ...]]
    device: torch.device | None

    def __iter__(self) -> Iterator[Any]:
        for batch in self.batches:
            yield tuple(brought_to(part, self.device) for part in batch)


def brought_to(value: Any, device: torch.device | None) -> Any:
    """A tensor on the device; itself where it is there, where the device is None, and where it is no tensor."""
    return value.to(device) if isinstance(value, Tensor) and device is not None else value


def on_cpu(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors on the CPU, to be kept."""
    return {name: tensor.detach().cpu() for name, tensor in tensors.items()}


@contextmanager
def generators_kept(device: torch.device | None) -> Iterator[None]:
    """The generators that belong to nobody are as they were, after: torch's on the CPU and on the device, Python's and
    NumPy's."""
    pythons, numpys = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=_gpus(device)):
            yield
    finally:
        random.setstate(pythons)
        np.random.set_state(numpys)


@contextmanager
def drawing_from(seed: int, device: torch.device | None) -> Iterator[None]:
    """Inside, numbers that come from no generator of one's own (dropout, say) come from `seed`; after, as before."""
    with generators_kept(device):
        torch.default_generator.manual_seed(seed)
        for gpu in _gpus(device):
            torch.cuda.default_generators[gpu].manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed % 2**32)
        yield


def _gpus(device: torch.device | None) -> list[int]:
    return [device.index or 0] if device is not None and device.type == "cuda" else []
