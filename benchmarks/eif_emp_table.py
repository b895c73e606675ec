"""Tables and curves from the lines that `benchmarks.eif_emp` wrote.

    python -m benchmarks.eif_emp_table                 writes benchmarks/results/eif_emp.md

One table per task and regime: mean and standard deviation of the accuracy over the seeds, MACs saved against dense
training over all iterations, share kept; then the kept share and T_l over time for the filters that have them.
"""

import argparse
import json
from collections import defaultdict
from pathlib import Path
from statistics import mean, stdev

from benchmarks.eif_emp import OUT

Line = dict


def table(lines: list[Line]) -> str:
    """Rows by method, most accurate first."""
    by_method: dict[str, list[Line]] = defaultdict(list)
    for line in lines:
        by_method[line["method"]["name"]].append(line)
    rows = sorted(by_method.items(), key=lambda item: -mean(line["accuracy"] for line in item[1]))
    head = "| method | accuracy % | seeds | MACs saved % | kept % |\n| --- | --- | --- | --- | --- |\n"
    return head + "".join(
        f"| {name} | {_spread([100 * line['accuracy'] for line in group])} | {len(group)} | "
        f"{_percent(group, 'saved')} | {_percent(group, 'kept_share')} |\n"
        for name, group in rows
    )


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
