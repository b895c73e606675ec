"""What `fedge plan` says a round costs is what a device counts."""

import json

import pytest

import fedge
from fedge.forecast import plan_scenario
from fedge.protocol.rounding import FINE

EXACT = (
    "fleet=[{device='jetson-nano', count=4}]",
    "data.partition={kind='iid'}",
    "training.pruning.level=0",
    "clock.device_sigma=0",
    "clock.round_sigma=0",
    "training.batch_size=8",
)

METHODS = {
    "plain": ("training.instance_filter.kind=none", "training.error_maps.keep=1.0"),
    "error maps": ("training.instance_filter.kind=none", "training.error_maps.keep=0.25"),
    "pixels": ("training.instance_filter.kind=none", "training.error_maps={kind='pixel', keep=0.25}"),
    "alternating": (
        "training.instance_filter.kind=none",
        "training.error_maps={keep=0.25, alternate=true}",
        "training.epochs=2",
    ),
    "quantised": (
        "training.instance_filter.kind=none",
        "training.error_maps.keep=0.5",
        "training.quantization={bits=8}",
    ),
}


@pytest.mark.parametrize("methods", METHODS)
def test_a_forecast_counts_what_a_device_counts(small, tmp_path, methods: str) -> None:
    """Breaks if forecast and device make their methods or weigh their messages differently."""
    scenario = small(*EXACT, *METHODS[methods], shape=())
    (forecast,) = plan_scenario(scenario)
    result = fedge.run(scenario, tmp_path)
    seen = forecast["samples"] * scenario.training.epochs
    rows = [row for row in result.reports() if row["round"] == 2 and row["samples_seen"] == seen]
    assert rows
    sent = {json.loads(line)["bytes"] for line in (tmp_path / "egress.jsonl").read_text().splitlines()}
    for row in rows:
        assert row["macs_done"] == forecast["macs_done"]
        assert row["macs_dense"] == forecast["macs_dense"]
        assert row["memory_asked_bytes"] == forecast["memory_need_bytes"]
        assert row["time_s"] == FINE(forecast["time_s"])  # plan and report bytes are in it
        assert row["energy_j"] == FINE(forecast["energy_j"])
    assert sent == {forecast["sent_bytes"]}


def test_a_forecast_counts_pixels_and_says_that_elements_are_an_estimate(small) -> None:
    """Breaks if a plan with error maps drawn at random is priced as a dense one, or an estimate is told as a count."""
    off = (*EXACT, "training.instance_filter.kind=none")
    (pixels,) = plan_scenario(small(*off, "training.error_maps={kind='pixel', keep=0.25}", shape=()))
    (channels,) = plan_scenario(small(*off, "training.error_maps.keep=0.25", shape=()))
    (elements,) = plan_scenario(small(*off, "training.error_maps={kind='element', target=0.9}", shape=()))
    assert "macs_estimated" not in pixels and "macs_estimated" not in channels
    assert elements["macs_estimated"]
    assert 0.95 < pixels["macs_done"] / channels["macs_done"] < 1.05
    assert elements["macs_done"] < 0.8 * elements["macs_dense"]


def test_a_forecast_knows_quantisation(small) -> None:
    """Breaks if `fedge plan` leaves a method out that a device runs: it must refuse what a device would refuse."""
    (plain,) = plan_scenario(small(*EXACT, *METHODS["error maps"], shape=()))
    (quantised,) = plan_scenario(
        small(*EXACT, *METHODS["error maps"], "training.quantization={bits=8}", shape=())
    )
    assert quantised["received_bytes"] > plain["received_bytes"]
    assert quantised["macs_done"] == plain["macs_done"]
