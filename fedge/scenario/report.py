"""`[report]`: figures of one's own that a device may report beside fedge's, each declared, bounded and rounded."""

import keyword
import math
from collections.abc import Mapping
from typing import Annotated, Self

from pydantic import Field, model_validator

from fedge.scenario.section import Section

Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,31}$")]


class Figure(Section):
    """A figure between `least` and `most`, rounded on the device to one of `steps` values, both ends among them."""

    least: float
    most: float
    steps: Annotated[int, Field(ge=2, le=2**24)]

    @property
    def bits(self) -> int:
        """What one report of it can tell at most."""
        return math.ceil(math.log2(self.steps))

    def rounded(self, value: float) -> float:
        """The nearest of its values; `value` lies between `least` and `most`."""
        step = round((value - self.least) / (self.most - self.least) * (self.steps - 1))
        share = step / (self.steps - 1)
        return self.least * (1 - share) + self.most * share

    @model_validator(mode="after")
    def _has_a_range(self) -> Self:
        if not self.least < self.most:
            raise ValueError(f"least is {self.least:g} and most {self.most:g}; least must be the smaller")
        if not math.isfinite(self.most - self.least):
            raise ValueError("least and most are too far apart; take a range below 1e308")
        return self


class Report(Section):
    """The section. `bits`: what all figures of one's own may tell together, per report."""

    bits: Annotated[int, Field(ge=0, le=1024)] = 32
    figures: dict[Name, Figure] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _fits_the_budget(self) -> Self:
        taken = figure_bits(self.figures)
        if taken > self.bits:
            raise ValueError(
                f"report.bits is {self.bits} and the figures take {taken}: lower their steps, or raise report.bits"
            )
        if words := [name for name in self.figures if keyword.iskeyword(name)]:
            raise ValueError(
                f"{words[0]!r} is a word of Python's, which device.report cannot take: rename it"
            )
        return self


def figure_bits(figures: Mapping[str, Figure]) -> int:
    """What these figures can tell together in one report, in bits."""
    return sum(figure.bits for figure in figures.values())
