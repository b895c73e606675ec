"""Devices that were slow when they first reported are pruned further; those that answer well rest."""


def plan(round, client, history, args):
    """Changes to one client's plan, by its own reports alone."""
    reports = [row for row in history if row["status"] == "ok"]
    if not reports:
        return {}
    level = args["high"] if reports[0]["time_s"] > args["slow_s"] else args["low"]
    changes = {"training.pruning.level": level}
    if reports[-1]["own.balanced_accuracy"] > args["good"]:
        changes["training.epochs"] = 1
    return changes
