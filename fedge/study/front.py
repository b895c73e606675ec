"""Which arms are worth their cost: those that no other arm beats in what they bring and in what they take."""

from collections.abc import Mapping


def front(brings: Mapping[str, float], takes: Mapping[str, float]) -> list[str]:
    """The arms that none dominates, cheapest first. An arm dominates another that brings no more and takes no less,
    unless both are equal in both."""
    arms = sorted(brings, key=lambda arm: (takes[arm], -brings[arm], arm))
    return [arm for arm in arms if dominated_by(arm, brings, takes) is None]


def dominated_by(arm: str, brings: Mapping[str, float], takes: Mapping[str, float]) -> str | None:
    """The arm that beats it by most, or none."""
    better = [
        other
        for other in brings
        if brings[other] >= brings[arm]
        and takes[other] <= takes[arm]
        and (brings[other], takes[other]) != (brings[arm], takes[arm])
    ]
    return max(better, key=lambda other: (brings[other], -takes[other], other), default=None)
