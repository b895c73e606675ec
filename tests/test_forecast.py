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


def test_a_forecast_knows_quantisation(small) -> None:
    """Breaks if `fedge plan` leaves a method out that a device runs: it must refuse what a device would refuse."""
    (plain,) = plan_scenario(small(*EXACT, *METHODS["error maps"], shape=()))
    (quantised,) = plan_scenario(
        small(*EXACT, *METHODS["error maps"], "training.quantization={bits=8}", shape=())
    )
    assert quantised["received_bytes"] > plain["received_bytes"]
    assert quantised["macs_done"] == plain["macs_done"]
