"""Who knows what of a run: the observer, who has every client's report, and the server, by `[privacy]`.

Either way a client's rounds become one vector of numbers. The observer, and a server that reads reports, has each
client's own; a server that hears sums has their sum, with noise where there is a budget.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedge.privacy.noise.budget import Budget
from fedge.privacy.noise.gaussian import gaussian
from fedge.privacy.noise.vector import layout_of
from fedge.protocol import RoundReport
from fedge.protocol.figures import PREFIX
from fedge.protocol.report import MOST_EPOCHS, TIMING_FIELDS, WORDS
from fedge.scenario.schema import Scenario

Row = Mapping[str, Any]
Vector = NDArray[np.float64]

_WHO = ("round", "client", *TIMING_FIELDS)


@dataclass(frozen=True)
class View:
    """name: observer or server. vector: one client's reports, in order of round -> [F]. summed: only the sum over the
    clients is seen. noise: a fresh draw [F] on what is seen, of standard deviation sigma; None: nothing is noised.
    epsilon, delta: what the ledger says of the run; None: it says nothing."""

    name: str
    vector: Callable[[Sequence[Row]], Vector]
    summed: bool = False
    noise: Callable[[], Vector] | None = None
    sigma: float = 0.0
    epsilon: float | None = None
    delta: float = 0.0

    @property
    def of(self) -> str:
        """What is seen, in words."""
        what = "sums over the clients" if self.summed else "each client's report"
        return f"{what}, noised" if self.noise else what

    @property
    def whole(self) -> bool:
        """Whether all is seen that the observer sees."""
        return not self.summed and self.noise is None

    def seen(self, vectors_NF: NDArray[np.float64]) -> NDArray[np.float64]:
        """What is seen of clients with these vectors: [F] of sums, else [N, F]."""
        told = vectors_NF.sum(axis=0) if self.summed else vectors_NF
        if self.noise is None:
            return told
        drawn = self.noise() if self.summed else np.stack([self.noise() for _ in vectors_NF])
        return told + drawn


OBSERVER = "observer"
SERVER = "server"


def observer(scenario: Scenario) -> View:
    """Everything that a report says, of each client."""
    return View(OBSERVER, _all_numbers(scenario))


def server(scenario: Scenario) -> View:
    """What the coordinator learns in this scenario: reports, their sums, or either under the noise of its budget.

    UserError where a package for noise is missing.
    """
    privacy = scenario.privacy
    if privacy.whole_reports:
        return replace(observer(scenario), name=SERVER)
    layout, budget = layout_of(scenario), Budget.of(scenario)
    rounds = [round for round in range(1, scenario.rounds + 1) if privacy.speaks_in(round, scenario.rounds)]

    def vector(reports: Sequence[Row]) -> Vector:
        entries = [layout.vector(report_of(row)) for row in reports if row["round"] in rounds]
        signed = np.concatenate(entries).astype(np.uint64 if budget is None else np.int64)
        return signed.astype(np.float64)

    if budget is None:
        return View(SERVER, vector, summed=True)
    budget = budget.kept()
    draw, length = gaussian(budget.sigma), len(layout) * len(rounds)
    return View(
        SERVER,
        vector,
        summed=privacy.view == "sums",
        noise=lambda: np.array(draw(length), np.float64),
        sigma=budget.sigma,
        epsilon=budget.epsilon,
        delta=budget.delta,
    )


def report_of(row: Row) -> RoundReport:
    """The report of a line of reports.jsonl."""
    said = {field: row[field] for field in RoundReport.model_fields if field in row}
    said |= {field: words.index(row[field]) for field, words in WORDS.items() if field in row}
    own = {name.removeprefix(PREFIX): value for name, value in row.items() if name.startswith(PREFIX)}
    return RoundReport.model_validate(said | ({"own": own} if own else {}))


def _all_numbers(scenario: Scenario) -> Callable[[Sequence[Row]], Vector]:
    """Every number of a client's reports, round by round, 0 for what one does not say; but for the seconds that the
    simulation itself took, which no seed decides."""
    own = [f"{PREFIX}{name}" for name in scenario.report.figures]
    fields = [name for name in RoundReport.model_fields if name not in (*_WHO, *WORDS, "own")] + own

    def numbers(reports: Sequence[Row]) -> Vector:
        said: list[float] = []
        for row in reports:
            for field in fields:
                value = row.get(field)
                if field == "epoch_loss":
                    losses = [float(loss) for loss in value or ()]
                    said += losses + [0.0] * (MOST_EPOCHS - len(losses))
                else:
                    said.append(float(value or 0))
        return np.array(said)

    return numbers


def vectors(view: View, clients: Sequence[Sequence[Row]]) -> NDArray[np.float64]:
    """[N, F], a client's vector per row."""
    return np.stack([view.vector(reports) for reports in clients])
