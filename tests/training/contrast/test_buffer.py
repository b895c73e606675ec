"""Rules of the buffer on hand-made streams."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from fedge.errors import UserError
from fedge.training.contrast import RULES, Buffer
from fedge.training.contrast.buffer import LOOKS


def no_look(due_L: Tensor) -> Tensor:
    raise AssertionError("this rule looks at nothing")


def chance(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def kept_of(
    buffer: Buffer, segments: list[list[int]], values: Callable[[list[int]], Tensor] | None = None
) -> list[int]:
    """The samples in the buffer after these segments; `values` of samples by their numbers."""
    held: list[int] = []
    generator = chance()
    for segment in segments:
        candidates = held + segment

        def look(due_L: Tensor, candidates: list[int] = candidates) -> Tensor:
            assert values is not None
            return values([candidates[place] for place in due_L.tolist()])

        kept = buffer.offer(len(segment), look if values else no_look, generator)
        held = [candidates[place] for place in kept.tolist()]
    return held


def test_fifo_keeps_the_latest() -> None:
    """Anything else would not be the baseline of the paper."""
    assert kept_of(Buffer("fifo", 3), [[0, 1], [2, 3], [4]]) == [2, 3, 4]


def test_contrast_keeps_the_highest_and_of_equal_scores_the_latest() -> None:
    """The lowest, or the oldest of equals, would fill the buffer with what is known already."""
    scores = torch.tensor([0.9, 0.1, 0.5, 0.5, 0.7, 0.5])
    buffer = Buffer("contrast", 3)
    assert kept_of(buffer, [[0, 1, 2], [3, 4, 5]], lambda numbers: scores[numbers]) == [0, 4, 5]
    assert buffer.looked == 3 + 6


def test_minred_drops_the_older_of_the_nearest_pair() -> None:
    """Pairs, one by one: after the first of a pair is gone the other is redundant no more."""
    angle = torch.tensor([0.0, 0.1, 1.0, 1.3, 3.0])
    z_KD = torch.stack([angle.cos(), angle.sin()], 1)
    assert kept_of(Buffer("minred", 3), [[0, 1, 2], [3, 4]], lambda numbers: z_KD[numbers]) == [1, 3, 4]


def test_minred_goes_by_the_mean_of_what_it_saw() -> None:
    """With the latest embedding alone one odd forward pass decides what is redundant."""
    first, second = torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([[0.0, 1.0], [0.0, 1.0]])
    buffer = Buffer("minred", 2)
    buffer.offer(2, lambda due: first[due], chance())
    buffer.offer(0, lambda due: second[due], chance())
    half = 0.5**0.5
    torch.testing.assert_close(buffer.tensors()["known"], torch.tensor([[half, half], [0.0, 1.0]]))


def test_a_reservoir_keeps_all_alike() -> None:
    """What came late (or early) would be kept more often, and the buffer would be correlated as the stream is."""
    counts = torch.zeros(40)
    for seed in range(400):
        buffer, held, generator = Buffer("reservoir", 8), list[int](), chance(seed)
        for start in range(0, 40, 5):
            candidates = held + list(range(start, start + 5))
            held = [candidates[place] for place in buffer.offer(5, no_look, generator).tolist()]
        counts[held] += 1
    expected, deviation = 400 * 8 / 40, (400 * 0.2 * 0.8) ** 0.5
    assert (counts - expected).abs().max() < 4.5 * deviation


def test_random_replacement_forgets_geometrically() -> None:
    """Half goes with every segment as long as the buffer; a reservoir under this name would be too good a baseline."""
    buffer, alive = Buffer("random", 64), []
    held = torch.zeros(0)
    for segment in range(5):
        candidates = torch.cat([held, torch.full((64,), float(segment))])
        held = candidates[buffer.offer(64, no_look, chance(segment))]
        alive.append(int((held == 0).sum()))
    assert alive[0] == 64 and alive == sorted(alive, reverse=True)
    assert 20 <= alive[1] <= 44 and alive[4] < 12


def random_scores(numbers: list[int]) -> Tensor:
    return torch.stack([torch.rand((), generator=chance(number)) for number in numbers])


def test_lazy_scoring_looks_at_stored_samples_every_fourth_time_they_are_met() -> None:
    """T = 4 that scores everything saves nothing; one that never scores again keeps stale scores for ever."""
    seen: list[int] = []

    def scores(numbers: list[int]) -> Tensor:
        seen.extend(numbers)
        return torch.tensor([9.0 if number < 2 else 0.0 for number in numbers])

    kept_of(Buffer("contrast", 2, lazy=4), [[0, 1], [2], [3], [4], [5]], scores)
    assert seen == [0, 1, 2, 3, 4, 0, 1, 5]


@pytest.mark.parametrize("rule", LOOKS)
def test_lazy_one_is_no_laziness(rule: str) -> None:
    """T = 1 is the method without lazy scoring, whatever the stream."""
    looked: list[int] = []

    def values(numbers: list[int]) -> Tensor:
        looked.append(len(numbers))
        if rule == "contrast":
            return random_scores(numbers)
        return torch.stack([torch.randn(3, generator=chance(number)) for number in numbers])

    segments = [list(range(start, start + 4)) for start in range(0, 24, 4)]
    kept_of(Buffer(rule, 4, lazy=1), segments, values)
    assert looked == [4] + [8] * 5


@pytest.mark.parametrize("rule", RULES)
def test_goes_on_where_it_was_stopped(rule: str) -> None:
    """A device that is stopped between rounds must keep what one that was not would keep."""

    def values(numbers: list[int]) -> Tensor:
        if rule == "contrast":
            return random_scores(numbers)
        return torch.nn.functional.normalize(
            torch.stack([torch.randn(3, generator=chance(number)) for number in numbers]), dim=1
        )

    def offered(buffer: Buffer, held: list[int], segment: int, seed: int) -> list[int]:
        candidates = held + list(range(segment * 5, segment * 5 + 5))
        kept = buffer.offer(
            5, lambda due: values([candidates[place] for place in due.tolist()]), chance(seed)
        )
        return [candidates[place] for place in kept.tolist()]

    whole = stopped = Buffer(rule, 4, lazy=2)
    held: list[int] = []
    for segment in range(4):
        held = offered(whole, held, segment, segment)
    stopped = Buffer(rule, 4, lazy=2)
    stopped.load({name: tensor.clone() for name, tensor in whole.tensors().items()})
    again = list(held)
    for segment in range(4, 8):
        held = offered(whole, held, segment, segment)
        again = offered(stopped, again, segment, segment)
    assert held == again and whole.looked == stopped.looked


@pytest.mark.parametrize(("rule", "room", "lazy"), [("newest", 4, 1), ("fifo", 1, 1), ("contrast", 4, 0)])
def test_what_cannot_be_is_refused(rule: str, room: int, lazy: int) -> None:
    """One sample has no negatives, and no rule must not mean some rule."""
    with pytest.raises(UserError, match="contrast:"):
        Buffer(rule, room, lazy=lazy)
