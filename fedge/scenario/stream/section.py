"""`[data.stream]`: a client's training rows come to it one by one, in virtual time, and it can store only some.

Without the section a device holds all its rows from the first round. docs/guide/streams.md says what each key means.
"""

import math
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from fedge.catalog.names import KEEPS
from fedge.scenario.beside import Beside
from fedge.scenario.section import Count, Inner, NotNegative, Positive, Section, Share, Word

MOST_FRAMES = 10**9
"""What a report's tallies hold."""

Order = Literal["iid", "runs", "parked", "long_tail", "classes", "stc", "recorded"]


class Drift(Section):
    """What changes in a stream, how, and when. Hours are of the stream, which begins one interval before round 1.

    what: corruption (pictures get `how`), labels (P(y): half of the classes push the others out), classes (one half of
    them comes before and the other after), concept (P(y|x): `severity` pairs of classes swap their labels), scene (the
    camera is turned by 9 degrees a step of `severity`).
    kind: sudden, gradual (over `width_h` more and more frames), recurring (on for `width_h`, off for as long).
    staggered_h: each client begins up to so much later, each by its own draw.
    """

    what: Literal["corruption", "labels", "classes", "concept", "scene"]
    how: Literal["noise", "blur", "contrast"] = "noise"  # of a corruption
    kind: Literal["sudden", "gradual", "recurring"] = "sudden"
    at_h: NotNegative
    width_h: Positive | None = None
    staggered_h: NotNegative = 0.0
    severity: Annotated[int, Field(ge=1, le=5)] = 3

    @model_validator(mode="after")
    def _has_its_width(self) -> "Drift":
        if (self.kind == "sudden") != (self.width_h is None):
            raise ValueError(
                f"width_h is {self.width_h} and kind is {self.kind!r}; 'gradual' and 'recurring' need a width_h, "
                "'sudden' has none"
            )
        return self


class Stream(Section):
    """The section. One of `rate_per_h` and `trace` is needed."""

    rate_per_h: Positive | None = None  # frames per device and virtual hour, as a Poisson process
    trace: Annotated[str, Beside()] | None = None  # or a csv of client,time_h
    order: Order = "iid"
    class_every_h: Positive = 1.0  # order classes: hours from one new class to the next
    stc: Count | None = None  # order stc, strength of temporal correlation: frames of a class in a row
    memory: Count = 500  # samples that a device can store; those it trains on
    keep: Annotated[str, Word(tuple(KEEPS)), Beside(".py")] = "reservoir"  # or one's own, as file.py:name
    realtime: bool = True  # a round's training ends when the next round begins
    label_delay_h: NotNegative = 0.0
    labelled: Share = 1.0  # share of the frames that ever get a label
    holdout: Inner = 0.1  # share of a client's training rows that are never stored, and tested on
    horizon_h: Positive | None = None  # hours ahead that near-future accuracy looks; None: one interval
    drift: tuple[Drift, ...] = ()

    def horizon(self, interval_h: float) -> int:
        """The intervals that near-future accuracy looks ahead."""
        return 1 if self.horizon_h is None else max(1, round(self.horizon_h / interval_h))

    def frames_at_most(self, hours: float) -> int:
        """The most frames that come to one device in so many hours: a trace's lines, or 12 standard deviations above
        a Poisson process's mean, which none of 10^30 exceeds. A trace that is gone: any number that a report holds."""
        if self.rate_per_h is not None:
            mean = self.rate_per_h * hours
            return min(MOST_FRAMES, math.ceil(mean + 12 * math.sqrt(mean) + 100))
        with suppress(OSError), Path(str(self.trace)).open("rb") as lines:
            return min(MOST_FRAMES, sum(1 for _ in lines))
        return MOST_FRAMES

    @model_validator(mode="after")
    def _has_its_correlation(self) -> "Stream":
        if (self.order == "stc") != (self.stc is not None):
            raise ValueError(
                f"order is {self.order!r} and stc is {self.stc}; order 'stc' needs stc, frames of a class in a row, "
                "and no other has it"
            )
        return self

    @model_validator(mode="after")
    def _comes_in_one_way(self) -> "Stream":
        if (self.rate_per_h is None) == (self.trace is None):
            raise ValueError(
                f"rate_per_h is {self.rate_per_h} and trace is {self.trace!r}; give one of them: a rate, or a csv of "
                "client,time_h"
            )
        return self
