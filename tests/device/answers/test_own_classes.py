"""`training.answers = "own"` on a device: what its network is asked for, and what it is not."""

from pathlib import Path

import pytest

import fedge
from fedge.errors import UserError
from fedge.scenario.load import load_scenario

FEW = [
    "engine.kind=inline", "rounds=2", "training.epochs=1", "model.factory.epochs=1", "schedule={kind='train_only'}",
    *(f"fleet.{index}.count=1" for index in range(3)), "data.partition={kind='pathological', classes=2}",
]  # fmt: skip


def test_untrained_it_answers_as_told_does(tmp_path: Path) -> None:
    """Breaks if answers are not among the classes of the training samples, or the factory model's change too."""
    still = ["training.learning_rate=1e-12", 'training.instance_filter={kind="none"}']
    both = {
        answers: fedge.run(
            load_scenario("quickstart", [*FEW, *still, f"training.answers={answers}"]), tmp_path / answers
        )
        for answers in ("own", "all")
    }
    for own, every in zip(both["own"].reports(), both["all"].reports(), strict=True):
        assert own["test_correct"] == own["told_correct"] == every["told_correct"]
        assert own["factory_correct"] == every["factory_correct"] == every["test_correct"]
        assert own["train_loss"] < every["train_loss"]
        assert own["macs_done"] == every["macs_done"]


@pytest.mark.parametrize("filter", ["early", "selective_backprop", "infobatch"])
def test_every_method_goes_by_it(filter: str, tmp_path: Path) -> None:
    """Breaks if a filter or a criterion ranks by classes that the client does not have: the round would fail."""
    methods = [f'training.instance_filter={{kind="{filter}", keep=0.5}}', "schedule={finetune_rounds=1}"]
    scenario = load_scenario("quickstart", [*FEW, *methods, "training.answers=own"])
    rows = fedge.run(scenario, tmp_path / "run").reports()
    assert {row["status"] for row in rows} == {"ok"}
    assert all(row["train_loss"] < 5 for row in rows)


def test_numbers_have_no_classes_to_choose_from(tmp_path: Path) -> None:
    """Breaks if answers = "own" is quietly ignored."""
    import numpy as np

    x = np.zeros((40, 1, 8), np.float32)
    fedge.write_dataset(tmp_path / "data", x, np.arange(40, dtype=np.float32)[:, None], task="numbers")
    with pytest.raises(UserError, match="for task 'classes'"):
        load_scenario(
            "quickstart",
            [
                f"data.dataset={tmp_path}/data/",
                "data.partition={kind='iid'}",
                "training.answers=own",
                "model.name=har_cnn",
            ],
        )
