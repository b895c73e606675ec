"""MNIST's file format (IDX): a header of big-endian numbers, then bytes; plain, or packed by gzip.

bytes 0, 1    zero
byte 2        type of the values; 8: unsigned byte, the only one that is read here
byte 3        number of dimensions D
4 D bytes     their sizes, then the values
"""

import gzip
import struct
import zlib
from pathlib import Path

import numpy as np

from fedge.errors import UserError

_UNSIGNED_BYTE = 8


def read_idx(folder: Path, name: str, *, dimensions: int, who: str) -> np.ndarray:
    """The array [...] uint8 in `folder`/`name`, else in `name`.gz beside it.

    UserError, with the reason and `who`'s data it is: neither is there; not of this format; cut short.
    """
    plain, packed = folder / name, folder / f"{name}.gz"
    path = plain if plain.is_file() or not packed.is_file() else packed
    if not path.is_file():
        raise UserError(f"{who}: {folder} holds no {name}, nor {name}.gz{_what_else(folder, name)}")
    try:
        content = path.read_bytes()
        if content[:2] == b"\x1f\x8b":  # packed, whatever its name
            content = gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise UserError(f"{who}: {path} cannot be read ({reason}): put it there anew") from None
    return _parse(content, path, dimensions, who)


def _parse(content: bytes, path: Path, dimensions: int, who: str) -> np.ndarray:
    begins = 4 + 4 * dimensions
    if content[:4] != bytes((0, 0, _UNSIGNED_BYTE, dimensions)) or len(content) < begins:
        raise UserError(
            f"{who}: {path} is no file of MNIST's format ({_what_it_is(content)}): put it there anew"
        )
    sizes = struct.unpack(f">{dimensions}I", content[4:begins])
    wanted = begins + int(np.prod(sizes, dtype=object))
    if len(content) != wanted:
        shape = " x ".join(map(str, sizes))
        raise UserError(
            f"{who}: {path} holds {len(content):,} bytes and should, for {shape}, hold {wanted:,}: put it there anew"
        )
    return np.frombuffer(content, np.uint8, offset=begins).reshape(sizes)


def _what_it_is(content: bytes) -> str:
    head = content[:64].lstrip()
    if not content:
        return "it is empty"
    if head[:1] == b"<":
        return "it is a saved web page"
    if head[:2] == b"PK":
        return "it is a zip archive: unpack it"
    if content[:3] == bytes((0, 0, _UNSIGNED_BYTE)) and len(content) > 3:
        return f"it holds {content[3]}-dimensional data: are pictures and labels mixed up?"
    return f"it begins with the bytes {content[:8].hex(' ')}"


def _what_else(folder: Path, name: str) -> str:
    """What lies there instead: a name that is nearly right is the likely slip."""
    there = sorted(path.name for path in folder.iterdir() if path.is_file())
    alike = [other for other in there if _letters(other.removesuffix(".gz")) == _letters(name)]
    if alike:
        return f": rename {alike[0]}"
    listed = f" (there are {', '.join(there[:6])})" if there else " (it is empty)"
    return f"{listed}: put it there"


def _letters(name: str) -> str:
    return "".join(letter for letter in name.lower() if letter.isalnum())
