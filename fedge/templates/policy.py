"""A policy: what one client is asked to do, by its own reports alone. Guide: docs/guide/own_policy.md.

    [schedule]
    program = "policy.py"
    args = { slow_s = 0.12 }

It runs where the rounds are coordinated, without torch and without data, and must not remember anything.
"""

from collections.abc import Mapping, Sequence
from typing import Any


def plan(
    round: int, client: int, history: Sequence[Mapping[str, Any]], args: Mapping[str, Any]
) -> dict[str, Any]:
    """What is to differ from the schedule's plan, by dotted keys; {}: nothing.

    history: this client's lines of reports.jsonl, oldest first. args: [schedule] args.
    """
    reported = [row for row in history if row["status"] == "ok"]
    if not reported:
        return {}
    slow = reported[0]["time_s"] > args.get("slow_s", 0.12)
    return {"training.pruning.level": 0.7 if slow else 0.3}
