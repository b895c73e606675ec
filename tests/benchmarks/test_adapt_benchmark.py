"""The ADaPT benchmark's grid and its tables; running it takes real pictures, so that is left to the presets."""

from dataclasses import asdict
from itertools import pairwise

import pytest
import torch

from benchmarks.adapt.controls import CONTROLS
from benchmarks.adapt.grid import PRESETS, cells
from benchmarks.adapt.tables import difference, page, summarise
from fedge.models import build
from fedge.training.pruning.one_shot import prune


def row(arm: str, criterion: str, top1: float, seed: int = 0, level: float = 0.5) -> dict:
    return {
        "preset": "smoke", "net": "resnet8", "arm": arm, "criterion": criterion, "level": level, "subset": "aquatic",
        "seed": seed, "top1": top1, "epoch": 1, "parameters": 10, "macs": 50 if arm != "unpruned" else 100,
        "wall_s": 1.0,
    }  # fmt: skip


@pytest.mark.parametrize("preset", PRESETS)
def test_no_cell_is_run_twice(preset):
    """Cells are found again by what they are; a doubled one would weigh double in every mean."""
    grid = cells(preset)
    assert len(grid) == len(set(grid))


@pytest.mark.parametrize("preset", PRESETS)
def test_a_costly_network_is_trained_once(preset):
    """Only the last one is kept; cells that share one must follow each other within a grid, or it is trained anew."""
    shared = [cell.shared for cell in cells(preset) if cell.arm == "agnostic"]
    runs = 1 + sum(before != after for before, after in pairwise(shared))
    assert runs == len(set(shared))


def test_full_is_the_papers_grid():
    """4 networks x 5 subsets x 19 levels x 5 seeds for each criterion of the data-aware arm."""
    grid = [cell for cell in cells("full") if (cell.arm, cell.criterion) == ("aware", "l1")]
    assert len(grid) == 4 * 5 * 19 * 5


def test_differences_are_paired():
    """Only places that both have count; else an unfinished run would compare easy cells with hard ones."""
    first = {("n", "s", 0.5, 0): 0.6, ("n", "s", 0.5, 1): 0.5, ("n", "s", 0.9, 0): 0.1}
    second = {("n", "s", 0.5, 0): 0.5, ("n", "s", 0.5, 1): 0.5}
    gap = difference(first, second)
    assert gap["mean"] == pytest.approx(5.0)
    assert (gap["cells"], gap["above 0"]) == (2, 1)
    assert gap["between seeds"] == pytest.approx(gap["std"])  # one place: all spread is between its seeds


def test_gain_is_split_into_retraining_and_choosing():
    """What the third arm is for: the two parts must add up to the paper's gain."""
    rows = [row("agnostic", "l1", 0.20), row("selection", "l1", 0.28), row("aware", "l1", 0.30)]
    means = [gap["mean"] for gap in summarise(rows).values()]
    assert means == pytest.approx([10.0, 8.0, 2.0])


def test_page_has_a_line_per_place_and_a_column_per_arm_and_criterion():
    """Else a figure of one criterion would stand under another's head."""
    rows = [row("unpruned", "none", 0.4), row("aware", "l1", 0.3), row("aware", "taylor", 0.35, seed=1)]
    text = page(rows)
    assert "| net | subset | level | aware l1 | aware taylor |" in text
    assert "| resnet8 | aquatic | 0.5 | 30.0 | 35.0 |" in text


@pytest.mark.parametrize("control", CONTROLS)
def test_a_control_keeps_taylors_widths(control):
    """Were they not the same, a control would compare sizes of networks, not choices of channels."""
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(8, 3, 32, 32, generator=generator), torch.arange(8)
    records = []
    for criterion in ("taylor", CONTROLS[control]):
        model = build("resnet8", num_classes=8, in_channels=3, image_size=32)
        prune(model, 0.6, example_input=x[:1], criterion=criterion, batches=[(x, y)])
        records.append([(name, weight.shape) for name, weight in model.state_dict().items()])
    assert records[0] == records[1]


def test_rows_name_their_cell():
    """Resuming finds a finished cell by its fields."""
    cell = cells("smoke")[0]
    assert set(asdict(cell)) <= set(row("aware", "l1", 0.1))
