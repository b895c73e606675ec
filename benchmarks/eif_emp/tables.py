"""The page of the accuracy benchmark of EIF and EMP.

One table per task and regime: mean and standard deviation over the seeds of the accuracy at the end ("last"), averaged
over the tests of the last eighth of the run ("late"), and the same of the copy whose learning rate is a tenth for the
last quarter ("cooled"); MACs saved against dense training over all iterations; share kept. Then the kept share and T_l
over time for the filters that have them.
"""

from collections import defaultdict
from statistics import mean

from benchmarks.measure.results import Row
from benchmarks.measure.table import markdown, mean_std

ACCURACIES = {
    "last %": "accuracy",
    "late %": "late_accuracy",
    "cooled, last %": "cooled_accuracy",
    "cooled, late %": "cooled_late_accuracy",
}


def page(rows: list[Row]) -> str:
    """A section per network, data set, number of iterations and regime."""
    groups: dict[tuple[str, str, int, str], list[Row]] = defaultdict(list)
    for row in rows:
        task = row["task"]
        groups[task["model"], task["dataset"], task["iterations"], row["regime"]].append(row)
    return "\n\n".join(
        "\n\n".join(
            [f"## {model}, {dataset}, {iterations} iterations, {regime}", table(of_group), *curves(of_group)]
        )
        for (model, dataset, iterations, regime), of_group in sorted(groups.items())
    )


def table(rows: list[Row]) -> str:
    """A line per method, the most accurate first; columns without any figure are left out."""
    by_method: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        by_method[row["method"]["name"]].append(row)
    columns = {head: field for head, field in ACCURACIES.items() if any(field in row for row in rows)}
    lines = []
    for name, of_method in sorted(
        by_method.items(), key=lambda item: -mean(row["accuracy"] for row in item[1])
    ):
        accuracies = (
            mean_std([100 * row[field] for row in of_method if field in row], 2) for field in columns.values()
        )
        shares = (
            mean_std([100 * mean(row[field] for row in of_method)], 1) for field in ("saved", "kept_share")
        )
        lines.append((name, *accuracies, len(of_method), *shares))
    return markdown(["method", *columns, "seeds", "MACs saved %", "kept %"], lines)


def curves(rows: list[Row]) -> list[str]:
    """Of the first seed: share kept and T_l at eight points of the run."""
    texts: dict[str, str] = {}
    for row in sorted(rows, key=lambda row: row["seed"]):
        name, points = row["method"]["name"], row["curve"][4::5]
        if "threshold" in points[0] and name not in texts:
            kept = " ".join(f"{100 * point['kept_share']:.1f}" for point in points)
            level = " ".join(f"{point['threshold']:.3f}" for point in points)
            texts[name] = f"`{name}`, seed {row['seed']}: kept % {kept}; T_l {level}"
    return list(texts.values())
