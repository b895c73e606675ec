"""`training.optimizer` and `training.decay`: one table each, and one line for what cannot be."""

import tomllib

import pytest

from fedge.errors import UserError
from fedge.scenario.file import parse_scenario, scenario_toml
from fedge.scenario.load import load_scenario

WRONG = {
    "training.momentum=0.5": "training.optimizer.momentum=0.5",
    "training.weight_decay=0.001": "optimizer = { weight_decay = 0.001 }",
    "fleet.0.training={momentum=0.3}": "fleet.0.training: momentum stands in the optimizer's table",
    "training.optimizer=adam": 'training.optimizer={kind = "adam"}',
    "training.optimizer={kind='lion'}": "'sgd', 'adam', 'adamw'",
    "training.optimizer={kind='adam',momentum=0.5}": "allowed: betas, eps, kind, weight_decay",
    "training.optimizer={kind='adamw',betas=[0.9,1.5]}": "betas.1 is 1.5; it should be less than 1",
    "training.optimizer={nesterov=true,momentum=0.0}": "looks ahead by its momentum",
    "training.decay={kind='linear'}": "'constant', 'cosine', 'step'",
    "training.decay={kind='step',at=[0.7,0.5]}": "the shares must rise",
    "training.decay={kind='step',at=[]}": "at least one entry",
    "training.decay={kind='cosine',per='epoch'}": "'run' or 'round'",
}


@pytest.mark.parametrize("change", WRONG)
def test_what_cannot_be_is_one_line(change):
    """Breaks if a user of the keys before, or of another library's, is left without what to write."""
    with pytest.raises(UserError) as refused:
        load_scenario("quickstart", [change])
    assert WRONG[change] in str(refused.value) and "\n" not in str(refused.value)


def test_without_a_kind_it_is_sgd():
    """Breaks if a momentum of one's own needs the whole table."""
    training = load_scenario("quickstart", ["training.optimizer.momentum=0.5"]).training
    assert training.optimizer.model_dump() == {
        "kind": "sgd",
        "momentum": 0.5,
        "nesterov": False,
        "weight_decay": 0,
    }


def test_a_written_scenario_reads_back():
    """Breaks if a run cannot be resumed, or a plan not be read by its device: arrays below a kind are lists."""
    changes = ["training.optimizer={kind='adamw',betas=[0.8,0.99]}", "training.decay={kind='step',at=[0.2]}"]
    scenario = load_scenario("quickstart", changes)
    assert parse_scenario(tomllib.loads(scenario_toml(scenario))) == scenario
    assert type(scenario).model_validate_json(scenario.model_dump_json()) == scenario
