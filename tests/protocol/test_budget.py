"""How much of a report is a client program's to choose."""

import re
from collections import Counter
from pathlib import Path

import pytest

from fedge.catalog.datasets import DATASETS
from fedge.protocol.budget import COUNTED, KNOWN, MOST_BITS, bits_at_most, facts_or_any, free_bits, kind_of
from fedge.protocol.report import WORDS, RoundReport

GUIDE = Path(__file__).parents[2] / "docs" / "guide" / "privacy.md"


@pytest.mark.parametrize("dataset", DATASETS)
def test_a_program_chooses_256_bits_at_most(dataset: str) -> None:
    """Breaks if a field is added, or a range widened, beyond what a report may tell of a program's choosing."""
    assert bits_at_most(100, {}, DATASETS[dataset]) <= MOST_BITS == 256


def test_every_field_is_written_by_somebody() -> None:
    """Breaks if a field that is named as known or counted is gone, or is both, and a new one counts for nothing."""
    assert set(RoundReport.model_fields) >= KNOWN | COUNTED and not KNOWN & COUNTED
    free = {field for field in RoundReport.model_fields if kind_of(field) == "free"} - {"own"}
    assert set(free_bits(3, facts_or_any("nowhere/"), served=5, streamed=True, detecting=True)) == free
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
