"""The surroundings in which a network's own code runs: quiet, seeded, in bounded time, leaving nothing behind."""

import contextlib
import io
import random
import signal
import threading
from collections.abc import Iterator

import numpy as np
import torch

from fedge.engine.programs.modules import installed_only

LIMIT_S = 300.0  # for building a network and running it a few times on a batch


@contextlib.contextmanager
def sandboxed(seed: int) -> Iterator[None]:
    """What is printed goes nowhere; random numbers come from `seed`; afterwards all is as it was.

    That is: the states of torch's (the CPU's), NumPy's and Python's generators, torch's threads and its default dtype.
    """
    python, numpy = random.getstate(), np.random.get_state()
    threads, dtype = torch.get_num_threads(), torch.get_default_dtype()
    nowhere = io.StringIO()
    try:
        with (
            contextlib.redirect_stdout(nowhere),
            contextlib.redirect_stderr(nowhere),
            torch.random.fork_rng(devices=[]),
            installed_only(),
        ):
            torch.default_generator.manual_seed(seed)
            np.random.seed(seed % 2**32)
            random.seed(seed)
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)
        torch.set_default_dtype(dtype)


@contextlib.contextmanager
def bounded_time() -> Iterator[None]:
    """TimeoutError, after `LIMIT_S`, from within what takes longer.

    There is no limit outside the main thread, nor where somebody else has set the process's one alarm.
    """
    if threading.current_thread() is not threading.main_thread() or signal.getitimer(signal.ITIMER_REAL)[0]:
        yield
        return

    seconds = LIMIT_S

    def ring(*_: object) -> None:
        raise TimeoutError(f"not done after {seconds:g} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
