"""What early exits answer and save, as a section of a run's page."""

from itertools import zip_longest

from fedge.page import html
from fedge.page.content import RunContent
from fedge.page.html import at, figure


def left_early(run: RunContent) -> list[str]:
    """A line per exit; nothing where the networks have none."""
    told = at(run.summary, "exits")
    if not told:
        return []
    trunk = told["macs"]["trunk"]
    shares = {key: f"{told['macs'][key] / trunk:.2f}" for key in ("mean", "worst")} if trunk else {}
    rows = [
        [
            "last" if place == len(told["left"]) else str(place),
            _percent(left),
            _percent(right),
            _percent(alone),
        ]
        for place, (left, right, alone) in enumerate(
            zip_longest(told["left"], told["right"], told["alone"]), start=1
        )
    ]
    head = ["exit", "samples that leave there", "right of these", "right, were it to answer all"]
    return [
        "<h2>Where samples leave</h2>",
        f"<p>An answer takes <b>{shares.get('mean', '-')}</b> of the MACs of the network without exits in the mean, "
        f"{shares.get('worst', '-')} at worst: a sample that goes all the way pays for every exit. On these devices "
        f"that is {figure(run.summary, 'exits.time_s.mean', _milliseconds)} in the mean and "
        f"{figure(run.summary, 'exits.time_s.worst', _milliseconds)} at worst, in virtual time and of the arithmetic "
        "alone.</p>",
        html.table(head, rows),
    ]


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.1%}"


def _milliseconds(seconds: float) -> str:
    return f"{1000 * seconds:.3g} ms"
