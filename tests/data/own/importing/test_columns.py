"""Labels and numbers brought by `fedge import`: columns of a table, a table of pictures' labels, arrays, a program."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from fedge.data.own.importing import import_arrays, import_images, import_program, import_table
from fedge.errors import UserError
from tests.data.own.folders import pictures


@pytest.fixture
def moments(tmp_path: Path) -> Path:
    """Two machines, 12 moments each, of two channels; power in W (a float), and two alarms that hold for a while."""
    rows = [
        (who, t, t + 100 * turn, -t, 0.5 * t + turn, int(t >= 6), int(t >= 3))
        for turn, who in enumerate("pq")
        for t in range(12)
    ]
    table = pd.DataFrame(rows, columns=["machine", "t", "a", "b", "power", "hot", "loud"])
    table.sample(frac=1, random_state=0).to_csv(tmp_path / "m.csv", index=False)
    return tmp_path / "m.csv"


def facts(folder: Path) -> tuple[str, list[str]]:
    said = json.loads((folder / "facts.json").read_text())
    return said["task"], said["classes"]


def test_a_window_has_the_numbers_of_its_last_moment(moments: Path, tmp_path: Path) -> None:
    """Breaks if targets leak from after the window, or if a target that changes cuts every window short."""
    out = tmp_path / "out"
    how = {"owner": "machine", "time": "t", "drop": ["hot", "loud"], "window": 4, "step": 2}
    import_table(moments, out, label=["power"], task="numbers", **how)
    assert facts(out) == ("numbers", ["power"])
    x, y, owner = (np.load(out / f"{name}.npy") for name in ("x", "y", "owner"))
    assert x.shape == (10, 2, 1, 4) and y.dtype == np.float32
    assert np.array_equal(y[:, 0], 0.5 * (x[:, 0, 0, -1] - 100 * owner) + owner)
    import_table(moments, tmp_path / "same", label="power", **how)  # a column of floats is a number
    assert np.array_equal(np.load(tmp_path / "same" / "y.npy"), y)


def test_windows_hold_one_set_of_labels(moments: Path, tmp_path: Path) -> None:
    """Breaks if a window that an alarm begins in is taken for one with, or without it."""
    out = tmp_path / "out"
    import_table(moments, out, label=["hot", "loud"], owner="machine", time="t", drop=["power"], window=3)
    assert facts(out) == ("labels", ["hot", "loud"])
    assert np.load(out / "y.npy").tolist() == [[0, 0], [0, 1], [1, 1], [1, 1]] * 2


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"label": ["power", "hot"]}, r"other values than 0 and 1 \(.* column 'power'\)"),
        ({"label": ["machine", "hot"], "drop": []}, "column 'machine' holds .*, no numbers"),
        ({"label": ["power", "cold"], "task": "numbers"}, "no column 'cold'"),
    ],
)
def test_columns_that_are_no_such_targets_are_refused(
    moments: Path, tmp_path: Path, how: dict, said: str
) -> None:
    """Breaks if a slip in the columns' names or kinds becomes another task in silence."""
    with pytest.raises(UserError, match=said) as refusal:
        import_table(moments, tmp_path / "out", **{"drop": ["machine"], **how})
    assert "\n" not in str(refusal.value) and not (tmp_path / "out").exists()


def label_table(folder: Path, *lines: str) -> Path:
    pictures(folder / "pics", count=4)
    (folder / "l.csv").write_text("\n".join(lines) + "\n")
    return folder / "l.csv"


def test_pictures_with_several_labels(tmp_path: Path) -> None:
    """Breaks if labels go to another picture, or pictures without a row come along unlabelled."""
    table = label_table(tmp_path, "file,furry,night", "owl/002.png,0,1", "cat/000.png,1,0", "dog/001.png,1,1")
    made = import_images(tmp_path / "pics", tmp_path / "out", labels=table)
    assert facts(tmp_path / "out") == ("labels", ["furry", "night"])
    assert np.load(tmp_path / "out/y.npy").tolist() == [[0, 1], [1, 0], [1, 1]]
    brightness = np.load(tmp_path / "out/x.npy").mean((1, 2, 3))
    assert brightness.argsort().tolist() == [1, 2, 0]  # cat, dog, owl
    assert made.notes[0].startswith("9 files were left out as not named in the table")


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (["file,a", "cat/000.png,2"], "label 'a' of 'cat/000.png' is '2'; 0 or 1 is wanted"),
        (["file,a", "cat/000.png,"], "label 'a' of 'cat/000.png' is 'nan'"),
        (["file,a", "cat/000.png,yes"], "is 'yes'; 0 or 1"),
        (["file,a", "cat/999.png,1"], "names 'cat/999.png', and there is no such file"),
        (["file,a", "cat/000.png,1", "cat/000.png,0"], "names 'cat/000.png' twice"),
        (["name,a", "cat/000.png,1"], "its first line is 'name,a', of 1 rows; file,LABEL,LABEL"),
        (["file", "cat/000.png"], "its first line is 'file'"),
    ],
)
def test_a_wrong_table_of_labels_is_refused(tmp_path: Path, lines: list[str], said: str) -> None:
    """Breaks if a slip in the table ends in a traceback, or in pictures with wrong labels."""
    table = label_table(tmp_path, *lines)
    with pytest.raises(UserError, match=said) as refusal:
        import_images(tmp_path / "pics", tmp_path / "out", labels=table)
    assert "\n" not in str(refusal.value) and not (tmp_path / "out").exists()


def test_arrays_and_programs_bring_them_too(tmp_path: Path) -> None:
    """Breaks if labels or numbers can be brought by one importer and not by another."""
    x = np.zeros((5, 2, 8), np.float32)
    np.savez(tmp_path / "a.npz", x=x, y=np.eye(5, 3, dtype=bool), classes=["a", "b", "c"])
    import_arrays(tmp_path / "a.npz", tmp_path / "labels")
    assert facts(tmp_path / "labels") == ("labels", ["a", "b", "c"])
    (tmp_path / "p.py").write_text(
        "import numpy as np\n\ndef rows():\n    for i in range(5):\n"
        "        yield np.zeros((2, 8), np.float32), [i, i / 2]\n"
    )
    import_program(tmp_path / "p.py", tmp_path / "numbers")
    assert facts(tmp_path / "numbers")[0] == "numbers"
    assert np.load(tmp_path / "numbers/y.npy").tolist() == [[i, i / 2] for i in range(5)]
