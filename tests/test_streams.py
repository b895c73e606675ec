"""Whole runs of a stream: undisturbed, cut and taken up, inline and on Ray; what they write and what a page shows."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import fedge
from fedge.page.run_page import run_page

pytestmark = pytest.mark.long

Make = Callable[..., Any]
STREAM = (
    "data.stream.rate_per_h=30",
    "data.stream.memory=20",
    "data.stream.order='parked'",
    "data.stream.keep='scenes'",
    "data.stream.labelled=0.8",
    "data.stream.label_delay_h=0.4",
    "data.stream.drift=[{what='corruption', kind='gradual', at_h=1.0, width_h=1.0, staggered_h=1.0}]",
    "training.instance_filter.kind=none",
    "availability.dropout=0.2",
    "rounds=3",
)


@pytest.fixture
def cut(finished: Make, tmp_path: Path) -> Path:
    """A folder whose run of three rounds was killed after its second."""
    out = tmp_path / "cut"
    shutil.copytree(finished(*STREAM).out, out)
    (out / "checkpoint.json").write_text((out / "checkpoint.previous.json").read_text())
    (out / "summary.json").unlink()
    for state in out.glob("devices/*/round-000003.safetensors"):
        state.unlink()
    return out


def test_a_run_taken_up_ends_like_the_undisturbed_one(small: Make, finished: Make, cut: Path) -> None:
    """Breaks if what a device stores, or has met, is lost with the process that held it."""
    resumed = fedge.run(small(*STREAM), cut, resume=True)
    whole = finished(*STREAM)
    assert resumed.reports(timing=False) == whole.reports(timing=False)
    assert resumed.summary["stream"] == whole.summary["stream"]


@pytest.mark.long
def test_on_ray_as_in_this_process(small: Make, finished: Make, cluster: object, tmp_path: Path) -> None:
    """Breaks if arrivals or what is kept depend on hosts, or on whose report comes first."""
    on_ray = fedge.run(small(*STREAM, "engine.kind=ray", "engine.hosts=2"), tmp_path / "ray")
    assert on_ray.reports(timing=False) == finished(*STREAM).reports(timing=False)


def test_rounds_and_summary_say_what_the_page_shows(finished: Make) -> None:
    """Breaks if the figures of a stream are in reports alone, or if the page leaves the blind baseline out."""
    result = finished(*STREAM)
    rounds = [json.loads(line) for line in (result.out / "rounds.jsonl").read_text().splitlines()]
    assert [row["stream"]["hour"] for row in rounds] == [1.0, 2.0, 3.0]
    stream = result.summary["stream"]
    assert stream["arrived"] == sum(row["stream"]["arrived"] for row in rounds) > 0
    page = run_page(result.out)
    assert "What the stream brought" in page and "blind: the last label again" in page
    assert 'id="trained"' in page and "corruption" in page


def test_budget_of_bits_counts_the_streams_fields_where_there_is_a_stream(finished: Make) -> None:
    """Breaks if what a report may tell is under-stated, or if plain scenarios pay for fields that they do not send."""
    plain = finished("training.instance_filter.kind=none").summary["egress"]
    streamed = finished(*STREAM).summary["egress"]
    frames = fedge.load_scenario(finished(*STREAM).out / "scenario.toml").stream_frames
    more = 3 * frames.bit_length()  # right answers; the rest is no program's choice
    assert streamed["bits_at_most"] - plain["bits_at_most"] == more
    assert not [field for field in plain["fields"] if "ttt" in field]


REGROWING = (
    "data.stream.rate_per_h=120",
    "data.stream.memory=40",
    "data.stream.keep='fifo'",
    "data.stream.label_delay_h=0.3",
    "data.stream.drift=[{what='classes', at_h=4.0, severity=5}]",
    "training.instance_filter.kind=none",
    "training.epochs=2",
    "training.learning_rate=0.01",
    "schedule.detector={then='regrow', delta=0.2}",
    "availability.dropout=0.1",
    "rounds=7",
)


def test_detectors_hear_a_change_of_classes_and_survive_a_stop(
    small: Make, finished: Make, tmp_path: Path
) -> None:
    """Breaks if a detector's window, the errors that wait for a label, or where a device stands in its schedule is
    lost with its process."""
    whole = finished(*REGROWING)
    rows = whole.reports(timing=False)
    heard = {row["client"]: row["round"] for row in rows if row.get("alarms")}
    assert heard and min(heard.values()) >= 5 and whole.summary["stream"]["alarms"] >= len(heard)
    page = run_page(whole.out)
    told = f"{sum(row.get('alarms', 0) for row in rows if row['round'] == min(heard.values()))} by hour "
    assert "drift detectors found" in page and told in page
    dense = max(row["parameters"] for row in rows if "parameters" in row)
    grown = [row for row in rows if row.get("alarms") and row["round"] == heard[row["client"]]]
    assert all(row["parameters"] == dense for row in grown)
    cut = tmp_path / "cut"
    shutil.copytree(whole.out, cut)
    (cut / "checkpoint.json").write_text((cut / "checkpoint.previous.json").read_text())
    (cut / "summary.json").unlink()
    for state in cut.glob("devices/*/round-000007.safetensors"):
        state.unlink()
    assert fedge.run(small(*REGROWING), cut, resume=True).reports(timing=False) == rows


@pytest.mark.slow
def test_detectors_are_alike_on_ray(small: Make, finished: Make, cluster: object, tmp_path: Path) -> None:
    """Breaks if what a detector hears depends on the engine."""
    on_ray = fedge.run(small(*REGROWING, "engine.kind=ray", "engine.hosts=2"), tmp_path / "ray")
    assert on_ray.reports(timing=False) == finished(*REGROWING).reports(timing=False)


def test_plan_says_who_keeps_up(fedge: Callable[..., tuple[int, str, str]]) -> None:
    """Breaks if nobody is told, before hours of simulation, that a device cannot keep up."""
    changes = [f"--set={change}" for change in STREAM[:2]]
    code, out, _ = fedge("plan", "quickstart", "--json", *changes)
    assert code == 0
    for row in json.loads(out):
        assert row["samples"] == 20 and row["frames_come_per_s"] == pytest.approx(30 * 0.9 / 3600)
        assert row["passes_in_time"] == pytest.approx(row["frames_train_per_s"] * 3600 / 20)
    code, out, _ = fedge("plan", "quickstart", *changes)
    assert {"frames", "passes"} <= set(out.split()) and "per s" in out
    _, plain, _ = fedge("plan", "quickstart")
    assert "passes" not in plain.split()
