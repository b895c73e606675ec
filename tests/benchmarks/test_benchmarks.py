"""Every benchmark from its command line, and the committed results."""

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from benchmarks.__main__ import MODULES, benchmark, main
from benchmarks.measure.results import FOLDER, Results, read_rows
from benchmarks.measure.steps import FORMATS, TrainingStep, interleaved, random_batches
from benchmarks.measure.table import mean_std
from fedge.models import build


@pytest.fixture
def no_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No data set is on disk, and threads are afterwards as they were."""
    monkeypatch.setenv("FEDGE_DATA", str(tmp_path / "nothing"))
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


# a SuperLink and a SuperNode take as long to start as half of all others; the rest train factory models, or time steps
SLOW = {"deployment", "adaptation", "contrast", "exits", "fingerprint"}
RUNS = [pytest.param(name, marks=pytest.mark.slow if name in SLOW else ()) for name in MODULES]


@pytest.mark.smoke
@pytest.mark.parametrize("name", RUNS)
def test_every_benchmark_runs_small(name: str, no_files: None, tmp_path: Path) -> None:
    """A benchmark that nothing runs rots with the code that it calls; it must also need no data set here."""
    before = {path: path.stat().st_mtime_ns for path in FOLDER.iterdir()}
    main([name, "--smoke", "--out", str(tmp_path)])
    rows = read_rows(tmp_path / f"{name}.jsonl")
    assert rows and all(row["machine"] and row["versions"]["torch"] for row in rows)
    identities = [json.dumps([row.get(field) for field in benchmark(name).key]) for row in rows]
    assert len(identities) == len(set(identities))
    main(["table", name, "--out", str(tmp_path)])
    assert (tmp_path / f"{name}.md").read_text() == benchmark(name).render(rows)
    assert {path: path.stat().st_mtime_ns for path in FOLDER.iterdir()} == before


def test_committed_pages_are_made_from_committed_rows() -> None:
    """A page edited by hand, or not made anew, would show figures that nobody measured."""
    pages = {path.stem for path in FOLDER.glob("*.md")}
    assert pages == {path.stem for path in FOLDER.glob("*.jsonl")} <= set(MODULES)
    for name in pages:
        rows = read_rows(FOLDER / f"{name}.jsonl")
        assert (FOLDER / f"{name}.md").read_text() == benchmark(name).render(rows), (
            f"python -m benchmarks table {name}"
        )


def test_command_line_starts_without_torch() -> None:
    """Processes that are measured import it; with torch, what they take to start would look shorter than it is."""
    code = "import sys, benchmarks.__main__, benchmarks.measure.process; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=FOLDER.parents[1]).returncode == 0


def test_list_names_all(capsys: pytest.CaptureFixture[str]) -> None:
    """A benchmark that is not listed is not found."""
    main(["list"])
    listed = capsys.readouterr().out
    assert all(f"{name} " in listed and benchmark(name).purpose in listed for name in MODULES)


def test_table_without_rows_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """No traceback for a benchmark that has not been run."""
    with pytest.raises(SystemExit) as stopped:
        main(["table", "scale", "--out", str(tmp_path)])
    assert stopped.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_wrong_input_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A network trained on noise would be kept in the cache as one trained on CIFAR-100."""
    arguments = ["--nets", "resnet20", "--data", "noise", "--epochs", "1", "--cache", str(tmp_path)]
    with pytest.raises(SystemExit) as stopped:
        main(["prune_wallclock", *arguments, "--out", str(tmp_path)])
    assert stopped.value.code == 2
    message = capsys.readouterr().err
    assert "noise is for smoke runs" in message and message.count("\n") == 1


@dataclass(frozen=True)
class Cell:
    net: str
    task: tuple[int, ...]


def test_finished_cells_are_not_run_again_and_a_torn_line_is_dropped(tmp_path: Path) -> None:
    """A benchmark killed while writing must resume with the cells that have no whole line."""
    path = tmp_path / "rows.jsonl"
    cells = [Cell("a", (1, 2)), Cell("b", (1,))]
    results = Results(path, ["net", "task"])
    results.add({"net": "a", "task": (1, 2), "top1": 0.5})
    with path.open("a") as lines:
        lines.write('{"net": "b", "task": [1], "to')
    results = Results(path, ["net", "task"])
    assert results.missing(cells) == cells[1:]
    results.add({"net": "b", "task": (1,), "top1": 0.25})
    assert [row["top1"] for row in results.rows] == [0.5, 0.25]


def test_a_row_measured_anew_replaces_the_old_one(tmp_path: Path) -> None:
    """With both in the file a mean would count one cell twice."""
    results = Results(tmp_path / "rows.jsonl", ["net"])
    for net, ms in (("a", 1), ("b", 2), ("a", 3)):
        results.add({"net": net, "ms": ms})
    assert [(row["net"], row["ms"]) for row in results.rows] == [("b", 2), ("a", 3)]


@pytest.mark.parametrize("memory_format", FORMATS.values())
def test_a_training_step_trains(memory_format: torch.memory_format) -> None:
    """A timer whose step leaves the weights alone would time something else."""
    model = build("lenet", num_classes=10, in_channels=1, image_size=16)
    before = [weight.clone() for weight in model.parameters()]
    step = TrainingStep(model, random_batches(4, (1, 16, 16)), memory_format)
    times = interleaved([step, step], turns=2, warm_up=1)
    assert len(times) == 2 and all(each.wall_s > 0 for turn in times for each in turn)
    assert not any(torch.equal(old, new) for old, new in zip(before, model.parameters(), strict=True))


def test_a_step_without_update_leaves_the_weights() -> None:
    """Forward and backward alone are compared in prune_wallclock, at the same weights in every turn."""
    model = build("lenet", num_classes=10, in_channels=1, image_size=16)
    before = [weight.clone() for weight in model.parameters()]
    TrainingStep(model, random_batches(4, (1, 16, 16)), update=False)()
    assert all(torch.equal(old, new) for old, new in zip(before, model.parameters(), strict=True))
    assert all(weight.grad is not None for weight in model.parameters())


def test_spread_is_left_out_of_a_single_value() -> None:
    """One seed has no standard deviation; none at all is an empty cell and not a zero."""
    assert mean_std([0.5, 0.7], 1, scale=100) == "60.0 ± 14.1"
    assert mean_std([0.5], 1, scale=100) == "50.0"
    assert mean_std([], 1) == ""
