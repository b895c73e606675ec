"""What a person sees while a run goes on."""

import io

from rich.console import Console

from fedge.console.progress import LiveProgress, round_line

FIGURES = {
    "round": 12,
    "ok": 100,
    "clients": 100,
    "accuracy": {"mean": 0.999, "worst_decile": 0.8125},
    "saved": 0.702,
    "failures": {},
}


def test_a_round_is_one_line_of_80_characters() -> None:
    """Breaks if the line of a hundred clients' round wraps in an ordinary window (at 100.0% it is one longer)."""
    line = round_line(FIGURES)
    assert line == "round 12  100/100 clients  accuracy 99.9% (worst decile 81.2%)  MACs saved 70.2%"
    assert len(line) <= 80


def test_the_bar_is_not_cut_in_80_characters() -> None:
    """Breaks if times or counts end in an ellipsis in an ordinary window."""
    screen = io.StringIO()
    console = Console(file=screen, width=80, force_terminal=True)
    with LiveProgress(console, rounds=12) as live:
        live.round_started(12, 100)
        for client in range(100):
            live.report_arrived({"client": client, "status": "ok" if client else "client_raised"})
        live.round_finished(FIGURES)
    shown = screen.getvalue()
    assert "1 failed" in shown
    assert "100/100 clients" in shown
    assert "\N{HORIZONTAL ELLIPSIS}" not in shown
