"""What a user writes of a study: arms x grid x worlds x seeds of one scenario."""

import itertools
import json
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, field_validator, model_validator

from fedge.catalog.files import study_path
from fedge.catalog.names import did_you_mean
from fedge.catalog.text import read_text
from fedge.errors import UserError
from fedge.scenario.explaining.sentence import explain
from fedge.scenario.section import Fraction, Plain, Section
from fedge.yardsticks.settings import NAMES, plays_no_part

FACTORY, TOLD = "factory", "told"  # baselines that every report holds
YARDSTICK = "yardstick"
SCENARIO_ARM = "scenario"  # the only arm of a study that names none
_RESERVED = dict.fromkeys(("data.seed", "seed"), "`worlds` and `seeds` do") | {
    "schedule.unseen": "`unseen` does"
}

Seed = Annotated[int, Field(ge=0)]
Changes = dict[str, Any]  # dotted key -> value


def _one_arm() -> dict[str, dict[str, Any]]:
    return {SCENARIO_ARM: {}}


class Study(Section):
    """One question, as runs that differ in what is asked.

    scenario: a name in scenarios/, or a path beside the study's file. worlds: values of data.seed, who holds what and
    which factory model. seeds: of the training. grid: dotted key -> values that every arm is tried with; a key that an
    arm sets itself stays as it set it. arms: NAME -> what is changed of the scenario, by the keys of --set; with
    `yardstick` a method that moves weights is run in place of fedge's, and keys that play no part in it are not tried.
    every: what is changed of the scenario in every arm, before the grid and the arm's own changes.
    baseline: what gains are measured against, client by client on the same test rows: "factory", "told", or an arm. An
    arm that leaves the grid open is the baseline point by point: each point is compared with itself alone.
    select: which round's network counts for a client: the last, or that of its best validation accuracy; test rows
    never choose.
    unseen: share of the clients nobody learns from; each gets one round at the end, and figures of their own.
    """

    question: str = ""  # in one sentence; the page's first line
    scenario: str
    worlds: Annotated[tuple[Seed, ...], Field(min_length=1)] | None = None  # None: the scenario's
    seeds: Annotated[tuple[Seed, ...], Field(min_length=1)] | None = None  # None: the scenario's
    baseline: str = FACTORY
    select: Literal["last", "validation"] = "last"
    unseen: Fraction | None = None  # None: the scenario's schedule.unseen
    every: dict[str, Any] = Field(default_factory=dict)
    grid: dict[str, Annotated[tuple[Plain, ...], Field(min_length=1)]] = Field(default_factory=dict)
    arms: dict[str, dict[str, Any]] = Field(default_factory=_one_arm)

    @field_validator("worlds", "seeds", "grid")
    @classmethod
    def _each_once(cls, value: Any) -> Any:
        for values in value.values() if isinstance(value, dict) else [value or ()]:
            if len(set(values)) < len(values):
                raise ValueError(f"{list(values)} holds a value twice; a run is repeated by another seed")
        return value

    @model_validator(mode="after")
    def _arms_are_named(self) -> "Study":
        for name in self.arms:
            if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._ -]{0,39}", name) or name in (FACTORY, TOLD):
                raise ValueError(
                    f"an arm is called {name!r}; letters, digits, '.', '_', '-' and blanks, and neither "
                    f"{FACTORY!r} nor {TOLD!r}, which are baselines"
                )
        for place, keys in (
            ("grid", self.grid),
            ("every", dict(flat(self.every))),
            *((f"arms.{n}", dict(flat(a))) for n, a in self.arms.items()),
        ):
            if key := next((key for key in keys if key in _RESERVED), None):
                raise ValueError(f"{place} sets {key!r}: the study's {_RESERVED[key]}")
        return self

    @model_validator(mode="after")
    def _baseline_is_there(self) -> "Study":
        known = list(dict.fromkeys([FACTORY, TOLD, *self.trials(), *self.arms]))
        if self.baseline not in known:
            raise ValueError(f"baseline is {self.baseline!r}; {did_you_mean(self.baseline, known)}")
        if self.by_point:
            trials = self.trials()
            alone = next((arm for arm in trials if self.baseline_of(arm) not in trials), None)
            if alone is not None:
                raise ValueError(
                    f"baseline is the arm {self.baseline!r} at each point of the grid, and {alone!r} has no such "
                    "point: let arms leave the grid's keys alone, or take as baseline one of "
                    f"{', '.join(map(repr, trials))}"
                )
        return self

    @property
    def by_point(self) -> bool:
        """Whether the baseline is an arm that the grid is tried with, so that every point has a baseline of its own."""
        return self.baseline not in (FACTORY, TOLD, *self.trials())

    def baseline_of(self, label: str) -> str:
        """What the arm of that label is measured against."""
        return f"{self.baseline}{self.point(label)}" if self.by_point else self.baseline

    def point(self, label: str) -> str:
        """Where in the grid the arm of that label is; empty: nowhere."""
        return label.removeprefix(self._arm(label))

    def _arm(self, label: str) -> str:
        return max((name for name in self.arms if f"{label} ".startswith(f"{name} ")), key=len)

    @model_validator(mode="after")
    def _yardsticks_are_known(self) -> "Study":
        for name, table in self.arms.items():
            if (yardstick := table.get(YARDSTICK)) is None:
                continue
            if yardstick not in NAMES:
                raise ValueError(
                    f"arms.{name}.yardstick is {yardstick!r}; {did_you_mean(str(yardstick), NAMES)}"
                )
            if idle := next((key for key, _ in flat(table) if plays_no_part(key)), None):
                raise ValueError(
                    f"arms.{name} sets {idle!r}, which plays no part in a yardstick: leave it out"
                )
        return self

    def yardstick(self, label: str) -> str | None:
        """What the arm of that label runs in place of fedge's methods."""
        found: str | None = self.arms[self._arm(label)].get(YARDSTICK)
        return found

    def trials(self) -> dict[str, Changes]:
        """Label -> changes of the scenario: every arm with every point of the grid that it leaves open."""
        found: dict[str, Changes] = {}
        for name, table in self.arms.items():
            own = {key: value for key, value in flat(table) if key != YARDSTICK}
            free = {key: values for key, values in self.grid.items() if key not in own}
            every = dict(flat(self.every))
            if YARDSTICK in table:
                free = {key: values for key, values in free.items() if not plays_no_part(key)}
                every = {key: value for key, value in every.items() if not plays_no_part(key)}
            for point in itertools.product(*free.values()):
                chosen = dict(zip(free, point, strict=True))
                label = " ".join([name, *(f"{_short(key, free)}={value}" for key, value in chosen.items())])
                found[label] = every | chosen | own
        return found


def _short(key: str, among: Mapping[str, Any]) -> str:
    """The last part of a key, where no other key ends so."""
    last = key.rpartition(".")[2]
    return last if sum(other.rpartition(".")[2] == last for other in among) == 1 else key


def flat(table: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted key and value of every leaf. A table that says its `kind` is a leaf: it replaces the scenario's."""
    for key, value in table.items():
        if isinstance(value, Mapping) and value and "kind" not in value:
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def as_settings(changes: Changes) -> list[str]:
    """The same changes as `--set` takes them."""
    return [f"{key}={_toml(value)}" for key, value in changes.items()]


def _toml(value: Any) -> str:
    """A value on one line of TOML."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{json.dumps(key)} = {_toml(entry)}" for key, entry in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return json.dumps(value)


def load_study(name: str) -> tuple[Study, Path]:
    """A study by name or path, and its file. UserError with one line for what is wrong with it."""
    path = study_path(name)
    try:
        table = tomllib.loads(read_text(path))
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"{path}: not valid TOML: {error}") from None
    try:
        return Study.model_validate_json(json.dumps(table, default=str)), path
    except ValidationError as error:
        raise UserError(f"{path}: {explain(error, Study)}") from None
