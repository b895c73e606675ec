"""A folder that is no longer what was written."""

import json
import os

import pytest

from fedge.data.digests import NAME, damage, write_digests


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "x.npy").write_bytes(bytes(range(256)) * 40)
    (tmp_path / "facts.json").write_text("{}")
    write_digests(tmp_path)
    return tmp_path


def test_an_untouched_folder_is_whole_wherever_it_lies(folder, tmp_path):
    """Every run would prepare its data anew."""
    assert damage(folder) is None
    moved = folder.rename(tmp_path.with_name(tmp_path.name + "-moved"))
    assert damage(moved) is None


def test_every_kind_of_damage_is_found(folder):
    """A run would train on half a file, or from altered weights."""
    path = folder / "inner" / "x.npy"
    whole = path.read_bytes()
    for content in (whole[:-1], whole + b"0", whole[:70] + b"\0" + whole[71:], b""):
        path.write_bytes(content)
        assert damage(folder) == "inner/x.npy has changed"
    path.unlink()
    assert damage(folder) == "inner/x.npy is missing"


@pytest.mark.parametrize("content", ["", "{}", "[]", "{", '"text"', "null"])
def test_digests_that_say_nothing_are_damage(folder, content):
    """A folder would be believed because nothing is said against it."""
    (folder / NAME).write_text(content)
    assert NAME in damage(folder)


def test_the_digests_themselves_may_be_damaged(folder):
    """As above: one changed letter, or the file cut short."""
    digests = json.loads((folder / NAME).read_text())
    (folder / NAME).write_text(json.dumps(digests | {"facts.json": "0" * 32}))
    assert damage(folder) == "facts.json has changed"
    os.truncate(folder / NAME, 20)
    assert NAME in damage(folder)
