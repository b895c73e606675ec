"""What a fleet's early exits answer and save, from the clients' reports: exact sums over their test samples.

left     share of the samples that are answered at each exit, the last one last
right    share of right answers among these; None where no sample leaves
alone    share of right answers of each exit, were it to answer all samples
macs     per answered sample: mean, worst, and trunk, the factory's network without exits
time_s   virtual, per answered sample: mean and worst
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

Row = Mapping[str, Any]


def exits(rows: Sequence[Row]) -> dict[str, dict[str, Any]]:
    """`{"exits": ...}` as above, over all test samples of the reports; empty where no report tells of exits."""
    told = [row for row in rows if row.get("exit_left") and row["test_count"]]
    if not told:
        return {}
    count = sum(row["test_count"] for row in told)
    left, right, alone = (
        [sum(parts) for parts in zip(*(row[name] for row in told), strict=True)]
        for name in ("exit_left", "exit_right", "exit_alone")
    )
    spent = sum(
        each * macs for row in told for each, macs in zip(row["exit_left"], row["exit_macs"], strict=True)
    )
    return {
        "exits": {
            "left": [each / count for each in left],
            "right": [good / each if each else None for good, each in zip(right, left, strict=True)],
            "alone": [each / count for each in alone],
            "macs": {
                "mean": spent / count,
                "worst": sum(row["test_count"] * row["exit_macs"][-1] for row in told) / count,
                "trunk": sum(row["test_count"] * row["trunk_macs"] for row in told) / count,
            },
            "time_s": {
                "mean": math.fsum(row["test_count"] * row["answer_s"] for row in told) / count,
                "worst": max(row["answer_worst_s"] for row in told),
            },
        }
    }
