"""Folders of runs that are larger than a test can run: a real one's reports, over and over, with other numbers."""

import json
import shutil
from pathlib import Path
from random import Random

from fedge.coordinator.metrics import accuracy, errors
from fedge.coordinator.paired import gain, hurt
from fedge.results.run_folder import read_reports


def with_errors(folder: Path, out: Path) -> Path:
    """A copy of the run in `folder` as if it had been asked for numbers: reports, rounds and summary hold errors."""
    shutil.copytree(folder, out, ignore=shutil.ignore_patterns("devices"))
    rows, generator = read_reports(folder), Random(2)
    for row in rows:
        if row["status"] == "ok":
            del row["told_correct"]
            row |= {name: generator.uniform(1, 50) for name in ("test_error_sum", "factory_error_sum")}
    (out / "reports.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    rounds = [json.loads(line) for line in (folder / "rounds.jsonl").read_text().splitlines()]
    for figures in rounds:
        there = [row for row in rows if row["round"] == figures["round"] and row["status"] == "ok"]
        figures |= errors(there) | {"accuracy": accuracy(there)}
    (out / "rounds.jsonl").write_text("".join(json.dumps(figures) + "\n" for figures in rounds))
    last = [row for _, row in sorted({row["client"]: row for row in rows if row["status"] == "ok"}.items())]
    summary = json.loads((folder / "summary.json").read_text())
    summary |= {"accuracy": accuracy(last), "gain": gain(last, seed=0), "hurt": hurt(last), **errors(last)}
    summary["egress"]["fields"].remove("report.told_correct")
    (out / "summary.json").write_text(json.dumps(summary))
    return out


def multiply(folder: Path, out: Path, clients: int) -> Path:
    """A copy of the run in `folder` as if it had `clients` clients."""
    shutil.copytree(folder, out, ignore=shutil.ignore_patterns("devices"))
    rows, generator = read_reports(folder), Random(1)
    held = max(row["client"] for row in rows) + 1
    lines = []
    for row in rows:
        for client in range(row["client"], clients, held):
            more = dict(row, client=client)
            if more["status"] == "ok":
                more["test_correct"] = generator.randint(0, row["test_count"])
            lines.append(more)
    lines.sort(key=lambda row: (row["round"], row["client"]))
    (out / "reports.jsonl").write_text("".join(json.dumps(row) + "\n" for row in lines))
    summary = json.loads((out / "summary.json").read_text()) | {"clients": clients}
    (out / "summary.json").write_text(json.dumps(summary))
    return out
