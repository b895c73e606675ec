"""The base of those who write to a tracker."""

from pathlib import Path

from fedge.console.observer import Observer


class Tracker(Observer):
    """Made before the run, with its folder of results; opened by `run_started`, closed however the run ends."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.round = 0  # the last one that was heard of

    def close(self, *, finished: bool) -> None:
        """The run is over; `finished`: it came to its end."""
