"""The page: one file that asks nobody for anything, with every figure as the results have it."""

import importlib.util
import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from html import unescape
from pathlib import Path

import pytest

import fedge
from fedge.console.phases import percent
from fedge.console.table import points
from fedge.page import html
from fedge.page.clients import lines_of, paired
from fedge.page.content import RunContent
from fedge.page.drawing import draw
from fedge.page.drawing.marks import HARM
from fedge.page.egress import REVEALS, egress_rows
from fedge.page.gantt import gantt
from fedge.page.page import draw_beside
from fedge.page.run_page import run_page
from fedge.protocol import RoundReport
from fedge.study.page import page_of

_spec = importlib.util.spec_from_file_location("made_up", Path(__file__).parent / "made_up.py")
made_up = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(made_up)

FAULTY = ("faults.crash.at=[[1, 3]]", "selection.deadline_s=0.3", "training.instance_filter.keep=0.4")
MOST_BYTES = 1_500_000
FORMS = [percent, points, html.signed, html.short, html.count, html.size, str]
DRAWN_BY = [
    "matplotlib",
    pytest.param(
        "vega", marks=pytest.mark.skipif(not draw.vega(), reason="vl-convert-python is not installed")
    ),
]


@pytest.fixture(params=DRAWN_BY)
def drawn_by(request, monkeypatch) -> str:
    if request.param == "matplotlib":
        monkeypatch.setattr(draw, "vega", lambda: False)
    return request.param


def charts(page: str) -> dict[str, dict]:
    found = re.findall(
        r'<script type="application/json" data-chart="([^"]+)">(.*?)</script>', page, re.DOTALL
    )
    return {name: json.loads(text) for name, text in found}


def values(spec: dict, mark: str) -> list[dict]:
    return [
        row for layer in spec["layer"] if layer["mark"]["type"] == mark for row in layer["data"]["values"]
    ]


def require_alone(page: str) -> None:
    """It runs no script, and asks for nothing."""
    assert len(page.encode()) <= MOST_BYTES
    assert not re.search(r"https?://|\bsrc=|@import|<iframe|<object|<embed", page)
    assert set(re.findall(r"<script([^>]*)>", page)) <= set(
        re.findall(r'<script( type="application/json"[^>]*)>', page)
    )
    assert set(re.findall(r'<link [^>]*href="([^"]*)"', page)) == {"data:,"}
    assert len(re.findall("<svg", page)) == len(charts(page)) > 0
    identifiers = re.findall(r'\bid="([^"]+)"', page)
    assert all(f'id="{name}"' in page for name in re.findall(r"url\(#([^)]+)\)", page)) and identifiers


def require_figures(page: str, summary: dict) -> int:
    """Every figure that is marked as one of the summary's is its, as text too."""
    found = re.findall(
        r'<data value="([^"]*)"(?: data-arm="([^"]*)")? data-from="([^"]*)">([^<]*)</data>', page
    )
    for exact, arm, path, text in found:
        value = html.at(summary["arms"][unescape(arm)] if arm else summary, unescape(path))
        assert json.loads(unescape(exact)) == value, path
        assert unescape(text) in {
            form(value) for form in FORMS if form is str or isinstance(value, int | float)
        }
    return len(found)


def test_a_runs_page_says_what_the_results_say(finished, drawn_by) -> None:
    """Breaks if a printed figure is not the JSON's, or if the page needs a network or a script to be read."""
    result = finished(*FAULTY)
    page = run_page(result.out)
    require_alone(page)
    assert require_figures(page, dict(result.summary)) > 20
    assert "factory model" in page and "told" in page and "95 %" in page


def test_the_charts_hold_the_reports(finished, drawn_by) -> None:
    """Breaks if a chart shows other numbers than reports.jsonl, or hurt clients are not on top and marked."""
    result = finished(*FAULTY)
    run, found = RunContent.read(result.out), charts(run_page(result.out))
    assert {"dumbbell", "spread", "rounds", "kept", "parameters", "memory", "time"} <= set(found)
    served = [row for row in values(found["dumbbell"], "point") if "served" in row]
    order = found["dumbbell"]["layer"][0]["encoding"]["y"]["sort"]
    expected = {f"client {row['client']}": row["test_correct"] / row["test_count"] for row in run.tested}
    assert {row["client"]: row["served"] for row in served} == expected
    gains = {row["client"]: row["gain"] for row in served}
    assert [gains[name] for name in order] == sorted(gains.values())
    rules = [layer for layer in found["dumbbell"]["layer"] if layer["mark"]["type"] == "rule"]
    harm = [layer for layer in rules if layer["mark"]["color"] == HARM]
    marked = {row["client"] for layer in harm for row in layer["data"]["values"]}
    assert marked == {name for name, gain in gains.items() if gain < 0}
    bars = values(found["time"], "bar")
    for row in run.good:
        own = [
            bar for bar in bars if bar["client"] == f"client {row['client']}" and bar["phase"] == "computes"
        ]
        lengths = [bar["end"] - bar["start"] for bar in own]
        assert row["time_s"] - row["down_s"] - row["up_s"] == pytest.approx(
            lengths[row["round"] - 1 - (2 - len(own))]
        )
    statuses = {row["status"].replace("_", " ") for row in run.reports}
    assert {row["status"] for row in values(found["time"], "point")} == statuses - {"ok"}


