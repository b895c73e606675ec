"""Fleet figures where only sums over the clients are known: as in fedge.coordinator.metrics, as far as sums allow.

Means and shares are those of the single reports. A standard deviation comes from the sum of squares, the interval of a
mean from it (by the normal distribution), a median and the worst decile from a histogram: right to half a bin.
Extremes are single clients' numbers, and so is the length of a round, which is its slowest client's time: None.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from fedge.coordinator import streams
from fedge.coordinator.metrics import SUMMED, saved, spread
from fedge.privacy.sums.layout import SHARE, STEP
from fedge.protocol.figures import PREFIX
from fedge.protocol.report import STREAM_FIELDS
from fedge.scenario.report import Figure
from fedge.scenario.schema import Scenario

Row = dict[str, Any]
Bins = Sequence[float]  # clients per bin, from the lowest

_NORMAL_95 = 1.959964
ACCURACY, GAIN = (0.0, 1.0), (-1.0, 1.0)  # what the histograms span


def silent_figures(scenario: Scenario, round: int) -> Row:
    """Of a round that says nothing."""
    return {
        **dict.fromkeys(SUMMED),
        "saved": None,
        "accuracy": {"factory": None, "told": None, **spread([])},
        "gain": dict.fromkeys(("mean", "median", "worst_decile", "interval", "over_told")),
        "hurt": {"any": None, "beyond_chance": None},
        "validation": spread([]),
        "parameters_left": None,
        "device_time_s": None,
        "energy_j": None,
        **({"stream": None} if scenario.data.stream is not None else {}),
    }


def figures_of(sums: Mapping[str, Any], scenario: Scenario, round: int) -> Row:
    """Of a round, from `Layout.named` sums."""
    found = {
        **{name: sums[name] for name in SUMMED},
        "saved": saved(sums["macs_done"], sums["macs_dense"]),
        "accuracy": _accuracy(sums),
        "gain": _gain(sums),
        "hurt": {
            "any": _mean(sums["hurt"], sums["tested"]),
            "beyond_chance": _mean(sums["hurt_beyond_chance"], sums["tested"]),
        },
        "validation": spread([])
        | {"clients": sums["validated"], "mean": _share(sums, "validation", "validated")},
        "parameters_left": _mean(sums["parameters"], sums["parameters_dense"]),
        "train_loss": _mean(sums["train_loss"], STEP * sums["told_loss"]),
        "device_time_s": sums["time_s"] / STEP,
        "energy_j": sums["energy_j"] / STEP,
        **_served(sums),
        **_own(sums, scenario.report.figures),
    }
    if sums["told_error"]:
        means = {name: _mean(sums[name], STEP * sums["told_error"]) for name in ("error", "factory_error")}
        found["error"] = spread([]) | {
            "clients": sums["told_error"], "factory": means["factory_error"], "mean": means["error"],
        }  # fmt: skip
    if scenario.data.stream is not None:
        found["stream"] = streams.figures_of_counts(
            scenario, round, {name: sums[name] for name in STREAM_FIELDS}
        )
    return found


def _accuracy(sums: Mapping[str, Any]) -> Row:
    tested, mean = sums["tested"], _share(sums, "accuracy", "tested")
    squared = _share(sums, "accuracy_squared", "tested")
    return {
        "factory": _share(sums, "factory", "tested"),
        "told": _share(sums, "told", "could_be_told"),
        **spread([]),
        "clients": tested,
        "mean": mean,
        "std": None if mean is None or squared is None else math.sqrt(max(0.0, squared - mean * mean)),
        "worst_decile": worst_decile(sums["accuracy_bins"], tested, ACCURACY),
    }


def _gain(sums: Mapping[str, Any]) -> Row:
    tested = sums["tested"]
    mean = _mean(sums["accuracy"] - sums["factory"], SHARE * tested)
    over_told = _mean(sums["accuracy"] - sums["told"], SHARE * tested) if sums["could_be_told"] else None
    interval = None
    squared = _share(sums, "gain_squared", "tested")
    if mean is not None and squared is not None and tested > 1:
        reach = _NORMAL_95 * math.sqrt(max(0.0, squared - mean * mean) / tested)
        interval = [mean - reach, mean + reach]
    bins = sums["gain_bins"]
    return {
        "mean": mean,
        "median": median(bins, tested, GAIN),
        "worst_decile": worst_decile(bins, tested, GAIN),
        "interval": interval,
        "over_told": over_told,
    }


def noised_figures(said: Mapping[str, Any], scenario: Scenario, round: int, clients: int) -> Row:
    """Of a round, from `NoisedLayout.named` means over `clients`: what lies outside its range by noise is cut to it."""
    accuracy, factory = _within(said["accuracy"]), _within(said["factory"])
    found = silent_figures(scenario, round)
    bins = {name: nearest_counts(said[f"{name}_bins"], clients) for name in ("accuracy", "gain")}
    found["saved"] = 1 - _within(said["work"])
    found["hurt"] = {"any": _within(said["hurt"]), "beyond_chance": None}
    found["accuracy"] |= {
        "factory": factory,
        "clients": clients,
        "mean": accuracy,
        "worst_decile": worst_decile(bins["accuracy"], clients, ACCURACY),
    }
    found["gain"] |= {
        "mean": accuracy - factory,
        "median": median(bins["gain"], clients, GAIN),
        "worst_decile": worst_decile(bins["gain"], clients, GAIN),
    }
    own = {
        name: _own_figure(
            clients, figure.least + _within(said[f"{PREFIX}{name}"]) * (figure.most - figure.least)
        )
        for name, figure in scenario.report.figures.items()
    }
    return found | ({"own": own} if own else {})


def worst_decile(bins: Bins, clients: float, span: tuple[float, float]) -> float | None:
    """Mean of the worst tenth, rounded up, of so many clients, each taken to be in the middle of its bin."""
    if not clients or not sum(bins):
        return None
    left = wanted = float(math.ceil(clients / 10))
    total = 0.0
    for place, count in enumerate(bins):
        taken = min(left, count)
        total, left = total + taken * _middle(place, len(bins), span), left - taken
    return total / (wanted - left)


def median(bins: Bins, clients: float, span: tuple[float, float]) -> float | None:
    """The middle of the bin in which the middle client is."""
    if not clients or not sum(bins):
        return None
    below = 0.0
    for place, count in enumerate(bins):
        below += count
        if 2 * below >= sum(bins):
            return _middle(place, len(bins), span)
    return None


def _middle(place: int, bins: int, span: tuple[float, float]) -> float:
    return span[0] + (span[1] - span[0]) * (place + 0.5) / bins


def nearest_counts(noised: Sequence[float], clients: int) -> list[float]:
    """The histogram of that many clients, none below 0, that is nearest to a noised one (least squares).

    To cut what is below 0 alone would leave half of the noise in bins where nobody is: the worst decile would be of
    clients that do not exist.
    """
    falling = sorted(noised, reverse=True)
    total, excess = 0.0, 0.0
    for place, count in enumerate(falling, start=1):
        total += count
        if count > (total - clients) / place:
            excess = (total - clients) / place
    return [max(0.0, count - excess) for count in noised]


def _served(sums: Mapping[str, Any]) -> Row:
    kinds = ("factory", "earlier", "last")
    if "served_last" not in sums or not any(sums[f"served_{kind}"] for kind in kinds):
        return {}
    return {"served": {kind: sums[f"served_{kind}"] for kind in kinds}}


def _own(sums: Mapping[str, Any], figures: Mapping[str, Figure]) -> Row:
    """Figures of the program's own: means weighted by test rows; where nobody has any, every client weighs the same."""
    own = {}
    for name, figure in figures.items():
        place = _mean(sums[f"{PREFIX}{name}.weighted"], sums["test_count"])
        if place is None:
            place = _mean(sums[f"{PREFIX}{name}"], sums["answered"])
        share = (place or 0.0) / (figure.steps - 1)
        own[name] = _own_figure(sums["answered"], figure.least + share * (figure.most - figure.least))
    return {"own": own} if own else {}


def _own_figure(clients: int, mean: float) -> Row:
    return {"clients": clients, "mean": mean, "std": None, "min": None, "max": None}


def _share(sums: Mapping[str, Any], name: str, of: str) -> float | None:
    return _mean(sums[name], SHARE * sums[of])


def _mean(total: int, count: int) -> float | None:
    return total / count if count else None


def _within(share: float) -> float:
    return min(max(share, 0.0), 1.0)
