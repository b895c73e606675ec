"""Canaries are found in every form that a leak may take, and nowhere else."""

import base64
import bz2
import gzip
import io
import json
import lzma
import pickle
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest

from fedge.audit.forms import LEAST_BYTES, patterns
from fedge.audit.search import Matcher, search, search_file
from fedge.data.digests import damage


def zipped(data: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("row.bin", data)
    return out.getvalue()


LEAKS = {
    "raw": lambda run: run.stored.tobytes(),
    "pickled": lambda run: pickle.dumps(run.stored),
    "half of it": lambda run: run.stored[3 : 3 + max(13, len(run.stored) // 2)].tobytes(),
    "float64": lambda run: run.stored.astype("f8").tobytes(),
    "float16": lambda run: run.stored.astype("f2").tobytes(),
    "bytes": lambda run: run.codes.astype("u1").tobytes(),
    "hex": lambda run: run.codes.astype("u1").tobytes().hex().encode(),
    "hex of raw": lambda run: run.stored.tobytes().hex().upper().encode(),
    "base64": lambda run: base64.b64encode(b"?" + run.stored.tobytes()),
    "base64 for addresses": lambda run: base64.urlsafe_b64encode(b"??" + run.codes.astype("u1").tobytes()),
    "json": lambda run: json.dumps(run.stored.tolist()).encode(),
    "whole numbers": lambda run: " ".join(map(str, run.codes)).encode(),
    "four decimals": lambda run: "\n".join(f"{value:.4f}" for value in run.stored).encode(),
    "a print of bytes": lambda run: repr(run.codes.astype("u1").tobytes()).encode(),
    "zlib": lambda run: zlib.compress(run.stored.tobytes(), 9),
    "gzip of json": lambda run: gzip.compress(json.dumps(run.stored.tolist()).encode()),
    "bzip2": lambda run: bz2.compress(run.stored.tobytes()),
    "xz": lambda run: lzma.compress(run.stored.tobytes()),
    "zip": lambda run: zipped(run.stored.tobytes()),
    "base64 of zlib": lambda run: base64.b64encode(zlib.compress(run.stored.tobytes())),
    "hex of gzip": lambda run: gzip.compress(run.stored.tobytes()).hex().encode(),
}


@pytest.mark.parametrize("dtype", ["float32", "uint8"])
def test_a_token_is_found_in_every_form(planted, dtype: str) -> None:
    """Breaks if a client's row may lie in a log in one of these forms and the audit calls the run clean."""
    token = planted(dtype=dtype).runs[0]
    matcher = Matcher(patterns((token,)))
    for how, leak in LEAKS.items():
        for before in (b"", b"x" * 7, b"\x00" * 64):
            hits = search(before + leak(token) + b"\n tail", matcher)
            assert {hit.canary for hit in hits} == {"token"}, (how, before)


@pytest.mark.parametrize("shape", [(1, 16, 16), (3, 8, 8), (6, 1, 128)])
def test_all_that_is_planted_is_found_where_it_is_and_nowhere_else(planted, tmp_path: Path, shape) -> None:
    """Breaks if a canary is not in the data at all, so that nothing could ever be found, or is found by chance."""
    found = planted(shape=shape)
    matcher = Matcher(patterns(found.runs))
    assert found.client == 1 and found.names == ("token", "patch", "labels")
    shards = tmp_path / "data" / "shards"
    there = {hit.canary for name in ("x", "y") for hit in search_file(shards / f"{name}.npy", matcher)[0]}
    assert there == set(found.names)
    assert damage(tmp_path / "data") is None
    others = Matcher(patterns(planted(seed=1, shape=shape).runs))
    assert not search_file(shards / "meta.json", matcher)[0]
    assert not search(np.random.default_rng(3).bytes(300_000), others)
    assert all(len(pattern) >= LEAST_BYTES for pattern in patterns(found.runs))


def test_pixel_by_pixel_pictures_are_found(planted) -> None:
    """Breaks if a patch that is written as a picture file has it, colours side by side, is missed."""
    found = planted(dtype="uint8", shape=(3, 8, 8))
    lines = [run.stored for run in found.runs if run.canary == "patch"][:24]
    picture_HWC = np.stack(lines).reshape(3, 8, 8).transpose(1, 2, 0)
    assert search(picture_HWC.tobytes(), Matcher(patterns(found.runs)))


def test_what_lies_across_two_pieces_of_a_file_is_found(planted, tmp_path: Path) -> None:
    """Breaks if large files are searched with gaps."""
    token, piece_bytes = planted().runs[0], 1 << 14
    with open(tmp_path / "large", "wb") as file:
        file.seek(piece_bytes - 20)
        file.write(token.codes.astype("u1").tobytes())
    hits, size = search_file(tmp_path / "large", Matcher(patterns((token,))), piece_bytes)
    assert hits and size == piece_bytes - 20 + len(token.codes)
    assert search_file(tmp_path / "gone", Matcher(patterns((token,)))) == (set(), 0)
