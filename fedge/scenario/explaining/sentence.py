"""What pydantic found wrong in a scenario, as one line for a person: the key, what was got, what is allowed."""

import json
from collections.abc import Iterator, Sequence
from typing import Any

from pydantic import BaseModel, ValidationError

from fedge.catalog.names import nearest
from fedge.scenario.explaining.hints import RENAMED, hint, section_hint

Schema = dict[str, Any]  # JSON schema


def explain(error: ValidationError, model: type[BaseModel]) -> str:
    """The first thing that is wrong, in one line, and how many more there are."""
    schema = model.model_json_schema()
    keys = _all_keys(schema)
    # A table where a number may stand too was meant as the table: what the number's check says of it is noise.
    problems = [problem for problem in error.errors() if not _is_table(problem)] or error.errors()
    first = min(
        problems, key=lambda problem: problem["type"] != "extra_forbidden"
    )  # a typo explains the rest
    text = _sentence(first, _place(first, keys, schema), schema)
    more = len({_place(problem, keys, schema) for problem in problems}) - 1
    return f"{text} (and {more} more)" if more else text


def _is_table(problem: Any) -> bool:
    return problem["type"].endswith("_type") and isinstance(problem.get("input"), dict)


def _place(problem: Any, keys: set[str], schema: Schema) -> str:
    """Where it is, as a person would write it: pydantic also names the member of a union that it tried."""
    *path, last = loc = problem["loc"] or ("",)
    kept = [
        str(part)
        for index, part in enumerate(path)
        if isinstance(part, int) or part in keys or _is_own_name(loc[: index + 1], schema)
    ]
    unknown = problem["type"] == "extra_forbidden"
    if last in keys or isinstance(last, int) or unknown or _is_own_name(loc, schema):
        kept.append(str(last))
    return ".".join(kept)


def _is_own_name(loc: Sequence[str | int], schema: Schema) -> bool:
    """Whether the last of `loc` is a name that the user chose: a figure's, a resource's, an argument's."""
    if len(loc) < 2 or loc[-1] == "[key]":
        return False
    *path, key, _ = loc
    entries = [_keys(section)[key] for section in _sections_at(path, schema) if key in _keys(section)]
    return any(_named_entries(entry) for entry in entries)


def _named_entries(entry: Schema) -> list[Schema]:
    """Of a table whose keys are the user's own: what stands below them."""
    below = [*entry.get("patternProperties", {}).values(), entry.get("additionalProperties")]
    return [schema for schema in below if isinstance(schema, dict)]


def _sentence(problem: Any, place: str, schema: Schema) -> str:
    got = problem.get("input")
    match problem["type"]:
        case "extra_forbidden":
            return f"unknown key {place!r}; {_instead(problem['loc'], place, schema)}"
        case "missing":
            return f"{place!r} is missing"
        case "value_error":
            reason = str(problem["ctx"]["error"])
            return f"{place}: {reason}" if place else reason
        case "union_tag_not_found" if isinstance(got, dict):
            return f"{place!r} needs a `kind`"
        case "union_tag_invalid":
            return f"{place}.kind is {problem['ctx']['tag']!r}; allowed: {problem['ctx']['expected_tags']}"
        case "too_short":
            return f"{place!r} is empty; it needs at least one entry"
        case "model_type" | "model_attributes_type" | "dict_type" | "union_tag_not_found" if (
            sections := _sections_at(problem["loc"], schema)
        ):
            keys = [_keys(section) for section in sections]
            return f"{place} is {_shown(got)}; it is a section: {section_hint(place, got, keys)}"
    should = problem["msg"].partition("should ")[2]
    text = f"{place} is {_shown(got)}; it should {should}" if should else f"{place}: {problem['msg']}"
    return text + hint(problem["type"], got, place)


def _shown(value: Any) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= 60 else text[:57] + "..."


def _instead(loc: Sequence[str | int], place: str, schema: Schema) -> str:
    """What to write in place of an unknown key: the nearest of its section's, or all of them."""
    *path, key = loc
    known = _keys_at(path, schema)
    if (now := RENAMED.get(str(key))) in known:
        return f"did you mean {now!r}? it is called so now"
    if near := nearest(str(key), known):
        return f"did you mean {near!r}?"
    allowed = f"allowed: {', '.join(known)}"
    if key not in _all_keys(schema):
        return allowed
    if "kind" not in known or path[-1] in place.split("."):
        return f"it is a key of another section; {allowed}"
    whole = f"--set '{place.rpartition('.')[0]}={{kind=\"{path[-1]}\", ...}}'"
    return f"it is a key of another kind; {allowed}; a change of kind sets the whole table: {whole}"


def _all_keys(schema: Schema) -> set[str]:
    return {key for section in (schema, *schema.get("$defs", {}).values()) for key in _keys(section)}


def _keys_at(path: Sequence[str | int], schema: Schema) -> list[str]:
    return sorted({key for section in _sections_at(path, schema) for key in _keys(section)})


def _sections_at(path: Sequence[str | int], schema: Schema) -> list[Schema]:
    """The sections at `path`; where a section has several kinds, pydantic's path names the kind too."""
    sections = [schema]
    for part in path:
        if inside := [_keys(section)[part] for section in sections if part in _keys(section)]:
            sections = [section for entry in inside for section in _sections(entry, schema)]
        else:
            sections = [section for section in sections if _is_kind(section, part)] or sections
    return sections


def _sections(entry: Schema, schema: Schema) -> Iterator[Schema]:
    """The tables that a key's value may be, itself or as the entries of an array."""
    if "$ref" in entry:
        yield schema["$defs"][entry["$ref"].rpartition("/")[2]]
    entries = (entry["items"],) if "items" in entry else ()
    for inner in (*entry.get("anyOf", ()), *entry.get("oneOf", ()), *entries, *_named_entries(entry)):
        yield from _sections(inner, schema)


def _is_kind(section: Schema, part: str | int) -> bool:
    kind = _keys(section).get("kind", {})
    return part in (section.get("title"), kind.get("const"), *kind.get("enum", ()))


def _keys(section: Schema) -> Schema:
    keys: Schema = section.get("properties", {})
    return keys
