"""Changes to `[training]`, for one device class or from a policy: merged into the scenario's, validated like it.

A change is nested as the section is, `{ pruning = { level = 0.7 } }`. A table of another `kind` than the section's
replaces it whole, since its keys are others.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler, ValidationError
from pydantic_core import CoreSchema, InitErrorDetails

from fedge.catalog.names import is_reference
from fedge.scenario.training import Training

Changes = dict[str, Any]
Place = tuple[str | int, ...]


class ChangesOfTraining:
    """Marks a table of changes to `[training]`: any table here, and to whoever explains an error the section itself."""

    model = Training

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return handler(source)

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        return handler(Training.__pydantic_core_schema__)


def changed_training(training: Training, changes: Mapping[str, Any], place: Place) -> Training:
    """`training` with `changes`. ValidationError, its keys below `place`, where that is no training; TypeError where
    a value is nothing that a scenario could hold."""
    if not changes:
        return training
    table = merged(training.model_dump(mode="json"), changes)
    try:
        return Training.model_validate_json(json.dumps(table))
    except ValidationError as error:
        raise _below(place, error) from None


def merged(table: Mapping[str, Any], changes: Mapping[str, Any]) -> Changes:
    """`table` with the changed entries, tables in it entry by entry."""
    result = dict(table)
    for key, value in changes.items():
        before: Any = result.get(key)
        result[key] = merged(before, value) if _of_one_kind(key, before, value) else value
    return result


_ONE_TABLE = ("error_maps",)  # whose kinds have their keys in common


def _of_one_kind(key: str, before: Any, value: Any) -> bool:
    """Whether both are tables, and the second does not say that it is of another kind, with keys of its own."""
    if not (isinstance(before, Mapping) and isinstance(value, Mapping)):
        return False
    kind = before.get("kind")
    return key in _ONE_TABLE or bool(value.get("kind", kind) == kind)


def flat(table: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted key and value of every leaf: `("training.pruning.level", 0.5)`."""
    for key, value in table.items():
        if isinstance(value, Mapping) and value:
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def nested(changes: Mapping[str, Any]) -> Changes:
    """The reverse, for changes by dotted keys; ValueError where one key is a value and a table at once."""
    result: Changes = {}
    for dotted, value in changes.items():
        *path, last = dotted.split(".")
        table = result
        for part in path:
            table = table.setdefault(part, {})
            if not isinstance(table, dict):
                raise ValueError(f"{dotted!r} goes into a value")
        if isinstance(table.get(last), dict) and isinstance(value, Mapping):
            table[last] = merged(table[last], value)
        else:
            table[last] = dict(value) if isinstance(value, Mapping) else value
    return result


def references_of(training: Training) -> dict[str, str]:
    """Key -> what a training names by reference."""
    names = {
        "training.pruning.criterion": training.pruning.criterion,
        "training.instance_filter.kind": training.instance_filter.kind,
        "training.error_maps.score": training.error_maps.score,
        "training.transform": training.transform,
    }
    return {key: name for key, name in names.items() if is_reference(name)}


def _below(place: Place, error: ValidationError) -> ValidationError:
    """The same error with its keys below `place`."""
    details: list[InitErrorDetails] = []
    for problem in error.errors():
        detail = InitErrorDetails(type=problem["type"], loc=(*place, *problem["loc"]), input=problem["input"])
        if "ctx" in problem:
            detail["ctx"] = problem["ctx"]
        details.append(detail)
    return ValidationError.from_exception_data(error.title, details)
