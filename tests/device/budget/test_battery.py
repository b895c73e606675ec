"""The battery."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from fedge.catalog.devices import profile
from fedge.device.budget.battery import Battery, Energy, is_plugged, plugged_seconds

HOUR_S, DAY_S = 3600.0, 86400.0
CHOICE = Energy(start=0.5, admit=0.3, floor=0.1, charger_w=10.0)


def battery(level_j: float) -> Battery:
    return Battery(capacity_j=1000.0, level_j=level_j)


def test_it_starts_as_the_scenario_says():
    """A phone would start empty, or a board on mains run out."""
    phone = Battery.of(profile("phone-low"), CHOICE)
    assert phone.capacity_j == pytest.approx(12.2 * 3600) and phone.share == 0.5
    board = Battery.of(profile("raspberry-pi-4"), CHOICE)
    assert board.share == 1.0 and board.joins(CHOICE, plugged=False)
    assert board.spend(1e9).lasts(1e9, CHOICE, plugged=False) == 1.0


def test_it_joins_above_the_admission_level_or_when_plugged_in():
    """An empty phone would train, or a charging one stay away."""
    assert battery(301).joins(CHOICE, plugged=False) and not battery(300).joins(CHOICE, plugged=False)
    assert battery(0).joins(CHOICE, plugged=True)


@pytest.mark.parametrize(
    ("level_j", "energy_j", "share"), [(600, 500, 1.0), (600, 1000, 0.5), (90, 10, 0.0), (600, 0, 1.0)]
)
def test_it_aborts_at_the_floor_counted_by_hand(level_j, energy_j, share):
    """A device would end a round on energy it does not have."""
    assert battery(level_j).lasts(energy_j, CHOICE, plugged=False) == pytest.approx(share)
    assert battery(level_j).lasts(energy_j, CHOICE, plugged=True) == 1.0


def test_it_runs_down_and_recharges_counted_by_hand():
    """The battery would be endless, or never be full again."""
    assert battery(600).spend(250).level_j == 350
    assert battery(100).spend(250).level_j == 0
    assert battery(100).rest(1.0, CHOICE, plugged_s=20, unplugged_s=50).level_j == 250
    assert battery(900).rest(1.0, CHOICE, plugged_s=3600, unplugged_s=0).level_j == 1000


def test_a_device_is_plugged_in_once_a_day_for_the_time_said():
    """Devices would charge for ever, or twice a day."""
    choice = Energy(plug_h=22.0, plugged_for_h=8.0)
    for client in range(5):
        day = plugged_seconds(choice, seed=1, client=client, start_s=0, end_s=DAY_S)
        assert day == pytest.approx(8 * HOUR_S)
        assert is_plugged(choice, seed=1, client=client, time_s=26 * HOUR_S)  # 02:00, within 22 +- 2 + 8 h
        assert not is_plugged(choice, seed=1, client=client, time_s=12 * HOUR_S)


@settings(max_examples=25, deadline=None)
@given(
    start_h=st.floats(0, 100), first_h=st.floats(0, 100), second_h=st.floats(0, 100), client=st.integers(0, 9)
)
def test_plugged_time_adds_up_over_any_cut(start_h, first_h, second_h, client):
    """A battery would depend on how often it is looked at."""
    times = [start_h * HOUR_S, (start_h + first_h) * HOUR_S, (start_h + first_h + second_h) * HOUR_S]

    def between(start_s: float, end_s: float) -> float:
        return plugged_seconds(Energy(), seed=1, client=client, start_s=start_s, end_s=end_s)

    whole = between(times[0], times[2])
    assert between(times[0], times[1]) + between(times[1], times[2]) == pytest.approx(whole, abs=1e-3)
    assert -1e-6 <= whole <= times[2] - times[0] + 1e-6


def test_a_floor_above_the_admission_level_is_refused():
    """Devices would join every round only to abort it."""
    with pytest.raises(ValidationError, match="join only to abort"):
        Energy(admit=0.2, floor=0.3)
