"""Messages between a host and its zygote, who trust each other: pickles with their length before them."""

import os
import pickle
import struct
from typing import Any

MOST_BYTES = 2**20  # of a child's answer, which is a report of a few kilobytes
_LENGTH = struct.Struct("<Q")


def send(descriptor: int, message: Any) -> None:
    """Write it whole."""
    raw = pickle.dumps(message, protocol=pickle.HIGHEST_PROTOCOL)
    raw = _LENGTH.pack(len(raw)) + raw
    while raw:
        raw = raw[os.write(descriptor, raw) :]


def receive(descriptor: int) -> Any:
    """The next message; None where there is none any more."""
    head = _exactly(descriptor, _LENGTH.size)
    if head is None:
        return None
    raw = _exactly(descriptor, _LENGTH.unpack(head)[0])
    return None if raw is None else pickle.loads(raw)


def _exactly(descriptor: int, count: int) -> bytes | None:
    pieces = []
    while count:
        piece = os.read(descriptor, min(count, 2**20))
        if not piece:
            return None
        pieces.append(piece)
        count -= len(piece)
    return b"".join(pieces)
