"""The shapes in which a secret may lie somewhere: raw, as numbers of other widths, as text, hex, base64."""

import base64
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from fedge.audit.canaries import Run

LEAST_BYTES = 8  # of a pattern: shorter ones are found anywhere by chance
_WINDOW_BITS = 62.0  # what a window of a secret must tell

_BINARY = {"float32": "<f4", "float16": "<f2", "float64": "<f8", "float32, big-endian": ">f4"}
_WHOLE = {"int32": "<i4", "int64": "<i8"}
_BETWEEN = (", ", ",", " ", "\n")


def patterns(runs: tuple[Run, ...]) -> dict[bytes, tuple[str, str]]:
    """Bytes -> (canary, form) of every part of the secrets that is long enough to be nobody else's, in every form."""
    found: dict[bytes, tuple[str, str]] = {}
    for run in runs:
        for part in windows(run):
            for pattern, form in forms(part):
                if len(pattern) >= LEAST_BYTES:
                    found.setdefault(pattern, (run.canary, form))
    return found


def windows(run: Run) -> Iterator[Run]:
    """Overlapping parts of a secret, so that any part half as long again is found; one that is too short is one."""
    count = min(len(run.codes), int(np.ceil(_WINDOW_BITS / np.log2(run.choices))))
    step = max(1, count // 2)
    for start in range(0, len(run.codes) - count + 1, step):
        yield run.part(start, count)


def forms(run: Run) -> Iterator[tuple[bytes, str]]:
    """(bytes, name of the form)."""
    small = run.codes.astype(np.uint8).tobytes()
    raw = {"as stored": run.stored.tobytes(), "bytes": small}
    for scale, values in run.scales.items():
        for name, dtype in _BINARY.items():
            raw[f"{name} ({scale})"] = values.astype(dtype).tobytes()
    for name, dtype in _WHOLE.items():
        raw[name] = run.codes.astype(dtype).tobytes()
    for form, data in raw.items():
        yield data, form
    for form in ("as stored", "bytes", *(f"float32 ({scale})" for scale in run.scales)):
        yield from _encoded(raw[form], form)
    yield from _text(run)


def _encoded(data: bytes, form: str) -> Iterator[tuple[bytes, str]]:
    yield data.hex().encode(), f"hex of {form}"
    yield data.hex().upper().encode(), f"hex of {form}"
    yield data.hex(" ").encode(), f"hex of {form}"
    yield repr(data)[2:-1].encode(), f"escaped text of {form}"
    for ahead in range(3):  # where it begins within three bytes decides how it is written
        text = base64.b64encode(bytes(ahead) + data)
        inner = text[-(-ahead * 8 // 6) : len(text) - 4]
        yield inner, f"base64 of {form}"
        yield inner.translate(bytes.maketrans(b"+/", b"-_")), f"base64 of {form}"


def _text(run: Run) -> Iterator[tuple[bytes, str]]:
    for between in _BETWEEN:
        yield between.join(map(str, run.codes)).encode(), "text of whole numbers"
        for scale, values in run.scales.items():
            for written in _written(values):
                yield between.join(written).encode(), f"text ({scale})"
    if run.choices <= 10:
        yield "".join(map(str, run.codes)).encode(), "text of digits"


def _written(values: NDArray[np.float64]) -> Iterator[list[str]]:
    """Numbers as Python, numpy and a person's format write them."""
    yield [repr(float(value)) for value in values]
    yield [str(value) for value in values.astype(np.float32)]
    yield [repr(float(value)) for value in values.astype(np.float32)]
    yield [f"{value:.4f}" for value in values]
