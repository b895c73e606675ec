"""Whether a plan fits a device, and what is done where it does not."""

import pytest

from fedge.device.memory.fitting import fit


def need(batch_size: int, level: float) -> int:
    """10 MB per instance at level 0, and 20 MB of weights, both shrinking with the level."""
    return int((10e6 * batch_size + 20e6) * (1 - level))


def choose(have_mb: float, policy: str, *, batch_size: int = 16, level: float = 0.0, may_prune: bool = True):
    return fit(
        need,
        int(have_mb * 1e6),
        who="client 17, device 'toy'",
        batch_size=batch_size,
        level=level,
        policy=policy,
        may_prune=may_prune,
    )


@pytest.mark.parametrize("policy", ["refuse", "shrink"])
def test_what_fits_is_left_alone(policy):
    """A plan that fits would be changed."""
    choice = choose(180, policy)
    assert (choice.fits, choice.batch_size, choice.level, choice.need_bytes) == (True, 16, 0.0, 180_000_000)


def test_refuse_declines_with_need_have_and_advice():
    """The user would not learn which number to change."""
    choice = choose(100, "refuse")
    assert not choice.fits
    assert choice.line == (
        "client 17, device 'toy': the plan needs 180 MB, the device has 100 MB: declined;"
        " lower batch_size (now 16) or raise pruning.level (now 0)"
    )


@pytest.mark.parametrize(
    ("have_mb", "expected"),
    [(100, (True, 8, 0.0)), (45, (True, 2, 0.0)), (30, (True, 2, 0.25)), (1, (False, 16, 0.0))],
)
def test_shrink_takes_the_batch_first_then_the_level(have_mb, expected):
    """A device would lose channels where a smaller batch was enough, or go over its memory."""
    choice = choose(have_mb, "shrink")
    assert (choice.fits, choice.batch_size, choice.level) == expected
    assert not choice.fits or choice.need_bytes <= choice.have_bytes


def test_a_network_that_must_stay_whole_is_not_pruned_to_fit():
    """Fine-tuning of the whole network would be announced with a level that nothing applies."""
    assert not choose(30, "shrink", may_prune=False).fits


@pytest.mark.parametrize(("batch_size", "level"), [(1, 0.0), (2, 0.95), (1, 0.95)])
def test_the_smallest_plan_that_does_not_fit_is_declined(batch_size, level):
    """The search would never end, or raise."""
    assert not choose(0.0001, "shrink", batch_size=batch_size, level=level).fits
