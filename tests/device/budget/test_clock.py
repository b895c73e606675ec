"""Virtual time and energy."""

import math
import statistics

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedge.catalog.devices import PROFILES, DeviceProfile
from fedge.device.budget.clock import Clock, Work, round_cost, spread
from fedge.errors import RunError

TOY = DeviceProfile(
    name="toy",
    kind="board",
    train_gflops=2.0,
    memory_mb=100.0,
    memory_gbs=4.0,
    down_mbps=8.0,
    up_mbps=4.0,
    idle_w=1.0,
    load_w=5.0,
    battery_wh=None,
    ray_num_cpus=0.5,
    ray_memory_mb=600.0,
    evidence="",
    train_basis="",
    source="",
)
PLAIN = Clock(device_sigma=0.0, round_sigma=0.0, rtt_s=0.5)


def work(**changed: int) -> Work:
    return Work(**{"macs": 0, "steps": 0, "memory_bytes": 0, "received_bytes": 0, "sent_bytes": 0} | changed)


def test_counted_by_hand():
    """Seconds or joules would be off by a factor: 2 FLOP per MAC, 8 bits per byte, 1e6 bits per Mbit."""
    cost = round_cost(TOY, work(macs=3 * 10**9, received_bytes=10**6, sent_bytes=10**6), PLAIN)
    assert (cost.compute_s, cost.down_s, cost.up_s) == pytest.approx((3.0, 1.5, 2.5))
    assert cost.time_s == pytest.approx(7.0)
    radio_j = (1 + 0.13286 + 0.13701 * 8) * 1.5 + (1 + 0.13286 + 0.13701 * 4) * 2.5
    assert cost.energy_j == pytest.approx(5 * 3.0 + radio_j)


def test_memory_traffic_is_added():
    """A network of cheap layers and large maps would be as fast as its arithmetic alone."""
    cost = round_cost(TOY, work(macs=10**9, steps=20, memory_bytes=10**8), PLAIN)
    assert cost.compute_s == pytest.approx(2e9 / 2e9 + 10 * 20 * 1e8 / 4e9)


def test_spread_stretches_the_computing_alone_and_no_spread_is_the_median():
    """The network would get slower with the processor."""
    done = work(macs=10**9, sent_bytes=10**6)
    plain, twice = (round_cost(TOY, done, PLAIN, spread=factor) for factor in (1.0, 2.0))
    assert twice.compute_s == 2 * plain.compute_s and twice.up_s == plain.up_s
    assert spread(PLAIN, seed=1, client=2, round=3) == 1.0


def test_spread_is_lognormal_by_client_and_round():
    """Devices of one class would be all alike, or change their nature from round to round."""
    choice = Clock(device_sigma=0.5, round_sigma=0.0)
    logs = [math.log(spread(choice, seed=1, client=client, round=1)) for client in range(2000)]
    assert statistics.mean(logs) == pytest.approx(0, abs=0.04)
    assert statistics.stdev(logs) == pytest.approx(0.5, abs=0.03)
    assert spread(choice, seed=1, client=5, round=1) == spread(choice, seed=1, client=5, round=2)
    moody = Clock(device_sigma=0.0, round_sigma=0.5)
    assert spread(moody, seed=1, client=5, round=1) != spread(moody, seed=1, client=5, round=2)


@settings(max_examples=25, deadline=None)
@given(
    name=st.sampled_from(sorted(PROFILES)),
    macs=st.integers(0, 10**15),
    more=st.integers(1, 10**15),
    sent=st.integers(0, 4096),
)
def test_more_work_never_costs_less(name, macs, more, sent):
    """Saving MACs would cost time or energy on some device."""
    less, greater = (
        round_cost(PROFILES[name], work(macs=count, sent_bytes=sent), Clock())
        for count in (macs, macs + more)
    )
    assert 0 < less.time_s <= greater.time_s and 0 < less.energy_j <= greater.energy_j


@pytest.mark.parametrize("missing", [None, -1, math.nan, math.inf])
def test_a_missing_cost_is_an_error(missing):
    """A cost nobody counted would be a zero."""
    with pytest.raises(RunError, match="macs"):
        work(macs=missing)


def test_a_device_that_went_away_sent_nothing_and_spent_its_share():
    """Dropping out would be free, or cost the whole round."""
    whole = round_cost(TOY, work(macs=10**9, sent_bytes=10**6), PLAIN)
    part = whole.until(0.25)
    assert (part.compute_s, part.up_s, part.energy_j) == (whole.compute_s / 4, 0.0, whole.energy_j / 4)
