"""What chance decides about one frame: a function of a key and of the frame's number, so that nothing need be kept.

A generator would have to be wound on to the frame; a hash need not. Number n under key k is the n-th output of
splitmix64 (Steele, Lea, Flood, OOPSLA 2014) begun at k:

    z = k + (n + 1) * 0x9E3779B97F4A7C15,  then mixed            all modulo 2^64

Shapes: F frames, D numbers for each of them.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

_STEP = np.uint64(0x9E3779B97F4A7C15)
_BYTES = 4  # summed for a normal number: their sum is within 1 % of its distribution
_BYTES_MEAN, _BYTES_STD = _BYTES * 127.5, (_BYTES * (256**2 - 1) / 12) ** 0.5


def draws(key: int, number_F: NDArray[Any]) -> NDArray[np.uint64]:
    """64 random bits for each number."""
    z = np.uint64(key) + (number_F.astype(np.uint64) + np.uint64(1)) * _STEP
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: NDArray[np.uint64] = z ^ (z >> np.uint64(31))
    return mixed


def shares(key: int, number_F: NDArray[np.integer]) -> NDArray[np.float64]:
    """Uniform in [0, 1) for each number."""
    uniform_F: NDArray[np.float64] = (draws(key, number_F) >> np.uint64(11)).astype(np.float64)
    return uniform_F * 2.0**-53


def normal(key: int, number_F: NDArray[np.integer], count: int) -> NDArray[np.float32]:
    """`count` numbers for each [F, count], of mean 0 and deviation 1: sums of four uniform bytes."""
    per_draw = 8 // _BYTES
    length = -(-count // per_draw)
    counter_FD = number_F.astype(np.uint64)[:, None] * np.uint64(length) + np.arange(length, dtype=np.uint64)
    bytes_FD4 = draws(key, counter_FD).astype("<u8").view(np.uint8).reshape(len(number_F), -1, _BYTES)
    sum_FD = bytes_FD4.sum(2, dtype=np.float32)[:, :count]
    scaled: NDArray[np.float32] = (sum_FD - np.float32(_BYTES_MEAN)) / np.float32(_BYTES_STD)
    return scaled
