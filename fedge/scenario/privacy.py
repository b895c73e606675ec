"""`[privacy]`: what no report may tell, who sees one, and what a client program may reach (docs/guide/privacy.md)."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from fedge.scenario.section import Count, Section


class Privacy(Section):
    """The section. The keys from `min_cohort` on are for view = "sums", or an `epsilon`: no report arrives whole.

    least_count: no figure in a report is of fewer samples; 1: any may be. Each part of a client's rows is cut to a
    multiple of it, so that sizes are rounded too. Part of the numbers.
    isolation: none, or client: each message is answered in a process that sees its client's folder and rows, the
    libraries, and nothing else. No part of the numbers.
    view: each: the coordinator reads every report. sums: two servers get shares that say nothing, and tell one another
    sums over the clients of a round.
    min_cohort: of fewer answers a round says nothing.
    bins: of the histograms over the clients, of accuracy (0..1) and of gain (-1..1).
    epsilon, delta: what the whole run tells of one client at most, by noise; None: no noise. On the sums, or in each
    device where `view` is each.
    speaks: the last rounds alone say anything; the budget is divided by them. None: all, and with `epsilon` one.
    """

    least_count: Count = 1
    isolation: Literal["none", "client"] = "none"
    view: Literal["each", "sums"] = "each"
    min_cohort: Annotated[int, Field(ge=2)] = 10
    bins: Annotated[int, Field(ge=4, le=100)] = 20
    epsilon: Annotated[float, Field(ge=0.01, le=100)] | None = None
    delta: Annotated[float, Field(ge=1e-12, le=0.01)] = 1e-5
    speaks: Count | None = None

    @property
    def whole_reports(self) -> bool:
        """Whether the coordinator reads each client's report as the device made it."""
        return self.view == "each" and self.epsilon is None

    def speaks_in(self, round: int, rounds: int) -> bool:
        """Whether `round` of `rounds` says anything; that of clients nobody learns from, which comes after, does."""
        speaks = self.speaks or (1 if self.epsilon is not None else rounds)
        return round > rounds - speaks

    @model_validator(mode="after")
    def _bins_are_even(self) -> "Privacy":
        if self.bins % 2:
            raise ValueError(
                f"bins is {self.bins}; an even number is wanted, so that one edge of the gains' lies at 0"
            )
        if self.speaks is not None and self.whole_reports:
            raise ValueError(
                f"speaks is {self.speaks} and every report arrives whole; it is for view = 'sums' or an epsilon"
            )
        return self


def require_sums_suffice(
    privacy: Privacy, *, rounds: int, clients: int, unseen: int, wanted: int | None, over_selection: float,
    policy: str | None, stream: bool, detector: bool,
) -> None:  # fmt: skip
    """ValueError for what cannot be where no report arrives whole.

    wanted: selection.clients_per_round. policy: that the schedule names. stream: whether the data come in one.
    detector: whether devices look for drift in it.
    """
    if privacy.whole_reports:
        return
    why = "privacy.view is 'sums'" if privacy.view == "sums" else f"privacy.epsilon is {privacy.epsilon:g}"
    if policy is not None:
        raise ValueError(
            f"schedule names the policy {policy!r}, which decides by single reports, and {why}: leave one out"
        )
    if detector:
        raise ValueError(
            f"schedule.detector's alarms are of single devices, and {why}: leave one out, or take schedule.regrow_at"
        )
    if wanted is not None and over_selection > 1:
        raise ValueError(
            f"selection.over_selection is {over_selection:g}, which takes the first reports by their single times, and "
            f"{why}: set it to 1"
        )
    if privacy.speaks is not None and privacy.speaks > rounds:
        raise ValueError(f"privacy.speaks is {privacy.speaks} and rounds is {rounds}: lower speaks")
    cohorts = {"in a round": min(wanted or clients, clients - unseen), "unseen": unseen or None}
    for where, cohort in cohorts.items():
        if cohort is not None and cohort < privacy.min_cohort:
            raise ValueError(
                f"privacy.min_cohort is {privacy.min_cohort} and {cohort} clients answer at most ({where}), of whom "
                "nothing would be said: lower min_cohort, or take more clients"
            )
    if privacy.epsilon is not None and stream:
        raise ValueError(
            f"privacy.epsilon is {privacy.epsilon:g}, and the figures of data.stream are not among those that leave "
            "with noise: leave epsilon out, or the stream"
        )