@pytest.mark.parametrize("clients", [12, 100, 1000])
def test_a_page_stays_small(finished, tmp_path: Path, drawn_by, clients: int) -> None:
    """Breaks if a large fleet makes a page that no browser likes to open."""
    folder = made_up.multiply(finished(*FAULTY).out, tmp_path / "many", clients)
    page = run_page(folder)
    require_alone(page)
    lines = charts(page)["dumbbell"]["layer"][0]["encoding"]["y"]["sort"]
    assert len(lines) == (clients if clients <= 500 else 100)


def test_every_field_of_a_report_is_explained() -> None:
    """Breaks if a new field leaves the devices and the page does not say what it may reveal."""
    assert set(REVEALS) == set(RoundReport.model_fields) - {"own"}
    every = [f"report.{name}" for name in REVEALS]
    assert all(row["least"] and row["most"] and row["bits"] for row in egress_rows(every, {}))
    own = {"report": {"figures": {"macro_f1": {"least": 0.0, "most": 1.0, "steps": 256}}}}
    rows = egress_rows(["report.test_count", "report.own.macro_f1", "error"], own)
    assert [row["field"] for row in rows] == ["own.macro_f1", "test_count", "error"]
    assert (rows[0]["most"], rows[0]["bits"], rows[1]["most"], rows[1]["bits"]) == ("1", "8", "1e+09", "0")


def test_labels_and_numbers_have_their_own_measure() -> None:
    """Breaks if answers of several labels count as accuracy above 1, or a larger error of numbers is not marked."""
    report = {"client": 1, "device": "a", "test_count": 10, "test_correct": 12, "factory_correct": 10}
    assert paired(report | {"decisions": 2})["served"] == 0.6
    errors = {"test_error_sum": 3.0, "factory_error_sum": 2.0}
    assert paired(report | errors)["hurt"] and not paired(report)["hurt"]
    better = report | {"client": 2, "test_correct": 9}
    better |= {"test_error_sum": 1.0, "factory_error_sum": 2.0}
    assert [line["client"] for line in lines_of([better, report | errors])] == ["client 1", "client 2"]


def test_of_numbers_the_charts_show_errors(finished, tmp_path: Path, drawn_by) -> None:
    """Breaks if a page of a regression shows how many answers are near enough and not how far off they are, or takes a
    smaller error for the worse one."""
    folder = made_up.with_errors(finished(*FAULTY).out, tmp_path / "numbers")
    run, page = RunContent.read(folder), run_page(folder)
    require_alone(page)
    assert require_figures(page, dict(run.summary)) > 15
    found = charts(page)
    served = {row["client"]: row for row in values(found["dumbbell"], "point") if "served" in row}
    for row in run.tested:
        line, count = served[f"client {row['client']}"], row["test_count"]
        assert (line["served"], line["factory"]) == (
            row["test_error_sum"] / count,
            row["factory_error_sum"] / count,
        )
        assert line["gain"] == pytest.approx(line["factory"] - line["served"])
    order = found["dumbbell"]["layer"][0]["encoding"]["y"]["sort"]
    assert [served[name]["hurt"] for name in order] == sorted(
        (served[name]["hurt"] for name in order), reverse=True
    )
    assert {row["name"] for row in values(found["spread"], "line")} == {"served", "factory model"}
    means = [row["error"] for row in values(found["rounds"], "line") if row["name"] == "mean of clients"]
    assert means == [figures["error"]["mean"] for figures in run.rounds]
    before_record = page.partition("<h2>On record")[0]
    assert "told" not in before_record and "mean absolute error" in before_record


def test_a_deadline_stands_in_the_rounds_that_reach_it(finished) -> None:
    """Breaks if the mark of one round's deadline lies in the next round, which began before it was reached."""
    run = RunContent.read(finished(*FAULTY).out)
    for deadline_s in (0.05, 1e3):
        spec = gantt(replace(run, scenario=run.scenario | {"selection": {"deadline_s": deadline_s}}))
        dashed = [layer for layer in spec["layer"] if layer["mark"].get("strokeDash")]
        (marks,) = (layer["data"]["values"] for layer in dashed)
        assert len(marks) == (len(run.rounds) if deadline_s < 1 else 0)


def test_down_compute_and_up_make_a_rounds_time(finished) -> None:
    """Breaks if the parts of a round's virtual time do not add up, or one of them is missing."""
    for row in RunContent.read(finished(*FAULTY).out).good:
        assert row["down_s"] > 0 and row["up_s"] > 0 and row["down_s"] + row["up_s"] < row["time_s"]


