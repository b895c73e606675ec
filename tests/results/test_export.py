"""`fedge export`: what stands in a folder's results stands in the table, whatever program reads it."""

import json
import shutil
from pathlib import Path

import pandas
import pytest

READ = {"csv": pandas.read_csv, "parquet": pandas.read_parquet}


@pytest.fixture
def run(finished, tmp_path) -> Path:
    """A run in which one client's round failed, so that its row has no figures."""
    result = finished("faults.crash.at=[[1, 3]]")
    return Path(shutil.copytree(result.out, tmp_path / "run"))


@pytest.mark.parametrize("kind", READ)
def test_a_table_holds_every_report(fedge, run: Path, kind: str) -> None:
    """Breaks if a row or a figure is lost or changed on the way, or if a count becomes a fraction in parquet."""
    code, out, err = fedge("export", str(run), "--to", kind)
    path = run / f"reports.{kind}"
    assert (code, out.strip(), err) == (0, str(path), "")
    table = READ[kind](path)
    rows = [json.loads(line) for line in (run / "reports.jsonl").read_text().splitlines()]
    assert len(table) == len(rows) == 12
    for (_, got), row in zip(table.iterrows(), rows, strict=True):
        for name in ("round", "client", "device", "status"):
            assert got[name] == row[name]
        for name in ("test_correct", "macs_done", "time_s", "train_loss"):
            assert pandas.isna(got[name]) if name not in row else got[name] == row[name]
    assert sorted(table.columns) == sorted({key for row in rows for key in row})
    if kind == "parquet":
        assert str(table["macs_done"].dtype) == "Int64"
        assert list(table["epoch_loss"].iloc[0]) == rows[0]["epoch_loss"]


def test_a_table_goes_where_it_is_told(fedge, run: Path) -> None:
    """Breaks if --out is not taken, or its folder must be made by hand."""
    path = run.parent / "tables" / "mine.csv"
    assert fedge("export", str(run), "--to", "csv", "--out", str(path))[0] == 0
    assert len(pandas.read_csv(path)) == 12 and not list(run.glob("reports.csv*"))


def test_what_cannot_be_exported_is_told_in_a_line(fedge, run: Path, tmp_path: Path) -> None:
    """Breaks if a wrong folder, format or file ends in a traceback or leaves half a table."""
    (tmp_path / "empty").mkdir()
    with open(run / "reports.jsonl", "a") as log:
        log.write('{"round": 3, "cli')
    for arguments, says in {
        (str(tmp_path / "nowhere"), "--to", "csv"): "is no folder",
        (str(tmp_path / "empty"), "--to", "csv"): "holds no results",
        (str(run), "--to", "xlsx"): "csv, parquet",
        (str(run), "--to", "csv"): "line 13",
    }.items():
        code, out, err = fedge("export", *arguments)
        assert (code, out) == (2, "") and says in err and len(err.splitlines()) == 1
    assert not list(run.glob("*.csv*"))
