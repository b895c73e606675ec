"""The C sources of this folder compiled for this machine, when they are first needed.

The library lies in fedge's cache folder, one for float32 and one for float64. Where there is no C compiler ($CC, else
cc), where tensors are not on the CPU, or with FEDGE_NATIVE=0, `at_hand` is False and callers use PyTorch's own
operators: the same numbers but for rounding, in more time (docs/error_maps.md). OpenMP is left out where the compiler
does not know it.
"""

import ctypes
import fcntl
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from contextlib import suppress
from functools import cache
from pathlib import Path

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor

from fedge.catalog import cache_folder

FOLDER = Path(__file__).parent
SOURCES = FOLDER / "channelwise.c", FOLDER / "direct_convolution.c"
HEADER = FOLDER / "native.h"
FLAGS = ("-std=gnu11", "-O3", "-march=native", "-shared", "-fPIC")
THREADS = ("-fopenmp",)
REAL = {torch.float32: "float", torch.float64: "double"}


def at_hand(tensor: Tensor) -> bool:
    """Whether there is a library for the numbers of this tensor here; a subclass of Tensor may have none.

    Fake tensors have shapes and no numbers: `call` has nothing to do for them (nor for those of the device "meta", as
    which operators see them), and they go the way that real ones go.
    """
    known = type(tensor) in (Tensor, nn.Parameter) or isinstance(tensor, FakeTensor)
    return (
        known and tensor.device.type == "cpu" and tensor.dtype in REAL and library(tensor.dtype) is not None
    )


def call(name: str, *arguments: Tensor | int | float | None) -> None:
    """The C function `name`: tensors as the addresses of their numbers, None as NULL, and the number of threads last.

    The first argument is a tensor of the library's type. Nothing is checked here: addresses are followed as they are.
    """
    if isinstance(arguments[0], FakeTensor) or arguments[0].is_meta:
        return
    function = getattr(library(arguments[0].dtype), name)
    if function.argtypes is None:
        function.argtypes, function.restype = [*map(_c_type, arguments), ctypes.c_int], None
    addresses = [a.data_ptr() if isinstance(a, Tensor) else a for a in arguments]
    function(*addresses, torch.get_num_threads())


def _c_type(argument: Tensor | int | float | None) -> type:
    if isinstance(argument, float):
        return ctypes.c_double
    return ctypes.c_int64 if isinstance(argument, int) else ctypes.c_void_p


@cache
def library(dtype: torch.dtype) -> ctypes.CDLL | None:
    """The compiled source for numbers of this type; None where it cannot be had."""
    compiler = shutil.which(os.environ.get("CC", "cc"))
    if compiler is None or os.environ.get("FEDGE_NATIVE") == "0":
        return None
    for flags in ((*FLAGS, *THREADS), FLAGS):
        try:
            return ctypes.CDLL(str(_compiled(compiler, (*flags, f"-DREAL={REAL[dtype]}"))))
        except (OSError, subprocess.SubprocessError):
            continue
    return None


def _compiled(compiler: str, flags: tuple[str, ...]) -> Path:
    """The library's file, made if it is not there; its name tells what it was made of, and for which processor."""
    texts = [file.read_text() for file in (HEADER, *SOURCES)]
    made_of = (compiler, *flags, *texts, platform.platform(), _processor())
    folder = cache_folder() / "native"
    path = folder / f"fedge-{hashlib.sha256(repr(made_of).encode()).hexdigest()[:16]}.so"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with open(folder / ".lock", "w") as lock:
            # Hosts that start together wait for the first; without locks in the file system each makes its own.
            with suppress(OSError):
                fcntl.flock(lock, fcntl.LOCK_EX)
            if not path.exists():
                _compile(compiler, flags, path)
    return path


def _compile(compiler: str, flags: tuple[str, ...], path: Path) -> None:
    with tempfile.TemporaryDirectory(dir=path.parent) as new:
        made = Path(new) / path.name
        command = [compiler, *flags, *map(str, SOURCES), "-o", str(made), "-lm"]
        subprocess.run(command, check=True, capture_output=True, timeout=60)
        made.replace(path)


def _processor() -> str:
    """What `-march=native` stands for: a cache folder may be shared by unlike machines."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line for line in lines if line.startswith(("flags", "Features"))), "")
