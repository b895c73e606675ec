"""Discrete Gaussian noise: whole numbers, P(x) in proportion to exp(-x**2 / (2 sigma**2)), from opendp.

Its chance is the operating system's, never the run's `seed`: who knows the seed must not know the noise. Tests alone
may ask for another, by the environment variable `FEDGE_NOISE_FOR_TESTS`; a run that was made so says that it hides
nothing.
"""

import functools
import math
import os
import random
from collections.abc import Callable
from typing import Any

from fedge.errors import UserError
from fedge.privacy.noise.budget import missing

FOR_TESTS = "FEDGE_NOISE_FOR_TESTS"

Draw = Callable[[int], list[int]]


def gaussian(sigma: float) -> Draw:
    """A function of how many numbers are wanted. UserError where opendp is not installed."""
    seed = os.environ.get(FOR_TESTS)
    if seed is not None:
        return _foreseen(sigma, random.Random(seed))
    measurement = _measurement(sigma)
    return lambda count: [int(number) for number in measurement([0] * count)]


def is_foreseen() -> bool:
    """Whether the noise of this process comes from a seed, for tests."""
    return FOR_TESTS in os.environ


@functools.lru_cache(maxsize=4)
def _measurement(sigma: float) -> Any:
    try:
        import opendp.prelude as opendp
    except ImportError as error:
        raise UserError(missing("opendp", error)) from None
    opendp.enable_features("contrib")
    space = opendp.vector_domain(opendp.atom_domain(T="i64")), opendp.l2_distance(T="f64")
    return opendp.m.make_gaussian(*space, sigma)


def _foreseen(sigma: float, generator: random.Random) -> Draw:
    return lambda count: [math.floor(generator.gauss(0.0, sigma) + 0.5) for _ in range(count)]
