"""A fingerprint's file."""

import json
from pathlib import Path
from typing import Any

import pytest

from fedge.catalog.fingerprint import FORMAT, parse_fingerprint, read_fingerprint
from fedge.errors import UserError

MACHINE = {"processor": "Toy 1", "vector_instructions": "AVX2", "torch": "2.13.0", "threads": 1}
TABLE: dict[str, Any] = {
    "format": FORMAT,
    "machine": MACHINE,
    "predictor": "width",
    "coefficients": {"seconds_of": {}},
    "train_gflops": 20.0,
    "memory_gbs": 8.0,
}


def test_it_is_read_as_it_was_written(tmp_path: Path) -> None:
    """Breaks if a file is changed on its way into a scenario."""
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(TABLE))
    text = read_fingerprint(path)
    assert text == path.read_text()
    assert parse_fingerprint(text).train_gflops == 20.0


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "no JSON"),
        ("[1]", "format is 'list'"),
        (json.dumps(TABLE | {"format": "fedge fingerprint 99"}), "it must be 'fedge fingerprint 1'"),
        (json.dumps(TABLE | {"train_gflops": 0}), "train_gflops is missing"),
        (json.dumps(TABLE | {"memory_gbs": True}), "memory_gbs is missing"),
        (json.dumps(TABLE | {"coefficients": [1]}), "coefficients is missing"),
        (json.dumps({key: value for key, value in TABLE.items() if key != "machine"}), "machine is missing"),
    ],
)
def test_a_wrong_file_is_refused_in_one_line(tmp_path: Path, text: str, said: str) -> None:
    """Breaks if a file that is none ends in a traceback, or in seconds of nothing."""
    path = tmp_path / "wrong.json"
    path.write_text(text)
    with pytest.raises(UserError, match="wrong.json: .*" + said) as refusal:
        read_fingerprint(path)
    assert "\n" not in str(refusal.value)
    with pytest.raises(UserError, match="cannot be read"):
        read_fingerprint(tmp_path / "gone.json")


def test_another_machine_s_is_said() -> None:
    """Breaks if seconds of another processor or torch pass for this one's."""
    learnt = parse_fingerprint(json.dumps(TABLE))
    assert learnt.differences(MACHINE) == []
    (said,) = learnt.differences(MACHINE | {"torch": "2.9.0"})
    assert said == "torch is '2.13.0' there and '2.9.0' here"
    assert len(learnt.differences({})) == 4
