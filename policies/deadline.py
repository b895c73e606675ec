"""Every device ends its round in time: pruned, trained and fed as its own reports say it can take.

    [schedule]
    policy = "deadline"
    args = { deadline_s = 0.5 }

args: deadline_s    virtual seconds that a round may take (required)
      energy_j      joules that it may take (default: any number)
      keep          share of instances in a device's first round, before it has reported (default 0.4)
      least_keep    never fewer than this share (default 0.2)
      most_level    never pruned further than this (default 0.8)
      slow          a device whose first load is above this trains its last block alone (default 1.5)
      whole         after this many rounds with the whole network (default 3)
      by_time       true: a device that is late finds its level itself, by the seconds that its own clock foresees
      patience      after so many reports without a better validation accuracy, half the instances do (default 8)

It looks at time_s, energy_j and the validation counts of one device's own reports, by_time at down_s and up_s too, and
at nothing else:

    load   the larger of time_s / deadline_s and energy_j / energy_j allowed, over 0.9; at most 1 is in time
    level  1 - 1 / load of the first report: cut once, to where the rest should be in time
           by_time: the lowest at which training takes no longer than what is allowed without the links
    what   "last" for slow devices, from round whole + 1: their trunk is pruned and has met their data by then
    keep   the share before / load, report by report: more instances where there is time left, fewer where not

To write your own, copy this file, change `plan`, and name the copy: `program = "mine.py"`.
"""

AIM = 0.9  # of what is allowed: a device's speed differs from round to round
MOST_CHANGE = 2.0  # of keep, from one report to the next


def plan(round, client, history, args):
    """Changes to one client's plan, by what it has reported so far."""
    if "deadline_s" not in args:
        raise ValueError(
            "the deadline policy needs schedule.args.deadline_s, the seconds that a round may take"
        )
    reports = [row for row in history if row["status"] in ("ok", "late")]
    keep = args.get("keep", 0.4)
    if not reports:
        return {"prune": False, "training.instance_filter.keep": keep}
    level = level_for(load(reports[0], args), args)
    for count in range(2 if level else 1, len(reports) + 1):  # what the cut will save is not saved twice
        keep = next_keep(keep, reports[:count], args)
    changes = {"prune": True, "training.pruning.level": level, "training.instance_filter.keep": keep}
    if level and args.get("by_time"):
        changes["training.pruning.level"] = {"search": "time", "limit_s": training_s(reports[0], args)}
    if load(reports[0], args) > args.get("slow", 1.5) and round > args.get("whole", 3):
        changes["training.what"] = "last"
    return changes


def load(report, args):
    """How much of what a round may take this one took; up to 1 it was in time."""
    time_load = report["time_s"] / args["deadline_s"]
    energy_load = report["energy_j"] / args["energy_j"] if "energy_j" in args else 0.0
    return max(time_load, energy_load) / AIM


def level_for(first_load, args):
    """Half the parameters take about half the time; in steps of a twentieth."""
    level = max(0.0, 1 - 1 / first_load)
    return min(args.get("most_level", 0.8), round(20 * level) / 20)


def training_s(report, args):
    """Seconds of training that leave a round in time, its links as they were in this report."""
    links = report["down_s"] + report["up_s"]
    left = AIM * args["deadline_s"] - links
    if "energy_j" in args:
        left = min(left, (report["time_s"] - links) * AIM * args["energy_j"] / report["energy_j"])
    return max(1e-6, left)


def next_keep(keep, reports, args):
    """The share of instances after these reports, the last of which was made with `keep`."""
    change = 1 / load(reports[-1], args)
    keep *= min(MOST_CHANGE, max(1 / MOST_CHANGE, change))
    if has_settled(reports, args.get("patience", 8)):
        keep /= 2
    return min(1.0, max(args.get("least_keep", 0.2), keep))


def has_settled(reports, patience):
    """Whether validation accuracy has risen no further for `patience` reports."""
    rates = [
        row["validation_correct"] / row["validation_count"] for row in reports if row["validation_count"]
    ]
    return len(rates) > patience and max(rates[-patience:]) <= max(rates[:-patience])
