"""What was probably meant by a value of the wrong type, as it should have been written."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

_WORDS = {  # what people write for true and false, where TOML knows these two words only
    **dict.fromkeys(("true", "yes", "on", "1"), "true"),
    **dict.fromkeys(("false", "no", "off", "0"), "false"),
}
RENAMED = {"augment": "transform"}
"""Keys by the names that they once had."""

_NOTHING = ("none", "null", "nil")
_STRINGS = ("string_type",)
_NUMBERS = ("float_type", "float_parsing", "int_type", "int_parsing", "int_from_float")
_BOOLEANS = ("bool_type", "bool_parsing")
_LISTS = ("tuple_type", "list_type")


def hint(kind: str, got: Any, place: str) -> str:
    """What to write instead of `got` at `place`, after a semicolon; "" where nothing is near. kind: pydantic's word."""
    if isinstance(got, str) and got.strip().lower() in _NOTHING:
        return "; TOML knows no such value: leave the key out"
    if kind in _STRINGS and isinstance(got, bool | int | float):
        name = f"{place.rpartition('.')[2]} = {_toml(str(got))}"
        return f"; write it in quotes: {name}, on a command line '{place}={_toml(str(got))}'"
    if isinstance(got, list) and len(got) == 1 and kind not in _LISTS:
        return f"; one value stands without brackets: write {_toml(got[0])}"
    if kind in _BOOLEANS and (word := _WORDS.get(_text(got))):
        return f"; write {word}"
    if kind in _NUMBERS and (number := _number(got, whole=kind.startswith("int"))):
        return f"; write {number}"
    if kind in _LISTS and not isinstance(got, dict | list):
        return "; a list stands in brackets: [...]"
    return ""


def section_hint(place: str, got: Any, sections: Sequence[Mapping[str, Any]]) -> str:
    """What to write where `got` stands in place of a section. sections: the keys of those it may be, as JSON schemas.

    Where there is one per `kind`, a kind alone is no change but the whole table.
    """
    by_kind = len(sections) > 1
    for keys in sections:
        for key, entry in keys.items():
            if got in _words_of(entry):
                text = f"{key} = {_toml(got)}"
                return f"write {place}={{{text}}}" if by_kind else f"write {place}.{text}"
    if by_kind:
        kinds = [word for keys in sections for word in _words_of(keys.get("kind", {}))]
        return f"as in {place}={{kind = {_toml(kinds[0])}}}; kinds: {', '.join(map(str, kinds))}"
    return f"allowed: {', '.join(sorted({key for keys in sections for key in keys}))}"


def _words_of(entry: Mapping[str, Any]) -> list[Any]:
    """The closed list of words that a key's value is one of."""
    if "const" in entry:
        return [entry["const"]]
    return [word for member in (entry, *entry.get("anyOf", ())) for word in member.get("enum", ())]


def _text(got: Any) -> str:
    return str(got).strip().strip("'\"").lower()


def _number(got: Any, *, whole: bool) -> str | None:
    """`got` as TOML writes that number: .5, 5., 1,5, 50 %, 1/4, 007, "4" and, where a whole one is wanted, 3.0."""
    text = _text(got).replace(" ", "")
    percent = text.endswith("%")
    text = text.removesuffix("%")
    above, slash, below = text.partition("/")
    try:
        value = _float(above) / (_float(below) if slash else 1.0) / (100.0 if percent else 1.0)
    except (ValueError, ZeroDivisionError):
        return None
    if whole:
        return str(int(value)) if value.is_integer() else None
    return f"{value:g}"


def _float(text: str) -> float:
    """A number with a point or with a decimal comma; ValueError for anything else."""
    return float(text.replace(",", ".") if text.count(",") == 1 and "." not in text else text)


def _toml(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