def test_a_run_of_an_earlier_version_is_drawn(finished, tmp_path: Path, drawn_by) -> None:
    """Breaks if a field that an old folder lacks ends in a traceback."""
    folder = shutil.copytree(finished(*FAULTY).out, tmp_path / "old")
    gone = ("down_s", "up_s", "told_correct", "what", "memory_limit_bytes")
    rows = [json.loads(line) for line in (folder / "reports.jsonl").read_text().splitlines()]
    kept = [{name: value for name, value in row.items() if name not in gone} for row in rows]
    (folder / "reports.jsonl").write_text("".join(json.dumps(row) + "\n" for row in kept))
    summary = json.loads((folder / "summary.json").read_text())
    del summary["gain"], summary["hurt"], summary["accuracy"]["told"], summary["egress"]["bits_at_most"]
    (folder / "summary.json").write_text(json.dumps(summary))
    (folder / "environment.json").unlink()
    page = run_page(folder)
    require_alone(page)
    assert "time" not in charts(page) and require_figures(page, summary) > 10


def test_the_command_writes_the_page_and_tells_what_is_wrong(fedge, finished, tmp_path: Path) -> None:
    """Breaks if `fedge report` draws elsewhere than it says, or a run that is not at its end ends in a traceback."""
    folder = Path(shutil.copytree(finished(*FAULTY).out, tmp_path / "run"))
    code, out, err = fedge("report", str(folder), "--out", str(tmp_path / "new" / "p.html"))
    assert (code, err) == (0, "") and (tmp_path / "new" / "p.html").read_text().startswith("<!DOCTYPE html>")
    (folder / "summary.json").unlink()
    code, out, err = fedge("report", str(folder))
    assert (code, out, len(err.splitlines())) == (2, "", 1) and "not at its end" in err


@pytest.mark.long
def test_a_run_draws_its_page_by_itself_and_survives_a_failure(small, tmp_path: Path) -> None:
    """Breaks if a run ends without report.html, or is lost where the page cannot be drawn."""
    code = (
        "import sys, fedge; fedge.run(fedge.load_scenario('quickstart', ['rounds=2', 'engine.kind=inline', "
        "'training.epochs=1', 'model.factory.epochs=1']), sys.argv[1])"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "out")], check=True, capture_output=True)
    require_alone((tmp_path / "out" / "report.html").read_text())
    said: list[str] = []

    def fails() -> str:
        raise ValueError("no fonts\nat all")

    draw_beside(tmp_path, fails, said.append)
    assert len(said) == 1 and "no fonts at all" in said[0] and not (tmp_path / "report.html").exists()


STUDY = """
question = "Does <pruning> pay?"
scenario = "quickstart"
worlds = [7, 8]
[arms.dense]
"training.pruning.level" = 0.0
[arms."v1.0 all"]
"""


@pytest.mark.long
@pytest.mark.parametrize(
    "drawn_by", [DRAWN_BY[1], pytest.param("matplotlib", marks=pytest.mark.slow)], indirect=True
)
def test_a_studys_page_says_what_study_json_says(tmp_path: Path, drawn_by) -> None:
    """Breaks if a figure of a study's page is not study.json's, or a gain is not that of the clients' reports."""
    (tmp_path / "pays.toml").write_text(STUDY)
    fast = ["engine.kind=inline", "rounds=2", "training.epochs=1", "model.factory.epochs=1"]
    result = fedge.study(tmp_path / "pays.toml", tmp_path / "out", settings=fast)
    page = page_of(tmp_path / "out")
    require_alone(page)
    assert require_figures(page, dict(result.summary)) > 30
    assert "Does &lt;pruning&gt; pay?" in page
    found = charts(page)
    assert {"gains", "spread", "dumbbell", "cost-macs", "cost-time_s"} <= set(found)
    frame = result.frame()
    shown = sorted(tick["gain"] for tick in values(found["gains"], "tick") if tick["arm"] == "dense")
    own = frame[frame["arm"] == "dense"]
    assert shown == pytest.approx(sorted(100 * (own["accuracy"] - own["factory"])))
    front = [row["arm"] for row in values(found["cost-macs"], "line")]
    assert front == result.summary["front"]


CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no chromium here")
def test_a_browser_opens_it_without_an_error_or_a_request(finished, tmp_path: Path, drawn_by) -> None:
    """Breaks if the page asks for something, complains, or a chart is not there, with no network."""
    (tmp_path / "page.html").write_text(run_page(finished(*FAULTY).out))
    log = tmp_path / "net.json"
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--host-resolver-rules=MAP * ~NOTFOUND",
               "--disable-background-networking", "--enable-logging=stderr", f"--user-data-dir={tmp_path / 'profile'}",
               f"--log-net-log={log}", "--dump-dom", (tmp_path / "page.html").as_uri()]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert "CONSOLE" not in done.stderr
    assert done.stdout.count("<svg") == len(charts(done.stdout)) >= 7
    urls = set(re.findall(r'"url":"(https?://[^"]+)"', log.read_text()))
    assert not {url for url in urls if "google" not in url and "gvt1" not in url}, (
        urls
    )  # the browser's own updater
