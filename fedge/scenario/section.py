"""The common manner of a scenario's sections, and the ranges that their numbers come in."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Count = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Probability = Annotated[float, Field(ge=0, le=1)]
Share = Annotated[float, Field(gt=0, le=1)]  # of something that may not vanish
Fraction = Annotated[float, Field(ge=0, lt=1)]  # of something that may not be all
Hour = Annotated[float, Field(ge=0, le=24)]  # of a day


class Section(BaseModel):
    """A table of the scenario file: frozen, closed to unknown keys, strict about types, finite numbers only."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, strict=True)
