"""How many bits of one report a client program chooses, field by field: what it could hide in an honest-looking report.

Each field is of one of three kinds, by who writes it:

    known    what the coordinator knows, or what program and training have no part in: 0 bits
    counted  what the device counts of the work that the program does: no bits of its own choosing. A program steers
             such a count by working more or less, at the cost of that work
    free     what follows from the program's own network, losses and choices: all that its type, range and rounding hold
"""

from collections.abc import Mapping
from typing import Any, Literal

from fedge.catalog.datasets import dataset_facts
from fedge.catalog.facts import DatasetFacts, Task
from fedge.errors import UserError
from fedge.protocol.figures import Figures
from fedge.protocol.report import EXIT_FIELDS, MOST_EPOCHS, STREAM_FIELDS, WORDS, RoundReport
from fedge.protocol.rounding import COARSE, FINE
from fedge.scenario.report import figure_bits

Kind = Literal["known", "counted", "free"]

KNOWN = frozenset(
    {
        "round", "client", "macs_dense", "validation_count", "test_count", "factory_correct", "told_correct",
        "test_lost", "parameters_dense", "memory_limit_bytes", "decisions", "factory_error_sum", "down_s", "up_s",
        "arrived", "labelled", "stored", "ttt_count", "blind_correct", "future_count", "past_count", "trunk_macs",
    }
)  # fmt: skip
"""macs_dense: samples_seen times a constant. test_lost: follows from test_correct, factory_correct and test_gained."""

COUNTED = frozenset(
    {
        "macs_done", "macs_filter", "bit_operations", "parameters", "level_tries", "batch_size", "memory_bytes",
        "memory_asked_bytes", "time_s", "energy_j", "wall_s", "trained", "exit_macs", "answer_s",
        "answer_worst_s",
    }
)  # fmt: skip

_OF_ROWS = frozenset(
    ("validation_correct", "test_correct", "test_gained", "test_better", "test_worse")
)  # counts of the client's own rows, or of the decisions on them
_OF_FRAMES = frozenset(("ttt_correct", "future_correct", "past_correct"))  # counts of the frames asked about
_PER_EXIT = frozenset(("exit_left", "exit_right", "exit_alone"))
_SUMMED = frozenset(("exit_left", "exit_right"))  # to test_count and test_correct
_OF_NUMBERS = frozenset(("validation_error_sum", "test_error_sum"))
_OF_OTHERS = frozenset(("test_better", "test_worse"))  # of labels and numbers

MOST_BITS = 256
"""What a program may choose of a report on the known data sets at most, figures of the scenario's own apart."""


ANY_DATA = DatasetFacts("", "", (1, 1, 1), 1, size=10**9, train_count=10**9, task="numbers")
"""Of which nothing is known: a report may hold all that it can."""


def facts_or_any(dataset: str) -> DatasetFacts:
    """What is known of `data.dataset`: nothing of a data folder that lies with the devices alone, or is gone by now."""
    try:
        return dataset_facts(dataset)
    except UserError:
        return ANY_DATA


def kind_of(field: str) -> Kind:
    """Who writes it."""
    return "known" if field in KNOWN else "counted" if field in COUNTED else "free"


def free_bits(
    epochs: int,
    facts: DatasetFacts,
    served: int = 0,
    *,
    frames: int | None = None,
    detecting: bool = False,
    exits: int = 0,
) -> dict[str, int]:
    """The bits of each field that is free in a report on such data, in which no client has more rows than there are.

    epochs: as planned. served: the last round whose network may serve; 0: the gate lets no word of that pass.
    frames: the most that a stream brings, of which there may be more than rows; None: no stream. detecting: whether
    drift in it is looked for. exits: how many a network has at most, the last among them; 0: none.
    """
    left_out = {
        *(STREAM_FIELDS if frames is None else ()),
        *(() if detecting else ("alarms",)),
        *(() if exits else EXIT_FIELDS),
    }
    schema = RoundReport.model_json_schema()["properties"]
    bits = {}
    for field in RoundReport.model_fields:
        if field == "own" or kind_of(field) != "free" or not _is_sent(field, facts.task, served):
            continue
        if field in left_out:
            continue
        if field in _OF_ROWS:
            per_row = facts.num_classes if facts.task == "labels" and field not in _OF_OTHERS else 1
            bits[field] = (facts.size * per_row).bit_length()
        elif field in _OF_FRAMES:
            bits[field] = (frames or 0).bit_length()
        elif field in _PER_EXIT:
            told = exits - 1 if field in _SUMMED else exits  # the last follows from the sum, which is told
            bits[field] = told * facts.size.bit_length()
        elif field == "served":
            bits[field] = (served + 1).bit_length()  # not said, or a round from 0
        elif field == "epoch_loss":
            bits[field] = min(epochs, MOST_EPOCHS) * COARSE.bits_up_to(schema[field]["items"]["maximum"])
        elif field in WORDS:
            bits[field] = (len(WORDS[field]) - 1 + (field == "loss")).bit_length()  # `loss` may be left out
        else:
            bits[field] = _bits(schema[field])
    return bits


def bits_at_most(
    epochs: int,
    figures: Figures,
    facts: DatasetFacts,
    *,
    served: int = 0,
    frames: int | None = None,
    detecting: bool = False,
    exits: int = 0,
) -> int:
    """What a client program can choose of one report at most, the scenario's own figures included.

    Arguments as of `free_bits`.
    """
    free = free_bits(epochs, facts, served, frames=frames, detecting=detecting, exits=exits)
    return sum(free.values()) + figure_bits(figures)


def _is_sent(field: str, task: Task, served: int) -> bool:
    if field == "served":
        return served > 0
    if field in _OF_NUMBERS:
        return task == "numbers"
    return field not in _OF_OTHERS or task != "classes"


def _bits(schema: Mapping[str, Any]) -> int:
    schema = next((kind for kind in schema.get("anyOf", ()) if kind["type"] != "null"), schema)
    most = schema["maximum"]
    return int(most).bit_length() if schema["type"] == "integer" else FINE.bits_up_to(most)
