"""What may watch a run. The methods are called from the coordinator's loop, so they must be quick.

What is handed over is what the results hold: numbers that passed the egress gate, never data or weights.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from fedge.progress import Progress

if TYPE_CHECKING:
    from fedge.engine.pool import HostEvent
    from fedge.scenario.schema import Scenario


class Observer:
    """Watches nothing; the base of those that do."""

    def progress(self, progress: Progress) -> None:
        """How far it is with what comes before the first round: Ray, the data, the factory model, hosts."""

    def run_started(self, scenario: "Scenario") -> None:
        """All is prepared, the run's folder is open, and the first round that is missing is about to begin."""

    def round_started(self, round: int, clients: int) -> None:
        """Plans for `clients` are about to go out."""

    def report_arrived(self, row: Mapping[str, Any]) -> None:
        """One client's line of reports.jsonl, in the order of arrival."""

    def round_finished(self, figures: Mapping[str, Any]) -> None:
        """The round is committed; `figures` is its line of rounds.jsonl."""

    def run_finished(self, summary: Mapping[str, Any]) -> None:
        """The last round is committed; `summary` is summary.json. A run that fails or is stopped never says it."""

    def notice(self, text: str) -> None:
        """A line that a person should read."""

    def host_event(self, event: "HostEvent") -> None:
        """A Ray host was started, released or lost."""
