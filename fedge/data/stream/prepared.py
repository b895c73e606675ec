"""What of a stream is settled before the first round: the order of recorded rows, and a trace's arrivals."""

from pathlib import Path
from typing import Any

from fedge.catalog.text import read_text
from fedge.data.dataset import DataSet
from fedge.data.dividing.parts import DividedRows
from fedge.data.dividing.recorded import in_recorded_order
from fedge.data.stream.arrivals import read_trace, write_times

TRACE = "arrivals.npz"


def stream_key(choice: Any) -> dict[str, object]:
    """What the prepared folder depends on of a scenario's `[data.stream]`, by content; nothing without one."""
    key: dict[str, object] = {"recorded": True} if is_recorded(choice) else {}
    return key | ({"trace": read_text(Path(choice.trace))} if choice is not None and choice.trace else {})


def is_recorded(choice: Any) -> bool:
    """Whether rows come as they were recorded."""
    return choice is not None and bool(choice.order == "recorded")


def arranged(dataset: DataSet, division: DividedRows, choice: Any) -> DividedRows:
    """The division with its clients' training rows in the order in which the stream goes through them."""
    return in_recorded_order(dataset, division) if is_recorded(choice) else division


def write_arrivals(folder: Path, choice: Any, clients: int) -> None:
    """A trace's arrivals, for the devices to read. UserError where the trace is not sound."""
    if choice is not None and choice.trace:
        write_times(folder / TRACE, read_trace(Path(choice.trace), clients))
