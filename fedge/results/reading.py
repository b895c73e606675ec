"""What a folder of results holds: which kind it is, and its files; what is wrong with them is told in one line."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from fedge.errors import UserError
from fedge.results.run_folder import SCENARIO, SUMMARY

STUDY, REPORTS, ROUNDS, AUDIT = "study.json", "reports.jsonl", "rounds.jsonl", "audit.json"


def kind_of(folder: Path) -> Literal["run", "study", "audit"]:
    """UserError where `folder` is neither a run's nor a study's nor an audit's."""
    if not folder.is_dir():
        raise UserError(f"{folder} is no folder; give the folder of a run or of a study, as --out named it")
    if (folder / AUDIT).is_file():
        return "audit"
    if (folder / STUDY).is_file():
        return "study"
    if (folder / REPORTS).is_file() or (folder / ROUNDS).is_file():
        return "run"
    if (folder / "cells").is_dir():
        raise UserError(
            f"{folder} holds a study of which no cell is done ({STUDY} is missing): run it to its end"
        )
    raise UserError(
        f"{folder} holds no results: neither {REPORTS} of a run nor {STUDY} of a study; "
        "give the folder that --out named"
    )


def read_json(path: Path) -> dict[str, Any]:
    """A file of one JSON object. UserError where it is missing or damaged."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise UserError(f"{path} is damaged: {error}") from None
    if not isinstance(found, dict):
        raise UserError(f"{path} is damaged: it holds no JSON object")
    return found


def read_summary(folder: Path) -> dict[str, Any]:
    """A finished run's summary.json. UserError where the run is not at its end."""
    if not (folder / SUMMARY).is_file():
        how = f"resume it (fedge run {folder / SCENARIO} --out {folder} --resume)"
        raise UserError(f"{folder} holds a run that is not at its end ({SUMMARY} is missing): {how}")
    return read_json(folder / SUMMARY)


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The objects of a .jsonl file, in order; none where the file is missing. UserError names a damaged line."""
    if not path.is_file():
        return []
    rows, words = [], dict[str, str]()

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        """Names and words are held once, not by each of ten thousand lines."""
        return {
            words.setdefault(name, name): words.setdefault(value, value) if isinstance(value, str) else value
            for name, value in pairs
        }

    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                rows.append(json.loads(line, object_pairs_hook=once))
            except ValueError as error:
                raise UserError(f"{path}: line {number} is damaged or not yet whole: {error}") from None
    return rows


def arms_by_factory(study: Mapping[str, Any]) -> list[list[str]]:
    """A study's arms by the factory model that they start from, that of most arms first; `study`: study.json."""
    groups: dict[str, list[str]] = {}
    for arm, figures in study["arms"].items():
        groups.setdefault(figures.get("factory_model", ""), []).append(arm)
    return sorted(groups.values(), key=len, reverse=True)


def of_another_factory(study: Mapping[str, Any]) -> frozenset[str]:
    """The arms whose gains are over another factory model than those of most: not to be compared with theirs."""
    if study["baseline"] not in ("factory", "told"):
        return frozenset()
    return frozenset(arm for group in arms_by_factory(study)[1:] for arm in group)
