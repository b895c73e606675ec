"""Gains, client by client, over worlds and seeds; and how sure they are.

A gain is the difference of two accuracies on the same test rows of the same client in the same world: against the
factory model, which is what the client began with, or against another arm with the same seed.

Intervals are of Owen's pigeonhole bootstrap (The Annals of Applied Statistics 1(2), 2007): clients are drawn with
replacement, and so are the runs, and a gain counts as often as its client and its run were drawn:

    mean* = sum_cr w_c v_r gain_cr / sum_cr w_c v_r        w ~ multinomial over clients, v over runs

so that what a client has in common over all runs, and a run over all clients, is not taken for independent evidence.
Changed: percentiles of so few draws are too narrow where clients or runs are few, and too wide where test rows are
(Owen counts their noise three times). So the percentiles' distances from the mean are scaled to the spread that the
two-way analysis of variance finds, with the t quantile of its Satterthwaite degrees of freedom:

    V = MS_clients / CR + MS_runs / CR - MS_rest / CR

Shapes: C clients, R runs (worlds x seeds), D draws.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from scipy import stats

DRAWS = 2000
CONFIDENCE = 0.95


def two_way_interval(
    gain_CR: np.ndarray, seed: int, *, confidence: float = CONFIDENCE, draws: int = DRAWS
) -> list[float] | None:
    """[low, high] of the mean gain, for clients and runs like these. NaN where a client is not in a run.

    None for fewer than two clients, which say nothing of how others vary. One run alone says nothing of how runs vary:
    then it speaks for clients.
    """
    if len(gain_CR) < 2:
        return None
    middle, mean_D = float(np.nanmean(gain_CR)), drawn_means(gain_CR, seed, draws)
    variance, freedom = spread_of_mean(gain_CR)
    drawn_spread = float(mean_D.std())
    if variance == 0 or drawn_spread == 0:
        return [middle, middle]
    tail = (1 - confidence) / 2
    low, high = np.quantile(mean_D, [tail, 1 - tail])
    scale = stats.t.ppf(1 - tail, freedom) / stats.norm.ppf(1 - tail) * math.sqrt(variance) / drawn_spread
    return [middle - scale * (middle - float(low)), middle + scale * (float(high) - middle)]


def drawn_means(gain_CR: np.ndarray, seed: int, draws: int) -> np.ndarray:
    """The mean gains [D] of fleets and runs that are drawn with replacement."""
    clients, runs = gain_CR.shape
    generator = np.random.default_rng(seed)
    w_DC = generator.multinomial(clients, np.full(clients, 1 / clients), size=draws)
    v_DR = generator.multinomial(runs, np.full(runs, 1 / runs), size=draws)
    there_CR = ~np.isnan(gain_CR)
    sum_D = np.einsum("dc,cr,dr->d", w_DC, np.where(there_CR, gain_CR, 0.0), v_DR, optimize=True)
    count_D = np.einsum("dc,cr,dr->d", w_DC, there_CR.astype(float), v_DR, optimize=True)
    return np.asarray(sum_D[count_D > 0] / count_D[count_D > 0])


def spread_of_mean(gain_CR: np.ndarray) -> tuple[float, float]:
    """The variance of the mean gain over clients and runs, and its degrees of freedom."""
    clients, runs = gain_CR.shape
    client_C, run_R = np.nanmean(gain_CR, axis=1), np.nanmean(gain_CR, axis=0)
    of_clients = float(client_C.var(ddof=1)) / clients
    if runs == 1:
        return of_clients, clients - 1
    of_runs = float(run_R.var(ddof=1)) / runs
    rest_CR = gain_CR - client_C[:, None] - run_R + np.nanmean(gain_CR)
    of_rest = float(np.nansum(rest_CR**2)) / ((clients - 1) * (runs - 1)) / (clients * runs)
    both = of_clients + of_runs - of_rest
    if both <= max(of_clients, of_runs):  # one of them is nothing but the noise of the rest
        return (of_clients, clients - 1) if of_clients >= of_runs else (of_runs, runs - 1)
    return both, both**2 / (of_clients**2 / (clients - 1) + of_runs**2 / (runs - 1))


def probability_of_improvement(gains: Sequence[float]) -> float:
    """The share of clients and runs that gained, 0..1; those that stayed as they were count half."""
    return sum(0.5 if gain == 0 else float(gain > 0) for gain in gains) / len(gains)


def matrix(gains: Mapping[tuple[int, int], float]) -> np.ndarray:
    """(client, run) -> gain as [C, R], NaN where there is none."""
    clients, runs = (sorted({key[axis] for key in gains}) for axis in (0, 1))
    gain_CR = np.full((len(clients), len(runs)), np.nan)
    for (client, run), gain in gains.items():
        gain_CR[clients.index(client), runs.index(run)] = gain
    return gain_CR
