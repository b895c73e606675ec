"""A whole run with a label prior and generated features: what its summary and its forecast say of them."""

import json
from pathlib import Path

import pytest

import fedge
from fedge.forecast import plan_scenario

ONE = (
    "fleet=[{device='jetson-nano', count=2}]", "data.partition={kind='iid'}", "clock.device_sigma=0",
    "training.instance_filter={kind='none'}", "training.error_maps.keep=1.0", "schedule={kind='train_only'}",
    "training.pruning.level=0", "training.what=head", "training.epochs=2",
)  # fmt: skip
DRAWN = ("training.source=generated", "training.prior=em", "training.adaptation.moved=0.05")


@pytest.fixture(scope="module")
def drawn(small, tmp_path_factory):
    scenario = small(*ONE, *DRAWN, shape=())
    return scenario, fedge.run(scenario, tmp_path_factory.mktemp("drawn") / "out")


def test_the_summary_says_what_was_shipped_and_retrained(drawn) -> None:
    """Breaks if bytes are not those of the files, or rounds without a training are counted for one."""
    scenario, result = drawn
    said = result.summary["adaptation"]
    assert said["retrainings"] == 2  # once each: nothing moves where the rows stay
    assert said["shipped_bytes"] == {scenario.fleet[0].label: 4 * (10 + (10 + 500) * 500)}
    second = [row for row in result.reports() if row["round"] == 2]
    assert all(row["samples_seen"] == 0 == row["macs_done"] and row["status"] == "ok" for row in second)


def test_what_is_shipped_lies_beside_the_factory_model(drawn) -> None:
    """Breaks if devices of a run would have to make it themselves."""
    scenario, _ = drawn
    folder = Path(fedge.prepare.prepare(scenario).folder)
    assert {path.name for path in folder.glob("*.safetensors")} >= {
        "factory.safetensors", "label-prior.safetensors", "features-generated.safetensors",
    }  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("source", ["own", "replay"])
def test_a_forecast_counts_what_a_device_counts(small, tmp_path, source) -> None:
    """Breaks if forecast and device count features, heads or memory differently."""
    scenario = small(*ONE, f"training.source={source}", "training.answers=own", shape=())
    (forecast,) = plan_scenario(scenario)
    result = fedge.run(scenario, tmp_path)
    seen = forecast["samples"] * scenario.training.epochs
    rows = [row for row in result.reports() if row["round"] == 2 and row["samples_seen"] == seen]
    assert rows
    for row in rows:
        assert row["macs_done"] == forecast["macs_done"]
        assert row["memory_asked_bytes"] == forecast["memory_need_bytes"]
    assert forecast["shipped_bytes"] == (4 * 20 * 10 * 500 if source == "replay" else 0)


def test_a_forecast_tells_the_price_of_a_prior(drawn) -> None:
    """Breaks if `fedge plan` leaves out what the first round pays."""
    scenario, result = drawn
    (forecast,) = plan_scenario(scenario)
    head = forecast["macs_done"]
    first = [row["macs_done"] - head for row in result.reports() if row["round"] == 1]
    assert any(abs(macs / forecast["prior_macs"] - 1) < 0.02 for macs in first)
    assert "shipped_bytes" in json.dumps(forecast)
