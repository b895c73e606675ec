"""The common manner of a scenario's sections, and the ranges that their numbers come in."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, core_schema

from fedge.catalog.names import word_or_reference

Count = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Probability = Annotated[float, Field(ge=0, le=1)]
Share = Annotated[float, Field(gt=0, le=1)]  # of something that may not vanish
Fraction = Annotated[float, Field(ge=0, lt=1)]  # of something that may not be all
Inner = Annotated[float, Field(gt=0, lt=1)]  # of something, neither nothing nor all of it
Hour = Annotated[float, Field(ge=0, le=24)]  # of a day
Plain = bool | int | float | str
Args = dict[str, Plain | tuple[Plain, ...] | dict[str, Plain]]  # for a program of one's own


class Section(BaseModel):
    """A table of the scenario file: frozen, closed to unknown keys, strict about types, finite numbers only."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, strict=True)


@dataclass(frozen=True)
class Word:
    """Marks a text that is one of the `known` words, or a reference to code of one's own (fedge.catalog.names)."""

    known: tuple[str, ...]

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        check = partial(word_or_reference, known=self.known)
        return core_schema.no_info_after_validator_function(check, handler(source))

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        return handler(schema) | {"enum": list(self.known)}


def read_only(args: Mapping[str, Any]) -> Mapping[str, Any]:
    """Arguments, or a line of a log, as a mapping that cannot be changed, nor what is in it."""
    return MappingProxyType({key: _read_only(value) for key, value in args.items()})


def _read_only(value: Any) -> Any:
    if isinstance(value, Mapping):
        return read_only(value)
    return tuple(_read_only(entry) for entry in value) if isinstance(value, list | tuple) else value
