"""A scenario's TOML: read with `--set` changes, validated, written."""

import copy
import functools
import json
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import tomli_w
from pydantic import ValidationError

from fedge.catalog.files import policy_path
from fedge.catalog.fingerprint import read_fingerprint
from fedge.catalog.program import Program, read_programs
from fedge.catalog.text import read_text
from fedge.errors import UserError
from fedge.scenario.beside import Beside, Keys, path_fields, resolve
from fedge.scenario.explaining.sentence import explain
from fedge.scenario.schema import Scenario


def read_scenario(path: Path, changes: Sequence[str] = (), *, beside: Path | None = None) -> Scenario:
    """Read `path`, apply `changes` ("section.key=value", later ones win) and validate.

    Relative paths in the file are taken from its folder, those in `changes` from `beside`, or else from the working
    directory; the scenario holds absolute ones.
    Raises UserError with one line that names the key, what was got, and what is allowed.
    """
    if isinstance(changes, str):
        raise UserError(f"changes are {changes!r}, one text; give a list of them: [{changes!r}]")
    table = resolve(_read(path), path.absolute().parent, _marks())
    if "programs" in table:
        raise UserError(
            f"{path}: unknown key 'programs'; the texts of one's own code are read from their files"
        )
    changed = copy.deepcopy(table)
    for change in changes:
        _apply(changed, change, beside or Path.cwd())
    try:
        return with_programs(_validate(changed))
    except ValidationError as error:
        source = "--set" if changes and _is_valid(table) else str(path)
        raise UserError(f"{source}: {explain(error, Scenario)}") from None


def parse_scenario(table: dict[str, Any]) -> Scenario:
    """Validate an already parsed table. Raises UserError as `read_scenario` does."""
    try:
        return _validate(table)
    except ValidationError as error:
        raise UserError(f"scenario: {explain(error, Scenario)}") from None


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(read_text(path))
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"{path}: not valid TOML: {error}") from None


def _validate(table: dict[str, Any]) -> Scenario:
    # JSON mode: arrays become tuples while every other type stays strict.
    return Scenario.model_validate_json(json.dumps(table, default=str))


def _is_valid(table: dict[str, Any]) -> bool:
    try:
        return bool(_validate(table))
    except ValidationError:
        return False


def absolute(scenario: Scenario) -> Scenario:
    """`scenario`, made by hand perhaps, with its relative paths taken from the working directory."""
    table = scenario.model_dump(mode="json")
    resolved = resolve(table, Path.cwd(), _marks())
    return with_programs(scenario if resolved == table else parse_scenario(resolved))


def with_programs(scenario: Scenario) -> Scenario:
    """`scenario` with the texts of its policy, of the files that its references name and of its devices' fingerprints.
    UserError where one cannot be read."""
    table = scenario.model_dump(mode="json", exclude={"programs"})
    paths = {text.rpartition(":")[0] for text in _marked(table) if ".py:" in text}
    if scenario.model.program is not None:
        paths.add(scenario.model.program)
    if policy := scenario.schedule.named:
        paths.add(str(policy_path(policy)))
    programs = {path: read_programs(Path(path)) for path in sorted(paths)}
    programs |= {
        own.fingerprint: Program(
            Path(own.fingerprint).stem + ".json", read_fingerprint(Path(own.fingerprint)), {}
        )
        for own in scenario.device
        if own.fingerprint is not None
    }
    return scenario if programs == scenario.programs else scenario.model_copy(update={"programs": programs})


def _marked(value: Any, keys: Keys = ()) -> Iterator[str]:
    """The texts in a scenario's table that may name a file."""
    if isinstance(value, dict):
        for key, entry in value.items():
            yield from _marked(entry, (*keys, key))
    elif isinstance(value, list):
        for entry in value:
            yield from _marked(entry, keys)
    elif isinstance(value, str) and keys in _marks():
        yield value


@functools.cache
def _marks() -> dict[Keys, Beside]:
    return path_fields(Scenario)


def scenario_toml(scenario: Scenario) -> str:
    """The resolved scenario, defaults and all, its paths absolute; reading it anywhere gives an equal scenario."""
    return tomli_w.dumps(scenario.model_dump(mode="json", exclude_none=True, exclude={"programs"}))


def _apply(table: dict[str, Any], change: str, beside: Path) -> None:
    """Set one dotted key; the value is TOML where it parses as TOML, else a plain string."""
    key, equals, text = change.partition("=")
    path = [part.strip() for part in key.split(".")]
    if not equals or not all(path):
        raise UserError(f"--set {change!r}: want key=value, as in --set training.pruning.level=0.5")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text
    value = resolve(value, beside, _marks(), tuple(part for part in path if not part.isdigit()))
    if path[0] == "client" and len(path) > 1 and isinstance(table.get("client"), str):
        table["client"] = {"program": table["client"]}  # as it is written without arguments
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
    there_are = f"; the entries are 0 to {len(target) - 1}" if isinstance(target, list) and target else ""
    raise UserError(f"--set {change!r}: there is no {part!r} to go into{there_are}")
