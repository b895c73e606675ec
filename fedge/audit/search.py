"""Looks for many byte patterns at once in whatever amount of data; inflates and decodes what it meets on the way."""

import base64
import binascii
import bz2
import lzma
import zlib
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedge.audit.forms import LEAST_BYTES

PIECE_BYTES = 1 << 24
_WORDS = LEAST_BYTES // 2
_MOST_INFLATED = 1 << 24
_FED_BYTES = 1 << 12
_DEPTH = 2  # a stream within a stream, and no further

_MAGIC = (
    b"\x78\x01",
    b"\x78\x5e",
    b"\x78\x9c",
    b"\x78\xda",
    b"\x1f\x8b\x08",
    b"PK\x03\x04",
    b"BZh",
    b"\xfd7zXZ\x00",
)
_LEAST_TEXT = (
    64  # characters of base64 or hex in a row that are decoded; what is shorter is a pattern of its own
)


def _table(characters: bytes) -> NDArray[np.bool_]:
    table = np.zeros(256, bool)
    table[list(characters)] = True
    return table


_HEX = _table(b"0123456789abcdefABCDEF")
_BASE64 = _table(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/-_")


@dataclass(frozen=True, order=True)
class Hit:
    """A canary that was found, in which form; `within`: what it was unpacked from, "" where it lay open."""

    canary: str
    form: str
    within: str = ""


class Matcher:
    """Finds any of the patterns, each of LEAST_BYTES or more, at about the speed of reading, however many they are.

    The first eight bytes of every pattern are four words of two bytes; of each place's four words a table says whether
    any pattern has it there, and the few places where all do are looked at one by one.
    """

    def __init__(self, patterns: Mapping[bytes, tuple[str, str]]) -> None:
        self._patterns = patterns
        self._by_start: dict[bytes, list[bytes]] = defaultdict(list)
        self._tables = np.zeros((_WORDS, 1 << 16), bool)
        for pattern in patterns:
            self._by_start[pattern[:LEAST_BYTES]].append(pattern)
            self._tables[np.arange(_WORDS), np.frombuffer(pattern, "<u2", _WORDS)] = True
        self.longest = max(map(len, patterns), default=0)

    def find(self, data: bytes) -> set[tuple[str, str]]:
        """(canary, form) of all that lies open in `data`."""
        found = set()
        for start in self._starts(data):
            for pattern in self._by_start.get(data[start : start + LEAST_BYTES], ()):
                if data.startswith(pattern, start):
                    found.add(self._patterns[pattern])
        return found

    def _starts(self, data: bytes) -> Iterator[int]:
        for shift in (0, 1):
            count = (len(data) - shift) // 2
            if count < _WORDS:
                continue
            words = np.frombuffer(data, "<u2", count, shift)
            maybe = np.flatnonzero(self._tables[0][words[: count - _WORDS + 1]])
            for place in range(1, _WORDS):
                maybe = maybe[self._tables[place][words[maybe + place]]]
            yield from (2 * maybe + shift).tolist()


def search(data: bytes, matcher: Matcher, *, within: str = "", depth: int = _DEPTH) -> set[Hit]:
    """What of the secrets is in `data`, open, inflated or decoded."""
    hits = {Hit(canary, form, within) for canary, form in matcher.find(data)}
    if depth:
        for kind, inner in unpacked(data):
            hits |= search(inner, matcher, within=f"{within}{kind}, ", depth=depth - 1)
    return hits


def unpacked(data: bytes) -> Iterator[tuple[str, bytes]]:
    """Every stream of zlib, gzip, zip, bzip2 and xz, and every long run of base64 and hex; (kind, contents)."""
    for start in _streams(data):
        kind, inner = _inflated(data, start)
        if len(inner) >= LEAST_BYTES:
            yield kind, inner
    for text in _runs(data, _BASE64):
        for start in range(4):  # other text may stand before it without a gap
            whole = text[start : start + (len(text) - start) // 4 * 4].translate(_STANDARD)
            with suppress(binascii.Error):
                yield "base64", base64.b64decode(whole)
    for text in _runs(data, _HEX):
        for start in range(2):
            yield "hex", bytes.fromhex(text[start : start + (len(text) - start) // 2 * 2].decode())


def _streams(data: bytes) -> Iterator[int]:
    """Where a compressed stream may begin."""
    for shift in (0, 1):
        words = np.frombuffer(data, "<u2", (len(data) - shift) // 2, shift)
        for place in np.flatnonzero(_BEGINS[words]).tolist():
            if data.startswith(_MAGIC, 2 * place + shift):
                yield 2 * place + shift


_BEGINS = np.zeros(1 << 16, bool)
_BEGINS[[int.from_bytes(magic[:2], "little") for magic in _MAGIC]] = True
_STANDARD = bytes.maketrans(b"-_", b"+/")


def _runs(data: bytes, table: NDArray[np.bool_]) -> Iterator[bytes]:
    """Every stretch of _LEAST_TEXT or more of a table's characters. (By tables: regular expressions take a second per
    megabyte for it.)"""
    fits = table[np.frombuffer(data, np.uint8)]
    edges = np.flatnonzero(np.diff(fits, prepend=False, append=False))
    starts, ends = edges[::2], edges[1::2]
    for place in np.flatnonzero(ends - starts >= _LEAST_TEXT):
        yield data[starts[place] : ends[place]]


def _inflated(data: bytes, start: int) -> tuple[str, bytes]:
    """As much as can be read of the stream that may begin there; nothing where it is none."""
    magic = data[start : start + 2]
    if magic == b"\x1f\x8b":
        return "gzip", _read(zlib.decompressobj(31), data, start)
    if magic == b"PK":
        name, extra = (int.from_bytes(data[start + at : start + at + 2], "little") for at in (26, 28))
        return "zip", _read(zlib.decompressobj(-15), data, start + 30 + name + extra)
    if magic == b"BZ":
        return "bzip2", _read(bz2.BZ2Decompressor(), data, start)
    if magic == b"\xfd7":
        return "xz", _read(lzma.LZMADecompressor(), data, start)
    return "zlib", _read(zlib.decompressobj(), data, start)


def _read(stream: Any, data: bytes, start: int) -> bytes:
    """What comes out before the stream ends or turns out to be none. Small pieces: most are none."""
    out = bytearray()
    with suppress(zlib.error, OSError, lzma.LZMAError, EOFError):
        for place in range(start, len(data), _FED_BYTES):
            out += stream.decompress(data[place : place + _FED_BYTES])
            if stream.eof or len(out) > _MOST_INFLATED:
                break
    return bytes(out[:_MOST_INFLATED])


def search_file(path: Path, matcher: Matcher, piece_bytes: int = PIECE_BYTES) -> tuple[set[Hit], int]:
    """What is in a file, and how many bytes were looked at. A file that has gone meanwhile holds nothing."""
    hits: set[Hit] = set()
    size, rest = 0, b""
    with suppress(OSError), open(path, "rb") as file:
        while piece := file.read(piece_bytes):
            size += len(piece)
            hits |= search(rest + piece, matcher)
            rest = piece[-matcher.longest :]
    return hits, size
