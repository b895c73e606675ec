"""Faults on purpose."""

import json

import pytest
from pydantic import ValidationError

from fedge.fleet.faults import FaultPlan
from fedge.scenario.fleet import Fault, FaultRule, Faults

ROUNDS, CLIENTS = range(1, 41), range(50)


def struck(plan: FaultPlan) -> dict[tuple[int, int], Fault]:
    every = {(round, client): plan.fault_for(round, client) for round in ROUNDS for client in CLIENTS}
    return {place: fault for place, fault in every.items() if fault}


def test_nothing_goes_wrong_by_default():
    """Every run would suffer faults nobody asked for."""
    assert struck(FaultPlan(Faults(), seed=1)) == {}


def test_listed_faults_strike_exactly_where_listed_and_before_drawn_ones():
    """A test of one fault at one place would hit another place, or another fault."""
    faults = Faults(nan=FaultRule(at=((2, 17), (3, 0))), crash=FaultRule(at=((3, 0),)))
    assert struck(FaultPlan(faults, seed=1)) == {(2, 17): Fault.NAN, (3, 0): Fault.CRASH}
    drowned = Faults(nan=FaultRule(at=((2, 17),)), hang=FaultRule(rate=1.0))
    assert FaultPlan(drowned, seed=1).fault_for(2, 17) is Fault.NAN
    assert FaultPlan(drowned, seed=1).fault_for(2, 18) is Fault.HANG


def test_rates_are_met_and_decided_by_the_seed():
    """A 10 % fault would strike at another rate, or elsewhere after a resume."""
    faults = Faults(crash=FaultRule(rate=0.1), lost_message=FaultRule(rate=0.3))
    first = struck(FaultPlan(faults, seed=1))
    assert first == struck(FaultPlan(faults, seed=1)) != struck(FaultPlan(faults, seed=2))
    places = len(ROUNDS) * len(CLIENTS)
    assert sum(fault is Fault.CRASH for fault in first.values()) / places == pytest.approx(0.1, abs=0.03)
    assert sum(fault is Fault.LOST_MESSAGE for fault in first.values()) / places == pytest.approx(
        0.3, abs=0.04
    )


def test_a_fault_does_not_depend_on_who_was_asked_before():
    """Hosts that run clients in another order would meet other faults."""
    plan = FaultPlan(Faults(crash=FaultRule(rate=0.5)), seed=3)
    forward = [plan.fault_for(round, client) for round in ROUNDS for client in CLIENTS]
    backward = [plan.fault_for(round, client) for round in reversed(ROUNDS) for client in reversed(CLIENTS)]
    assert forward == backward[::-1]


@pytest.mark.parametrize(
    "section",
    [
        {"crash": {"rate": 1.5}},
        {"crash": {"rate": 0.6}, "hang": {"rate": 0.6}},
        {"crash": {"at": [[0, 3]]}},
        {"crash": {"at": [[1, -1]]}},
        {"flood": {"rate": 0.1}},
    ],
)
def test_an_impossible_section_is_refused(section):
    """A scenario would run with faults that cannot be what was meant."""
    with pytest.raises(ValidationError):
        Faults.model_validate_json(json.dumps(section))


def test_a_section_reads_as_toml_gives_it():
    """The example in the docstring would be refused."""
    table = {"nan": {"at": [[2, 17], [3, 0]]}, "crash": {"rate": 0.05}}
    faults = Faults.model_validate_json(json.dumps(table))  # JSON mode, as a scenario file is read
    assert faults.nan.at == ((2, 17), (3, 0)) and faults.crash.rate == 0.05
