"""Tables and curves from the lines that `benchmarks.eif_emp` wrote.

    python -m benchmarks.eif_emp_table                 writes benchmarks/results/eif_emp.md

One table per task and regime: mean and standard deviation over the seeds of the accuracy at the end ("last"), averaged
over the tests of the last eighth of the run ("late"), and the same of the copy whose learning rate is a tenth for the
last quarter ("cooled"); MACs saved against dense training over all iterations; share kept. Then the kept share and T_l
over time for the filters that have them.
"""

import argparse
import json
from collections import defaultdict
from pathlib import Path
from statistics import mean, stdev

from benchmarks.eif_emp import OUT

Line = dict


ACCURACIES = {
    "last %": "accuracy",
    "late %": "late_accuracy",
    "cooled, last %": "cooled_accuracy",
    "cooled, late %": "cooled_late_accuracy",
}


def table(lines: list[Line]) -> str:
    """Rows by method, most accurate first; columns that no line has are left out."""
    by_method: dict[str, list[Line]] = defaultdict(list)
    for line in lines:
        by_method[line["method"]["name"]].append(line)
    columns = {head: field for head, field in ACCURACIES.items() if any(field in line for line in lines)}
    heads = ["method", *columns, "seeds", "MACs saved %", "kept %"]
    text = f"| {' | '.join(heads)} |\n|{' --- |' * len(heads)}\n"
    for name, group in sorted(
        by_method.items(), key=lambda item: -mean(line["accuracy"] for line in item[1])
    ):
        cells = [
            _spread([100 * line[field] for line in group if field in line]) for field in columns.values()
        ]
        counts = [str(len(group)), _percent(group, "saved"), _percent(group, "kept_share")]
        text += f"| {' | '.join([name, *cells, *counts])} |\n"
    return text


def curves(lines: list[Line]) -> str:
    """Of the first seed: share kept and T_l at eight points of the run."""
    text = ""
    for line in sorted(lines, key=lambda line: line["seed"]):
        name = line["method"]["name"]
        points = line["curve"][4::5]
        if "threshold" not in points[0] or f"`{name}`" in text:
            continue
        kept = " ".join(f"{100 * point['kept_share']:.1f}" for point in points)
        level = " ".join(f"{point['threshold']:.3f}" for point in points)
        text += f"\n`{name}`, seed {line['seed']}: kept % {kept}; T_l {level}\n"
    return text


def _percent(lines: list[Line], field: str) -> str:
    return f"{100 * mean(line[field] for line in lines):.1f}"


def _spread(values: list[float]) -> str:
    if not values:
        return ""
    return f"{mean(values):.2f}" + (f" ± {stdev(values):.2f}" if len(values) > 1 else "")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lines", type=Path, default=OUT)
    arguments = parser.parse_args()
    groups: dict[tuple, list[Line]] = defaultdict(list)
    for line in map(json.loads, arguments.lines.read_text().splitlines()):
        task = line["task"]
        groups[task["model"], task["dataset"], task["iterations"], line["regime"]].append(line)
    text = "# Accuracy against remaining compute\n\nWritten by `python -m benchmarks.eif_emp_table`.\n"
    for (model, dataset, iterations, regime), lines in sorted(groups.items()):
        text += f"\n## {model}, {dataset}, {iterations} iterations, {regime}\n\n{table(lines)}{curves(lines)}"
    arguments.lines.with_suffix(".md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
