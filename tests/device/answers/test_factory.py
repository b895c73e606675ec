"""What the factory model gets right, and what a device's network gains and loses against it."""

import math

import pytest
import torch
from torch import Tensor, nn

import fedge
from fedge.data.shard import Shard
from fedge.device.answers.factory import FactoryAnswers
from fedge.device.state import StateFolder
from fedge.prepare import prepare
from fedge.training.loop import evaluate

NAN, INF = math.nan, math.inf
LOGITS_NC = torch.tensor(
    [
        [3.0, 2.0, 1.0],  # says 0; told 1 and 2: 1
        [0.0, 1.0, 2.0],  # says 2; told: 2
        [5.0, 0.0, 4.0],  # says 0; told: 2
        [9.0, 1.0, 0.0],  # says 0; told: 1
    ]
)
Y_N = torch.tensor([1, 2, 1, 0])


class Says(nn.Module):
    """A network that answers its input, the number of a row, with that row of `logits_NC`."""

    def __init__(self, logits_NC: Tensor) -> None:
        super().__init__()
        self.logits_NC = logits_NC

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return self.logits_NC[x_BCHW.flatten().long()]


def asked(logits_NC: Tensor, y_N: Tensor, classes: list[int] | None = None) -> list[bool]:
    x_NCHW = torch.arange(len(y_N), dtype=torch.float32)[:, None, None, None]
    return evaluate(
        Says(logits_NC), [(x_NCHW[:3], y_N[:3]), (x_NCHW[3:], y_N[3:])], classes=classes
    ).right_N.tolist()


def test_told_by_hand() -> None:
    """Breaks if a class that the client never saw may still be answered, or if a label of one counts as right."""
    assert asked(LOGITS_NC, Y_N) == [False, True, False, True]
    assert asked(LOGITS_NC, Y_N, [1, 2]) == [True, True, False, False]
    assert asked(LOGITS_NC, Y_N, [0, 1, 2]) == asked(LOGITS_NC, Y_N)
    assert asked(LOGITS_NC, Y_N, [0]) == [False, False, False, True]


def test_told_nothing_answers_nothing() -> None:
    """Breaks if a client without training rows is credited with class 0, the place of the largest of equal -inf."""
    assert asked(LOGITS_NC, torch.zeros(4, dtype=torch.long), []) == [False] * 4


def test_what_is_not_finite_is_no_answer() -> None:
    """Breaks if a diverged network is right wherever the label is 0, told or not."""
    logits_NC = torch.tensor(
        [[NAN, NAN, NAN], [NAN, 1.0, 2.0], [INF, 0.0, 0.0], [-INF, -INF, -INF], [2.0, 1.0, 0.0]]
    )
    y_N = torch.tensor([0, 2, 0, 0, 0])
    assert asked(logits_NC, y_N) == [False, False, False, False, True]
    assert asked(logits_NC, y_N, [0, 2]) == [False, False, False, False, True]
    assert asked(logits_NC, y_N, [2]) == [False] * 5


def test_tallies_by_hand() -> None:
    """Breaks if gained and lost are swapped, or do not explain the difference of right answers."""
    factory = FactoryAnswers(
        torch.tensor([True, True, False, False, True]), torch.tensor([True, True, True, False, True])
    )
    right_N = torch.tensor([True, False, True, True, False])
    assert factory.tallies(right_N) == {
        "factory_correct": 3,
        "told_correct": 4,
        "test_gained": 2,
        "test_lost": 2,
    }


def test_answers_for_other_rows_are_not_kept() -> None:
    """Breaks if a state of another version, or of other data, stands in for the factory model's answers."""
    answers = FactoryAnswers(torch.tensor([True, False]), torch.tensor([True, True]))
    kept = FactoryAnswers.kept(answers.tensors(), 2)
    assert kept is not None and torch.equal(kept.right_N, answers.right_N)
    assert FactoryAnswers.kept(answers.tensors(), 3) is None
    assert FactoryAnswers.kept({}, 0) is None


def by_hand(prepared, client: int, model: nn.Module) -> tuple[list[int], list[int], list[int]]:
    """Test labels, the model's answers, and its answers among the classes of the training rows, row by row."""
    shard = Shard.open(f"{prepared.folder}/shards", client)
    own = sorted(set(shard.labels("train").tolist()))
    labels, answers, told = [], [], []
    with torch.no_grad():
        for x, y in shard.batches("test", 256, order=torch.channels_last):
            for row, label in zip(model.eval()(x).tolist(), y.tolist(), strict=True):
                labels.append(label)
                answers.append(max(range(len(row)), key=row.__getitem__))
                told.append(max(own, key=row.__getitem__))
    return labels, answers, told


def test_a_run_counts_told_gained_and_lost_row_by_row(small, tmp_path) -> None:
    """Breaks if told takes its classes from test rows or the data set, or if a later round compares other networks."""
    scenario = small(
        "data.partition={kind='pathological', classes=2}", "rounds=2", "training.pruning.level=0"
    )
    result = fedge.run(scenario, tmp_path)
    prepared = prepare(scenario)
    differs = False
    for row in result.reports():
        labels, answers, told = by_hand(prepared, row["client"], prepared.factory_model())
        state = StateFolder(tmp_path / "devices" / str(row["client"])).at(row["round"])
        model = prepared.build_model()
        model.load_state_dict(state.model)
        _, after, _ = by_hand(prepared, row["client"], model)
        rows = list(zip(labels, answers, told, after, strict=True))
        assert row["factory_correct"] == sum(label == answer for label, answer, _, _ in rows)
        assert row["told_correct"] == sum(label == answer for label, _, answer, _ in rows)
        assert row["test_gained"] == sum(label == now != before for label, before, _, now in rows)
        assert row["test_lost"] == sum(label == before != now for label, before, _, now in rows)
        differs |= row["told_correct"] > row["factory_correct"]
    assert differs  # else the case shows nothing
    last = [row for row in result.reports() if row["round"] == 2]
    told_mean = sum(row["told_correct"] / row["test_count"] for row in last) / len(last)
    accuracy, gain = result.summary["accuracy"], result.summary["gain"]
    assert accuracy["told"] == pytest.approx(told_mean)
    assert gain["mean"] == pytest.approx(accuracy["mean"] - accuracy["factory"])
    assert gain["over_told"] == pytest.approx(accuracy["mean"] - accuracy["told"])
    assert gain["interval"][0] <= gain["mean"] <= gain["interval"][1]
