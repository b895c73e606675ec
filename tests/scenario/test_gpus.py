"""`engine.device` and `ray.num_gpus`: both or neither."""

import pytest

from fedge.errors import UserError
from fedge.scenario.load import load_scenario

SHARES = [f"fleet.{index}.ray.num_gpus=0.25" for index in range(3)]
BROKEN = {  # the line must say
    "nobody reserves": (["engine.device=cuda"], "ray = { num_gpus = 0.25 }"),
    "one class reserves none": (["engine.device=cuda", *SHARES[:2]], r"fleet\.2 .* reserves no GPU"),
    "reserved and idle": ([SHARES[1]], r"fleet\.1 .* reserves 0\.25 of a GPU and engine\.device is 'cpu'"),
    "two for one host": (
        ["engine.device=cuda", *SHARES[:2], "fleet.2.ray.num_gpus=2"],
        r"fleet\.2 .* ray\.num_gpus 2; a host computes on one GPU",
    ),
    "a fence around the wrong memory": (["engine.device=cuda", "limits.hard=true", *SHARES], "limits.hard"),
    "another word": (["engine.device=gpu"], "engine.device is \"gpu\"; it should be 'cpu' or 'cuda'"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_mismatch_is_one_line(case: str) -> None:
    """A GPU would be reserved and left idle, or Ray would hide it from the hosts that want it."""
    changes, says = BROKEN[case]
    with pytest.raises(UserError, match=says) as told:
        load_scenario("quickstart", changes)
    assert "\n" not in str(told.value)


def test_both_together_are_a_scenario() -> None:
    """A GPU could not be used at all."""
    scenario = load_scenario("quickstart", ["engine.device=cuda", *SHARES])
    assert scenario.engine.device == "cuda" and scenario.fleet[0].ray.num_gpus == 0.25
