"""When a sample leaves: thresholds by hand and at their limits, and what it then costs."""

import pytest
import torch
from torch import Tensor, nn

from fedge.training.exits.leaving import Judged, chosen_thresholds, judged, macs_to_leave
from fedge.training.exits.network import NEVER, ExitNetwork, with_exits
from fedge.training.macs import count_macs

SURE = [0.9, 0.8, 0.7, 0.6, 0.5]


def of(sure: list[list[float]], right: list[list[int]]) -> Judged:
    """Of lists per exit; how sure the last one is plays no part."""
    sure_EN = torch.tensor([*sure, [1.0] * len(right[0])])
    return Judged(sure_EN.T, torch.tensor(right, dtype=torch.bool).T)


def small_network() -> ExitNetwork:
    """1 x 4 x 4, three classes; an exit of four channels behind the first of two convolutions."""
    trunk = nn.Sequential(
        nn.Conv2d(1, 2, 3, padding=1), nn.Conv2d(2, 2, 3, padding=1), nn.Flatten(), nn.Linear(32, 3)
    )
    return with_exits(trunk, (1, 4, 4), 3, where=["0"], channels=4)


def test_a_threshold_loses_nothing_against_the_last_exit() -> None:
    """Would break if a threshold were not the least that the last exit's answers allow: at 0.7 one is lost."""
    on_validation = of([SURE], [[1, 1, 0, 1, 0], [1, 1, 1, 1, 0]])
    assert chosen_thresholds(on_validation).tolist() == pytest.approx([0.8])


def test_slack_is_of_those_who_leave() -> None:
    """Would break if slack were of all samples: one of five lost is 0.2 of those who leave at 0.5, and 0.25 at 0.6."""
    on_validation = of([SURE], [[1, 1, 0, 1, 0], [1, 1, 1, 1, 0]])
    assert chosen_thresholds(on_validation, slack=0.19).tolist() == pytest.approx([0.8])
    assert chosen_thresholds(on_validation, slack=0.2).tolist() == pytest.approx([0.5])


def test_a_wanted_accuracy_is_held_by_those_who_leave() -> None:
    """Would break if the last exit played a part: 3 of 4 are right from 0.6 upwards, and 3 of 5 from 0.5."""
    on_validation = of([SURE], [[1, 1, 0, 1, 0], [0, 0, 0, 0, 0]])
    assert chosen_thresholds(on_validation, accuracy=0.75).tolist() == pytest.approx([0.6])
    assert chosen_thresholds(on_validation, accuracy=0.6).tolist() == pytest.approx([0.5])


def test_the_second_exit_is_judged_by_those_who_stayed() -> None:
    """Would break if samples that have left spoke for a later exit: its two mistakes are on them, at 0.9 and 0.8."""
    on_validation = of([SURE, SURE], [[1, 1, 0, 0, 0], [0, 0, 1, 1, 0], [1, 1, 1, 1, 1]])
    assert chosen_thresholds(on_validation).tolist() == pytest.approx([0.8, 0.6])


def test_equally_sure_samples_leave_together() -> None:
    """Would break if a threshold parted samples that no threshold can part: of the two at 0.8 one is wrong."""
    on_validation = of([[0.9, 0.8, 0.8]], [[1, 1, 0], [1, 1, 1]])
    assert chosen_thresholds(on_validation).tolist() == pytest.approx([0.9])


@pytest.mark.parametrize("right", [[[0, 0, 0, 0, 0], [1, 1, 1, 1, 1]], [[], []]])
def test_nobody_leaves_an_exit_that_is_never_good_enough(right: list[list[int]]) -> None:
    """Would break if no evidence, or none that will do, gave a threshold that samples reach."""
    on_validation = of([SURE[: len(right[0])]], right)
    assert chosen_thresholds(on_validation).tolist() == [NEVER]


def test_limits_of_a_threshold() -> None:
    """Would break if tau = 0 let a sample go on, or tau above 1 let one leave."""
    on_test = of([SURE], [[1, 1, 0, 1, 0], [1, 0, 1, 1, 1]])
    assert on_test.tallies(torch.tensor([0.0])) == ([5, 0], [3, 0], [3, 4])
    assert on_test.tallies(torch.tensor([1.01])) == ([0, 5], [0, 4], [3, 4])
    assert on_test.tallies(torch.tensor([0.7])) == ([3, 2], [2, 2], [3, 4])


def test_without_a_label_the_last_exit_is_right() -> None:
    """Would break if an unknown label counted as a mistake, or were guessed from anything but the last exit."""
    model, x_BCHW = small_network().eval(), torch.randn(6, 1, 4, 4)
    told = judged(model, [(x_BCHW, torch.full((6,), -1))])
    with torch.no_grad(), model.telling_all():
        answer_BE = model(x_BCHW).argmax(1)
    assert told.right_NE[:, 1].all()
    assert torch.equal(told.right_NE[:, 0], answer_BE[:, 0] == answer_BE[:, 1])


def test_macs_by_hand() -> None:
    """Would break if an exit on the way were free, or the trunk behind the exit counted.

    trunk 2*9*16 = 288; exit 4*(2*9)*4 = 288 and 4*3 = 12; second convolution 2*(2*9)*16 = 576; classifier 32*3 = 96.
    """
    assert macs_to_leave(small_network(), (1, 4, 4)) == [588, 1260]


def test_macs_of_training_by_hand() -> None:
    """Would break if a frozen trunk had a backward pass, or one that stops early were charged to its end.

    Weight gradients of the exit alone, 288 + 12; an error goes through its classifier, 12, not below its convolution.
    """
    model = small_network()
    model.freeze_trunk()
    for whole, forward in ((True, 1260), (False, 588)):
        model.whole = whole
        table = count_macs(model, (1, 4, 4))
        assert (table.forward, table.error_propagation, table.weight_gradient) == (forward, 12, 300)


def test_figures_agree_with_the_answers() -> None:
    """Would break if what is tallied were not what the network answers: leaving, and the right answers there."""
    model, generator = small_network().eval(), torch.Generator().manual_seed(1)
    x_BCHW = torch.randn(64, 1, 4, 4, generator=generator)
    y_B = torch.randint(0, 3, (64,), generator=generator)
    told = judged(model, [(x_BCHW, y_B)])
    model.rule.thresholds_K.fill_(float(told.sure_NE[:, 0].median()))
    left, right, _ = told.tallies(model.rule.thresholds_K)
    with torch.no_grad():
        logits_BC: Tensor = model(x_BCHW)
        one_by_one = [model.answer(x_1CHW[None]) for x_1CHW in x_BCHW]
    assert left == [sum(place == k for _, place in one_by_one) for k in (0, 1)] and min(left) > 0
    assert sum(right) == int((logits_BC.argmax(1) == y_B).sum())
    assert torch.allclose(torch.cat([logits for logits, _ in one_by_one]), logits_BC, atol=1e-6)
