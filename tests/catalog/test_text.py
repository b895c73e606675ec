"""Files as editors leave them: marks and encodings."""

import codecs
from pathlib import Path

import pytest

from fedge.catalog.text import read_program, read_text
from fedge.errors import UserError

TEXT = 'name = "Grüße"\n'
WRONG = {
    "UTF-16": TEXT.encode("utf-16"),
    "UTF-32": codecs.BOM_UTF32_LE + TEXT.encode("utf-32-le"),
    "no text, or UTF-16": TEXT.encode("utf-16-be"),
    "line 2 is not UTF-8 (byte 0xfc, Latin-1 perhaps)": b"# first\n" + TEXT.encode("latin-1"),
}


@pytest.mark.parametrize(
    "data", [TEXT.encode(), codecs.BOM_UTF8 + TEXT.encode(), TEXT.replace("\n", "\r\n").encode()]
)
def test_marks_and_line_ends_are_no_matter(tmp_path: Path, data: bytes) -> None:
    """Breaks if a file that a Windows editor saved is refused or read with an invisible character."""
    (tmp_path / "x").write_bytes(data)
    assert read_text(tmp_path / "x") == read_program(tmp_path / "x") == TEXT


@pytest.mark.parametrize("what", WRONG)
@pytest.mark.parametrize("read", [read_text, read_program])
def test_other_encodings_are_named_in_one_line(tmp_path: Path, what: str, read: object) -> None:
    """Breaks if a person gets a UnicodeDecodeError, or text that is not theirs."""
    (tmp_path / "x").write_bytes(WRONG[what])
    with pytest.raises(UserError) as caught:
        read(tmp_path / "x")  # type: ignore[operator]
    assert what in str(caught.value)
    assert "save it as UTF-8" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_program_may_name_its_encoding(tmp_path: Path) -> None:
    """Breaks if a program that Python runs is refused."""
    (tmp_path / "x.py").write_bytes("# -*- coding: latin-1 -*-\nname = 'Grüße'\n".encode("latin-1"))
    assert "Grüße" in read_program(tmp_path / "x.py")
    (tmp_path / "x.py").write_bytes(b"# coding: no-such-thing\n")
    assert "no-such-thing" in read_program(tmp_path / "x.py")  # its host says what is wrong with it


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    """Breaks if a missing file is a traceback."""
    with pytest.raises(UserError, match="none: cannot be read: No such file"):
        read_text(tmp_path / "none")
