"""Texts that people write: UTF-8, with or without the byte-order mark of some editors; anything else is named."""

import codecs
import io
import tokenize
from pathlib import Path

from fedge.errors import UserError

_OTHER_MARKS = {
    codecs.BOM_UTF32_LE: "UTF-32",  # begins like UTF-16's, so it comes first
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}


def read_text(path: Path) -> str:
    """The file's text without a byte-order mark, its lines ending in \\n. UserError where it is not UTF-8."""
    return _decoded(path, _bytes(path), "utf-8")


def read_program(path: Path) -> str:
    """The same for a Python file, which may name an encoding of its own in its first lines."""
    data = _bytes(path)
    _refuse_other_marks(path, data)
    try:
        encoding, _ = tokenize.detect_encoding(io.BytesIO(data).readline)
    except SyntaxError:  # no such encoding, or a text that is not UTF-8
        encoding = "utf-8"
    return _decoded(path, data, encoding)


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None


def _refuse_other_marks(path: Path, data: bytes) -> None:
    for mark, name in _OTHER_MARKS.items():
        if data.startswith(mark):
            raise UserError(f"{path}: cannot be read: it is {name} text; save it as UTF-8")
    if b"\0" in data:
        raise UserError(f"{path}: cannot be read: it is no text, or UTF-16; save it as UTF-8 text")


def _decoded(path: Path, data: bytes, encoding: str) -> str:
    _refuse_other_marks(path, data)
    try:
        text = data.decode("utf-8" if encoding == "utf-8-sig" else encoding)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UserError(
            f"{path}: cannot be read: line {line} is not UTF-8 (byte 0x{data[error.start]:02x}, Latin-1 perhaps); "
            "save it as UTF-8"
        ) from None
    return text.lstrip("\ufeff").replace("\r\n", "\n")
