"""What a person sees while a run goes on."""

import io

from rich.console import Console

from fedge.console.progress import LiveProgress, round_line
from fedge.console.table import summary_html, summary_rows, summary_table, summary_text

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


SUMMARY = {
    "scenario": "s",
    "clients": 2,
    "rounds": 1,
    "accuracy": {"factory": 0.5, "told": 0.7, "mean": 0.75, "std": 0.05, "worst_decile": 0.7},
    "gain": {
        "mean": 0.25,
        "median": 0.2,
        "worst_decile": 0.1,
        "interval": [-0.0125, 0.4],
        "over_told": -0.05,
    },
    "hurt": {"any": 0.5, "beyond_chance": 0.0},
    "macs": {"saved": 0.6},
    "parameters_left": 0.5,
    "time_s": 1.0,
    "energy_j": 1.0,
    "egress": {"messages": 2, "bytes": 10, "bits_at_most": 1363},
    "failures": 0,
    "never_reported": 0,
    "wall_s": 1.0,
}


def cells(summary: dict) -> dict[str, str]:
    """The final table's lines: figure -> value, as they are printed."""
    screen = io.StringIO()
    Console(file=screen, width=80).print(summary_table(summary, "runs/s"))
    lines = [line.split("\u2502") for line in screen.getvalue().splitlines() if "\u2502" in line]
    return {parts[1].strip(): parts[2].strip() for parts in lines}


def test_the_table_sets_the_gain_beside_what_costs_nothing_and_who_is_hurt() -> None:
    """Breaks if a reader of the last table cannot see told, the interval, or that half of the clients lost."""
    shown = cells(SUMMARY)
    assert shown["told the client's classes"] == "70.0%"
    assert shown["gain over the factory model"] == "+25.0 pp [-1.2, +40.0]"
    assert shown["gain over told"] == "-5.0 pp"
    assert shown["clients hurt"] == "50.0% (beyond chance 0.0%)"


def test_the_table_of_a_fleet_without_test_rows_shows_dashes() -> None:
    """Breaks if the table crashes after a run in which nobody reported."""
    nothing = {kind: dict.fromkeys(SUMMARY[kind]) for kind in ("accuracy", "gain", "hurt")}
    shown = cells(SUMMARY | nothing)
    assert shown["gain over the factory model"] == "-"
    assert shown["clients hurt"] == "- (beyond chance -)"


def test_the_table_says_who_is_missing_from_its_means() -> None:
    """Breaks if a mean over 19 clients of 23 passes for one of the fleet."""
    assert cells(SUMMARY | {"never_reported": 4, "clients": 23})["clients that never reported"] == "4 of 23"
    assert "clients that never reported" not in cells(SUMMARY)


def test_print_and_a_notebook_show_what_the_terminal_shows() -> None:
    """Breaks if a figure is in one place only, or if a scenario's name is taken for HTML."""
    rows = summary_rows(SUMMARY | {"scenario": "<s>"}, "runs/<s>")
    assert dict(rows)["of a program's choosing"] == "at most 1,363 bits a report"
    html, text = (show(SUMMARY | {"scenario": "<s>"}, "runs/<s>") for show in (summary_html, summary_text))
    assert "<s>" not in html and "runs/&lt;s&gt;" in html
    assert html.count("<tr>") == len(rows) == len(text.splitlines()) - 1
    for name, value in rows:
        assert any(line.split(name)[-1].strip() == value for line in text.splitlines())
