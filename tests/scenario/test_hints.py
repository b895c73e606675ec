"""Slips with a value's form: the line says how it should have been written."""

import pytest

from fedge.errors import UserError
from fedge.scenario.load import load_scenario

SLIPS = {
    "name=7": "'name=\"7\"'",
    "client=true": 'client = "True"',
    "fleet.1.name=3.5": "'fleet.1.name=\"3.5\"'",
    "training.optimizer.momentum=.9": "write 0.9",
    "training.learning_rate=0,05": "write 0.05",
    "data.factory_fraction=15%": "write 0.15",
    "training.error_maps.keep=1/4": "write 0.25",
    "training.learning_rate='1e-2'": "write 0.01",
    "rounds=4.0": "write 4",
    "rounds=008": "write 8",
    "training.batch_size=[16]": "write 16",
    "limits.hard=True": "write true",
    "training.error_maps.alternate=off": "write false",
    "training.optimizer.momentum=None": "leave the key out",
    "fleet=jetson-nano": "a list stands in brackets",
    "schedule=train_only": 'write schedule={kind = "train_only"}',
    "training.instance_filter=infobatch": 'write training.instance_filter={kind = "infobatch"}',
    "data.partition=dirichlett": "kinds: iid, dirichlet, pathological",
    "availability=trace": 'write availability.kind = "trace"',
    "model=resnet8": 'write model.name = "resnet8"',
    "training.error_maps=0.25": "allowed: alternate, dense_first, keep",
}


@pytest.mark.parametrize("change", SLIPS)
def test_a_slip_is_answered_by_what_was_meant(change: str) -> None:
    """Breaks if a person must look up how to write what they plainly meant."""
    with pytest.raises(UserError) as caught:
        load_scenario("quickstart", [change])
    assert SLIPS[change] in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "change", ["rounds=many", "rounds=4.5", "training.optimizer.momentum=5/0", "limits.hard=perhaps"]
)
def test_what_cannot_be_guessed_is_not(change: str) -> None:
    """Breaks if a hint is an invention."""
    with pytest.raises(UserError) as caught:
        load_scenario("quickstart", [change])
    assert "write" not in str(caught.value)
