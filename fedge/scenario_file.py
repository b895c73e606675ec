"""A scenario's TOML: read with `--set` changes, validated, explained in one line when it is wrong, written."""

import difflib
import json
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tomli_w
from pydantic import BaseModel, ValidationError

from fedge.errors import UserError
from fedge.scenario import Scenario


def read_scenario(path: Path, changes: Sequence[str] = ()) -> Scenario:
    """Read `path`, apply `changes` ("section.key=value", later ones win) and validate.

    Raises UserError with one line that names the key, what was got, and what is allowed.
    """
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"{path}: not valid TOML: {error}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read: {_os_reason(error)}") from None
    for change in changes:
        _apply(table, change)
    return parse_scenario(table, source=str(path))


def parse_scenario(table: dict[str, Any], source: str = "scenario") -> Scenario:
    """Validate an already parsed table; `source` begins the error's line."""
    try:
        # JSON mode: arrays become tuples while every other type stays strict.
        return Scenario.model_validate_json(json.dumps(table, default=str))
    except ValidationError as error:
        raise UserError(f"{source}: {explain(error, Scenario)}") from None


def scenario_toml(scenario: Scenario) -> str:
    """The resolved scenario, defaults and all; reading it again gives an equal scenario."""
    return tomli_w.dumps(scenario.model_dump(mode="json", exclude_none=True))


def _apply(table: dict[str, Any], change: str) -> None:
    """Set one dotted key; the value is TOML where it parses as TOML, else a plain string."""
    key, equals, text = change.partition("=")
    path = [part.strip() for part in key.split(".")]
    if not equals or not all(path):
        raise UserError(f"--set {change!r}: want key=value, as in --set training.pruning.level=0.5")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text
    target: Any = table
    for part in path[:-1]:
        target = _step(target, part, change)
    if isinstance(target, list):
        _step(target, path[-1], change)  # the index must exist
        target[int(path[-1])] = value
    elif isinstance(target, dict):
        target[path[-1]] = value
    else:
        raise UserError(f"--set {change!r}: {'.'.join(path[:-1])} is a value, not a section")


def _step(target: Any, part: str, change: str) -> Any:
    if isinstance(target, dict):
        return target.setdefault(part, {})
    if isinstance(target, list) and part.isdigit() and int(part) < len(target):
        return target[int(part)]
    raise UserError(f"--set {change!r}: there is no {part!r} to go into")


def explain(error: ValidationError, model: type[BaseModel]) -> str:
    """The first thing that is wrong, in one line, and how many more there are."""
    problems = error.errors()
    keys = _keys(model)
    first = min(
        problems, key=lambda problem: problem["type"] != "extra_forbidden"
    )  # a typo explains the rest
    text = _sentence(first, _place(first, keys), keys)
    more = len({_place(problem, keys) for problem in problems}) - 1
    return f"{text} (and {more} more)" if more else text


def _place(problem: Any, keys: set[str]) -> str:
    """Where it is, as a person would write it: pydantic also names the member of a union that it tried."""
    *path, last = problem["loc"] or ("",)
    kept = [str(part) for part in path if isinstance(part, int) or part in keys]
    if last in keys or isinstance(last, int) or problem["type"] == "extra_forbidden":
        kept.append(str(last))
    return ".".join(kept)


def _sentence(problem: Any, place: str, keys: set[str]) -> str:
    got = problem.get("input")
    match problem["type"]:
        case "extra_forbidden":
            return f"unknown key {place!r}{_nearest(place, keys)}"
        case "missing":
            return f"{place!r} is missing"
        case "value_error":
            reason = str(problem["ctx"]["error"])
            return f"{place}: {reason}" if place else reason
        case "union_tag_not_found":
            return f"{place!r} needs a `kind`"
        case "union_tag_invalid":
            return f"{place}.kind is {problem['ctx']['tag']!r}; allowed: {problem['ctx']['expected_tags']}"
        case "too_short":
            return f"{place!r} is empty; it needs at least one entry"
        case "model_type" | "model_attributes_type":
            return f"{place} is {_shown(got)}; it is a section, with keys of its own"
    should = problem["msg"].partition("should ")[2]
    return f"{place} is {_shown(got)}; it should {should}" if should else f"{place}: {problem['msg']}"


def _shown(value: Any) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= 60 else text[:57] + "..."


def _keys(model: type[BaseModel]) -> set[str]:
    """Every key name of the model's JSON schema: where a misspelt key finds its neighbour."""
    schema = model.model_json_schema()
    sections = [schema, *schema.get("$defs", {}).values()]
    return {key for section in sections for key in section.get("properties", {})}


def _nearest(place: str, keys: set[str]) -> str:
    key = place.rsplit(".", 1)[-1]
    if key in keys:
        return "; it is a key of another section or kind"
    near = difflib.get_close_matches(key, sorted(keys), n=1)
    return f"; did you mean {near[0]!r}?" if near else f"; allowed names: {', '.join(sorted(keys))}"


def _os_reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or type(error).__name__
