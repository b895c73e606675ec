"""The section of a run's page that tells where samples leave."""

from types import SimpleNamespace

from fedge.page.exits import left_early

TOLD = {
    "left": [0.75, 0.0, 0.25],
    "right": [0.9, None, 0.5],
    "alone": [0.8, 0.85, 0.875],
    "macs": {"mean": 60.0, "worst": 120.0, "trunk": 100.0},
    "time_s": {"mean": 0.002, "worst": 0.004},
}


def test_a_line_per_exit_and_the_worst_case_beside_the_mean() -> None:
    """Would break if the worst case were left out, or an exit that nobody takes shown as never right."""
    section = "".join(left_early(SimpleNamespace(summary={"exits": TOLD})))
    assert "<b>0.60</b>" in section and "1.20 at worst" in section and "2 ms" in section and "4 ms" in section
    assert section.count("<tr") == 4 and "75.0%" in section and ">-</td>" in section


def test_no_exits_no_section() -> None:
    """Would break if every other run's page had an empty heading."""
    assert left_early(SimpleNamespace(summary={})) == []
