"""From timed steps to a file."""

import json
from functools import cache

import pytest
import torch
from torch import nn

from fedge.catalog.fingerprint import parse_fingerprint
from fedge.training.time.learn import Row, fingerprint_text, how_good, measured, this_machine
from fedge.training.time.predictor import predictor_of
from fedge.training.time.sample import NETWORKS, Cell, cells, cut_network
from fedge.training.time.shape import step_shape
from fedge.training.time.timing import Step, Timed, step_times, time_steps


def test_a_slow_spell_is_told_in_the_reference_s_speed() -> None:
    """Breaks if a machine that was busy in one round makes a step look slow."""
    timed = Timed(times=[[1.0, 1.0], [2.0, 2.0], [1.0, 1.0]], references=[0.1, 0.2, 0.1])
    assert timed.seconds(0.1) == 1.0 and timed.noise(0.1) == 0.0
    assert timed.seconds(0.2) == 2.0
    assert Timed(times=[[1.0], [1.5]], references=[1.0, 1.0]).noise(1.0) == pytest.approx(0.4)


def test_a_step_is_timed_behind_one_to_warm_up() -> None:
    """Breaks if the first step, in which memory is mapped, is among the times, or fewer than asked."""
    ticks = iter(range(1000))
    step = Step(nn.Sequential(nn.Flatten(), nn.Linear(12, 10)), (3, 2, 2), 4)
    assert step_times(step, least=5, clock=lambda: float(next(ticks))) == [1.0] * 5


def test_time_that_is_up_ends_the_rounds() -> None:
    """Breaks if a slow board measures for hours, or leaves a step without any time."""
    steps = [Step(nn.Sequential(nn.Flatten(), nn.Linear(12, 10)), (3, 2, 2), 4) for _ in range(2)]
    threads = torch.get_num_threads()
    timed = time_steps(steps, rounds=50, limit_s=0.0)
    assert [len(each.times) for each in timed] == [1, 1]
    assert torch.get_num_threads() == threads


def test_widths_differ_at_random_and_are_the_same_again() -> None:
    """Breaks if levels are shrunken copies of one network, which would teach nothing of width, or differ by run."""
    one, again, other = (cut_network("resnet20", 0.5, NETWORKS["resnet20"], seed) for seed in (0, 0, 1))
    widths = [
        [layer.out_channels for layer in net.modules() if isinstance(layer, nn.Conv2d)]
        for net in (one, again, other)
    ]
    assert widths[0] == widths[1] != widths[2]
    left = sum(p.numel() for p in one.parameters())
    assert left / sum(
        p.numel() for p in cut_network("resnet20", 0.0, (3, 32, 32)).parameters()
    ) == pytest.approx(0.5, abs=0.01)


def test_the_sample_is_the_one_that_is_promised() -> None:
    """Breaks if a fingerprint is learnt from less than four networks, five levels and three batches."""
    dense = [cell for cell in cells() if cell.keep == 1]
    assert len(dense) == 4 * 5 * 3 and len(cells(quick=True)) < len(cells())


@cache
def rows() -> list[Row]:
    """Timings of a machine that does 10 GMAC/s and takes 20 us for a call."""
    found = []
    for name in ("har_cnn", "lenet"):
        for level in (0.0, 0.3, 0.5):
            model = cut_network(name, level, NETWORKS[name])
            for batch in (8, 32, 128):
                step = step_shape(model, NETWORKS[name], batch)
                seconds = step.macs / 1e10 + 2e-5 * step.operators
                found.append(Row(Cell(name, level, batch), step, seconds, noise=0.01))
    return found


@pytest.mark.slow
def test_how_good_it_is_is_asked_of_what_is_held_out() -> None:
    """Breaks if the errors told are of steps that were fitted, or a machine that can be learnt exactly is not."""
    found = how_good([row for row in rows() if row.cell.network in NETWORKS])
    assert found["noise"] == 0.01
    assert found["width"]["levels"] < 0.01 and found["width"]["batch"] < 0.01
    assert found["trees"]["levels"] > 0.01  # they cannot know what they have not seen


def test_the_file_says_whose_it_is_and_predicts() -> None:
    """Breaks if a fingerprint cannot be read back, or hides which machine and torch it is of."""
    text = fingerprint_text(rows(), "width", took_s=1.0)
    learnt = parse_fingerprint(text)
    assert learnt.machine == this_machine() and learnt.machine["torch"].startswith(
        torch.__version__.partition("+")[0]
    )
    step = rows()[4]
    predicted = predictor_of(learnt.predictor, learnt.coefficients).step_s(step.shape)
    assert predicted == pytest.approx(step.seconds, rel=0.02)
    assert len(text) < 10_000 and len(json.loads(text)["measured"]) == len(rows())


def test_real_steps_are_measured() -> None:
    """Breaks if the sample's networks, dense or with pruned error maps, do not train or are not told apart."""
    found = measured(
        [Cell("har_cnn", 0.5, 8), Cell("har_cnn", 0.5, 64), Cell("har_cnn", 0.5, 8, 0.25)], rounds=1
    )
    assert 0 < found[0].seconds < found[1].seconds < 10
    assert found[0].shape.keep == 1 and found[2].shape.keep == 0.25
