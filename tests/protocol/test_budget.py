"""How much of a report is a client program's to choose."""

import re
from collections import Counter
from pathlib import Path

import pytest

from fedge.catalog.datasets import DATASETS
from fedge.protocol.agreement import counts_agree
from fedge.protocol.budget import COUNTED, KNOWN, MOST_BITS, bits_at_most, facts_or_any, free_bits, kind_of
from fedge.protocol.report import STREAM_FIELDS, WORDS, RoundReport
from fedge.scenario.stream.section import MOST_FRAMES, Stream

GUIDE = Path(__file__).parents[2] / "docs" / "guide" / "privacy.md"


@pytest.mark.parametrize("dataset", DATASETS)
def test_a_program_chooses_256_bits_at_most(dataset: str) -> None:
    """Breaks if a field is added, or a range widened, beyond what a report may tell of a program's choosing."""
    assert bits_at_most(100, {}, DATASETS[dataset]) <= MOST_BITS == 256
    million = bits_at_most(100, {}, DATASETS[dataset], served=1000, frames=10**6, detecting=True)
    assert million <= MOST_BITS


def test_a_streams_counts_have_the_bits_of_the_frames_that_can_have_come() -> None:
    """Breaks if a stream's figures may tell more than there are frames, or if a report above that bound passes."""
    none, some = (free_bits(1, DATASETS["digits"], frames=frames) for frames in (None, 1000))
    assert {field: some[field] for field in some if field not in none} == dict.fromkeys(
        ("ttt_correct", "future_correct", "past_correct"), 10
    )
    stream = Stream(rate_per_h=100.0)
    assert stream.frames_at_most(9.0) == 900 + 12 * 30 + 100
    counts = dict.fromkeys(STREAM_FIELDS, 0) | {"arrived": 1000}
    assert counts_agree(counts, 1000) and not counts_agree(counts, 999)


def test_a_trace_has_its_lines(tmp_path: Path) -> None:
    """Breaks if a trace's devices are bounded by something else, or if a page fails where the trace is gone."""
    (tmp_path / "t.csv").write_text("client,time_h\n0,0.5\n0,0.7\n")
    stream = Stream(trace=str(tmp_path / "t.csv"))
    assert stream.frames_at_most(5.0) == 3
    (tmp_path / "t.csv").unlink()
    assert stream.frames_at_most(5.0) == MOST_FRAMES


def test_every_field_is_written_by_somebody() -> None:
    """Breaks if a field that is named as known or counted is gone, or is both, and a new one counts for nothing."""
    assert set(RoundReport.model_fields) >= KNOWN | COUNTED and not KNOWN & COUNTED
    free = {field for field in RoundReport.model_fields if kind_of(field) == "free"} - {"own"}
    assert set(free_bits(3, facts_or_any("nowhere/"), served=5, frames=9, detecting=True, exits=4)) == free
    assert set(WORDS) <= free


def test_bits_grow_with_rows_and_epochs_up_to_those_that_are_told() -> None:
    """Breaks if the count does not follow the data or the plan."""
    one, three, many = (sum(free_bits(epochs, DATASETS["digits"]).values()) for epochs in (1, 3, 64))
    assert (three - one, many) == (24, three)
    digits, mnist = (free_bits(1, DATASETS[name]) for name in ("digits", "mnist"))
    assert digits["test_correct"] == 11 and mnist["test_correct"] == 17


def test_as_many_values_leave_as_the_bits_say() -> None:
    """Breaks if a field's bits are fewer than the values that the report lets through."""
    bits = free_bits(1, DATASETS["digits"])
    losses = Counter(
        RoundReport(round=1, client=0, epoch_loss=[step / 4096]).epoch_loss[0] for step in range(40_000)
    )
    assert 2**10 < len(losses) < 2 ** bits["epoch_loss"] == 2**12
    losses = Counter(
        RoundReport(round=1, client=0, train_loss=step * 1e-6).train_loss for step in range(40_000)
    )
    assert len(losses) < 2 ** bits["train_loss"] == 2**16


def test_the_guide_counts_what_the_code_counts() -> None:
    """Breaks if the guide's table misses a field, or says that a program cannot choose what it can."""
    lines = GUIDE.read_text(encoding="utf-8").splitlines()
    told: dict[str, str] = {}
    for line in lines:
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("| ") and len(cells) == 3:
            kind = next((word for word in ("known", "counted", "free") if f"**{word}**" in cells[0]), "free")
            told |= dict.fromkeys(re.findall(r"`([a-z_]+)`", cells[1]), kind)
    assert {field: told.get(field) for field in RoundReport.model_fields if field != "own"} == {
        field: kind_of(field) for field in RoundReport.model_fields if field != "own"
    }
    bits = [bits_at_most(3, {}, DATASETS[name]) for name in ("digits", "mnist")]
    assert "That is {} bits for digits and {} for MNIST".format(*bits) in GUIDE.read_text(encoding="utf-8")
