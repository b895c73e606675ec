"""When a round says that the run cannot succeed, and when it was bad luck."""

import pytest

from fedge.coordinator.cohort import Fleet
from fedge.coordinator.rounds import explained, hopeless
from fedge.scenario.load import load_scenario

CASES = [  # statuses of the clients asked, of a fleet of three; the first failure that ends the run, by place
    (["client_raised"] * 3, 0),
    (["blocked_field", "client_raised", "diverged"], 0),
    (["does_not_fit"] * 3, 0),
    (["client_raised"], 0),
    (["diverged", "client_raised"], 1),
    (["no_training_data"], None),  # the other two may have data
    (["diverged", "does_not_fit"], None),
    (["client_raised", "ok", "client_raised"], None),
    (["client_raised", "offline", "client_raised"], None),
    (["host_died"] * 3, None),
    ([], None),
]


@pytest.mark.parametrize(("statuses", "culprit"), CASES)
def test_a_round_without_hope(statuses: list[str], culprit: int | None) -> None:
    """Breaks if a run of 60 rounds fails 60 times the same way, or if one poor client of a hundred ends it."""
    asked = Fleet(load_scenario("quickstart")).ask(1)
    rows = [{"client": client, "status": status} for client, status in enumerate(statuses)]
    found = hopeless(rows, asked, clients=3)
    assert (found and found["client"]) == culprit


def test_injected_faults_are_no_reason() -> None:
    """Breaks if a scenario that lets every device fail on purpose is ended for it."""
    scenario = load_scenario("quickstart", ["faults.nan.rate=1.0"])
    asked = Fleet(scenario).ask(1)
    rows = [{"client": client, "status": "diverged"} for client in asked.plans]
    assert hopeless(rows, asked, clients=scenario.clients) is None


def test_only_a_log_that_is_there_is_pointed_to(tmp_path) -> None:
    """Breaks if a person is sent to a file that does not exist."""
    row = {"client": 3, "status": "client_raised"}
    assert explained(row, tmp_path) == "client 3: client_raised"
    log = tmp_path / "devices" / "3" / "errors.log"
    log.parent.mkdir(parents=True)
    log.touch()
    assert explained(row, tmp_path) == f"client 3: client_raised, see {log}"
