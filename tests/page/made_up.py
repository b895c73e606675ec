"""Folders of runs that are larger than a test can run: a real one's reports, over and over, with other numbers."""

import json
import shutil
from pathlib import Path
from random import Random

from fedge.results.run_folder import read_reports


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
