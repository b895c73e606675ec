"""The base of those who write to a tracker."""

from dataclasses import dataclass
from pathlib import Path

from fedge.console.observer import Observer


@dataclass(frozen=True)
class Place:
    """Where a run stands among others. name: its own, "" for the scenario's. study: whose cell it is. parent: what the
    tracker itself calls the study."""

    name: str = ""
    study: str = ""
    parent: str = ""


ALONE = Place()


class Tracker(Observer):
    """Made before the run, with its folder of results; opened by `run_started`, closed however the run ends."""

    def __init__(self, folder: Path, place: Place = ALONE) -> None:
        self.folder, self.place = folder, place
        self.round = 0  # the last one that was heard of

    def close(self, *, finished: bool) -> None:
        """The run is over; `finished`: it came to its end."""
