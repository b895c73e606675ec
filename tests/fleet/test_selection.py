"""Whom to ask and when a round is over."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedge.fleet.selection import close_round, select, wanted_reports
from fedge.scenario.fleet import Selection

FEW = settings(max_examples=25, deadline=None)
CANDIDATES = list(range(100, 200))


@pytest.mark.parametrize(
    ("wanted", "over", "candidates", "asked"),
    [
        (10, 1.3, 100, 13),
        (10, 1.0, 100, 10),
        (10, 1.3, 12, 12),
        (None, 1.3, 100, 100),
        (10, 1.3, 0, 0),
        (3, 1.3, 9, 4),
    ],
)
def test_over_selection_counted_by_hand(wanted, over, candidates, asked):
    """130 % of 10 would be 14 by rounding, or more devices be asked than there are."""
    choice = Selection(clients_per_round=wanted, over_selection=over)
    picked = select(CANDIDATES[:candidates], choice, seed=1, round=1)
    assert len(picked) == asked and picked == sorted(set(picked)) and set(picked) <= set(CANDIDATES)


def test_the_draw_is_by_seed_and_round_and_not_by_order():
    """A resumed run would ask others; a differently ordered roster too."""
    choice = Selection(clients_per_round=10)
    first = select(CANDIDATES, choice, seed=1, round=1)
    assert first == select(CANDIDATES[::-1], choice, seed=1, round=1)
    assert first != select(CANDIDATES, choice, seed=1, round=2)
    assert first != select(CANDIDATES, choice, seed=2, round=1)


TIMES = {7: 10.0, 3: 20.0, 5: 20.0, 1: 90.0}


@pytest.mark.parametrize(
    ("section", "wanted", "silent", "counted", "late", "time_s", "quorum"),
    [
        ({}, 4, 0, (1, 3, 5, 7), (), 90.0, True),  # everybody came
        ({}, 2, 0, (3, 7), (1, 5), 20.0, True),  # the first two; 3 before 5 at the same time
        ({"deadline_s": 50.0}, 4, 0, (3, 5, 7), (1,), 50.0, True),  # 1 is late, the deadline was waited for
        ({"deadline_s": 50.0}, 3, 0, (3, 5, 7), (1,), 20.0, True),  # the third report ends it before
        ({"deadline_s": 200.0}, 5, 1, (1, 3, 5, 7), (), 200.0, True),  # one never reports
        ({"deadline_s": 5.0, "quorum": 0.5}, 4, 0, (), (1, 3, 5, 7), 5.0, False),
        ({"quorum": 0.75}, 4, 1, (1, 3, 5, 7), (), 90.0, True),
        ({"quorum": 1.0}, 5, 1, (1, 3, 5, 7), (), 90.0, False),
    ],
)
def test_closing_counted_by_hand(section, wanted, silent, counted, late, time_s, quorum):
    """A late report would count, or a round never end."""
    closing = close_round(TIMES, Selection(**section), wanted=wanted, silent=silent)
    assert (closing.counted, closing.late, closing.time_s) == (counted, late, time_s)
    assert closing.quorum_met is quorum


def test_nobody_reports():
    """100 % dropout would crash the coordinator."""
    assert close_round({}, Selection(), wanted=10, silent=10).time_s == 0.0
    closing = close_round({}, Selection(deadline_s=60.0, quorum=0.1), wanted=10, silent=10)
    assert (closing.counted, closing.time_s, closing.quorum_met) == ((), 60.0, False)


@FEW
@given(
    times=st.dictionaries(st.integers(0, 50), st.floats(0, 1e6), max_size=20),
    deadline_s=st.one_of(st.none(), st.floats(1, 1e6)),
    share=st.floats(0.1, 1),
)
def test_every_report_is_either_counted_or_late(times, deadline_s, share):
    """A report would vanish silently, or count after the deadline."""
    wanted = wanted_reports(Selection(clients_per_round=max(1, round(share * 20))), len(times))
    closing = close_round(times, Selection(deadline_s=deadline_s), wanted=wanted)
    assert sorted(closing.counted + closing.late) == sorted(times)
    assert len(closing.counted) <= wanted
    assert all(times[client] <= closing.time_s for client in closing.counted)
