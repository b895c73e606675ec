"""`fedge import table | arrays | program`."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from fedge.data.own.importing import import_arrays, import_program, import_table
from fedge.errors import UserError


@pytest.fixture
def windows(tmp_path: Path) -> Path:
    """Two people's windows of 2 channels x 3 moments."""
    rows = [[*range(i, i + 6), "walk" if i % 2 else "sit", "pq"[i // 3], 10 - i] for i in range(6)]
    table = pd.DataFrame(rows, columns=[*[f"v{j}" for j in range(6)], "activity", "person", "t"])
    table.to_csv(tmp_path / "w.csv", index=False)
    return tmp_path / "w.csv"


def test_a_row_is_a_window(windows: Path, tmp_path: Path) -> None:
    """Breaks if numbers go to the wrong channel, or owners and times to other samples."""
    import_table(windows, tmp_path / "out", label="activity", owner="person", time="t", shape=(2, 3))
    assert np.load(tmp_path / "out/x.npy")[1].tolist() == [[[1, 2, 3]], [[4, 5, 6]]]
    assert np.load(tmp_path / "out/y.npy").tolist() == [0, 1, 0, 1, 0, 1]
    assert np.load(tmp_path / "out/owner.npy").tolist() == [0, 0, 0, 1, 1, 1]
    assert np.load(tmp_path / "out/order.npy").tolist() == [2, 1, 0, 2, 1, 0]


def test_windows_are_cut_within_one_owner_and_label(tmp_path: Path) -> None:
    """Breaks if a window holds two people's or two activities' moments."""
    table = pd.DataFrame(
        {"a": range(12), "b": range(100, 112), "y": [0] * 5 + [1] * 7, "who": [0] * 8 + [1] * 4}
    )
    table.to_parquet(tmp_path / "m.parquet")
    import_table(tmp_path / "m.parquet", tmp_path / "out", label="y", owner="who", window=2, step=2)
    assert np.load(tmp_path / "out/x.npy")[:, 0, 0].tolist() == [[0, 1], [2, 3], [5, 6], [8, 9], [10, 11]]
    assert np.load(tmp_path / "out/y.npy").tolist() == [0, 0, 1, 1, 1]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"label": "activty"}, "no column 'activty'"),
        ({"shape": (2, 4)}, "shape is 2,4"),
        ({"owner": None}, "column 'person' holds"),
        ({"window": 9}, "no recording is as long"),
        ({"window": 0}, "window is 0"),
    ],
)
def test_wrong_tables_are_refused_in_a_line(windows: Path, tmp_path: Path, change: dict, said: str) -> None:
    """Breaks if a slip in a column's name ends in a traceback of pandas."""
    how = {"label": "activity", "owner": "person", "time": "t", "shape": (2, 3)} | change
    with pytest.raises(UserError, match=said) as refusal:
        import_table(windows, tmp_path / "out", **how)
    assert "\n" not in str(refusal.value) and not (tmp_path / "out").exists()


def test_an_archive_of_arrays(tmp_path: Path) -> None:
    """Breaks if a name in the archive is lost without a word."""
    x = np.zeros((4, 3, 7), np.float32)
    np.savez(tmp_path / "a.npz", x=x, y=[0, 1, 0, 1], owner=[5, 5, 9, 9], subject=[1, 1, 2, 2])
    made = import_arrays(tmp_path / "a.npz", tmp_path / "out")
    assert np.load(tmp_path / "out/x.npy").shape == (4, 3, 1, 7)
    assert "subject" in made.notes[0]
    np.savez(tmp_path / "b.npz", images=x)
    with pytest.raises(UserError, match="no 'x'"):
        import_arrays(tmp_path / "b.npz", tmp_path / "other")
    (tmp_path / "c.npz").write_bytes(b"not a zip")
    with pytest.raises(UserError, match=r"no \.npz"):
        import_arrays(tmp_path / "c.npz", tmp_path / "other")


def test_a_program_yields_samples(tmp_path: Path) -> None:
    """Breaks if a generator's samples, owners or times are mixed up."""
    (tmp_path / "mine.py").write_text(
        "import numpy\ndef rows():\n    for i in range(4):\n"
        "        yield numpy.full((2, 3), i, 'float32'), 'ab'[i % 2], 'me', -i\n"
    )
    import_program(tmp_path / "mine.py", tmp_path / "out")
    assert np.load(tmp_path / "out/x.npy")[:, 0, 0, 0].tolist() == [0, 1, 2, 3]
    assert np.load(tmp_path / "out/order.npy").tolist() == [3, 2, 1, 0]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x = 1", "no function rows"),
        ("def rows():\n    return []", "yielded nothing"),
        ("def rows():\n    yield 1", "yielded int as row 0"),
        ("def rows():\n    raise KeyError('lost')", "raised KeyError on line 2"),
        ("import not_installed", "raised ModuleNotFoundError on line 1"),
        ("def rows(:", "raised SyntaxError"),
        ("raise SystemExit(3)", "raised SystemExit"),
    ],
)
def test_a_wrong_program_is_explained(tmp_path: Path, text: str, said: str) -> None:
    """Breaks if a slip in a person's program is answered with fedge's own traceback."""
    (tmp_path / "mine.py").write_text(text)
    with pytest.raises(UserError, match=said):
        import_program(tmp_path / "mine.py", tmp_path / "out")
