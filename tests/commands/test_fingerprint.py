"""`fedge fingerprint`, and `fedge plan` with what it wrote."""

import json
from pathlib import Path

import pytest

from fedge.catalog.fingerprint import parse_fingerprint
from fedge.training.time import sample
from fedge.training.time.sample import Cell
from tests.device.time.fingerprints import written


@pytest.fixture
def little(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sample of a second."""
    cells = [
        Cell(name, level, batch) for name in ("har_cnn", "lenet") for level in (0.0, 0.5) for batch in (4, 8)
    ]
    monkeypatch.setattr(sample, "cells", lambda quick: cells)


@pytest.mark.slow
def test_a_machine_is_learnt_and_written_down(little: None, fedge, tmp_path: Path) -> None:
    """Breaks if the command does not write what a device can be made of, or does not say how good it is."""
    out = tmp_path / "mine.json"
    probed = ("--probe", "quickstart")
    code, said, _ = fedge("fingerprint", "--quick", "--out", str(out), *probed)
    assert code == 0 and "width off in the mean, on what is held out: levels" in said
    table = json.loads(out.read_text())
    assert parse_fingerprint(out.read_text()).predictor == "width"
    assert [row[0] for row in table["measured"]].count("own") == 6
    assert set(table["errors"]) == {"width", "trees", "noise"}
    code, _, refused = fedge("fingerprint", "--quick", "--out", str(out))
    assert code == 2 and refused.count("\n") == 1 and "is there already" in refused


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--predictor", "forest"), "take width or trees"),
        (("--out", "/nowhere/at/all.json"), "there is no folder"),
        (("--probe", "quickstrat"), "quickstart"),
    ],
)
def test_wrong_input_is_refused_before_minutes_of_timing(
    fedge, tmp_path: Path, monkeypatch, arguments: tuple[str, str], said: str
) -> None:
    """Breaks if a slip is told after ten minutes."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sample, "cells", None)  # would fail
    code, _, refused = fedge("fingerprint", *arguments)
    assert code == 2 and said in refused and refused.count("\n") == 1


def test_a_plan_says_whose_seconds_they_are(fedge, tmp_path: Path) -> None:
    """Breaks if another machine's fingerprint passes for this one's, or a wrong file ends in a traceback."""
    path = written(tmp_path, product=1e-10)
    code, out, told = fedge("plan", "quickstart", "--fingerprint", str(path))
    assert code == 0 and "takes here" in out
    assert "toy.json is not this machine's (processor is 'Toy 1' there" in told
    (tmp_path / "wrong.json").write_text("{}")
    code, _, refused = fedge("plan", "quickstart", "--fingerprint", str(tmp_path / "wrong.json"))
    assert code == 2 and "format is None" in refused and refused.count("\n") == 1
