"""Seconds by a fingerprint: of a round, of a step before it runs, of a run."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import fedge
from fedge.catalog.devices import PROFILES
from fedge.device.budget.clock import own_spread, spread
from fedge.device.time.pricing import StepTime, learnt_s, typical_step
from fedge.errors import UserError
from fedge.forecast import plan_scenario
from fedge.models import build
from fedge.protocol.rounding import FINE
from fedge.scenario.schema import Clock
from fedge.scenario.training import ErrorMaps, LevelSearch, OtherFilter, Training
from fedge.training.macs import count_macs
from fedge.training.pruning.level_search import StepSeconds, search_level
from fedge.training.stats import TrainStats
from fedge.training.time.shape import step_shape
from tests.device.time.fingerprints import fingerprint_of, written

SHAPE = (1, 16, 16)
PER_PRODUCT = 1e-10
TOY = replace(PROFILES["raspberry-pi-4"], fingerprint=fingerprint_of(product=PER_PRODUCT, step=1e-3))


def lenet() -> Any:
    return build("lenet", num_classes=10, in_channels=1, image_size=16)


def stats_of(kept: int, steps: int, share: float = 1.0) -> TrainStats:
    table = count_macs(lenet(), SHAPE)
    return TrainStats(
        samples_seen=kept,
        samples_kept=kept,
        steps=steps,
        macs_forward=kept * table.forward,
        macs_error_propagation=round(share * kept * table.error_propagation),
        macs_weight_gradient=round(share * kept * table.weight_gradient),
    )


def test_a_round_of_plain_training_costs_its_steps() -> None:
    """Breaks if steps are charged otherwise than they were learnt, or a filter's small batches like large ones."""
    for kept, steps in ((320, 10), (100, 10)):
        stats = stats_of(kept, steps)
        seconds = learnt_s(TOY, lenet(), SHAPE, macs=stats.macs_done, stats=stats, batch_size=32)
        assert seconds == pytest.approx(steps * 1e-3 + PER_PRODUCT * stats.macs_done)


def test_what_else_a_round_does_is_charged_like_its_steps() -> None:
    """Breaks if ranking, a search or a filter's network are free, or nothing costs something."""
    stats = stats_of(320, 10)
    plain, more = (
        learnt_s(TOY, lenet(), SHAPE, macs=factor * stats.macs_done, stats=stats, batch_size=32)
        for factor in (1, 2)
    )
    assert plain is not None and more == pytest.approx(2 * plain)
    assert learnt_s(TOY, lenet(), SHAPE, macs=0, stats=TrainStats(), batch_size=32) == 0.0
    ranking = learnt_s(TOY, lenet(), SHAPE, macs=10**6, stats=TrainStats(), batch_size=32)
    dense = step_shape(lenet(), SHAPE, 32).macs
    assert ranking == pytest.approx((1e-3 + PER_PRODUCT * dense) * 10**6 / dense)
    two_terms = replace(TOY, fingerprint=None)
    assert learnt_s(two_terms, lenet(), SHAPE, macs=5, stats=stats, batch_size=32) is None


def test_pruned_error_maps_are_those_that_were_counted() -> None:
    """Breaks if the settings' keep is believed where epochs alternate or layers stayed dense."""
    step = typical_step(lenet(), SHAPE, stats_of(320, 10, share=0.8), 32)
    assert step.batch == 32 and 0 < step.keep < 0.8  # linear layers are never pruned
    assert step.macs == pytest.approx(stats_of(320, 10, share=0.8).macs_done / 10)


def foreseen(training: Training, fingerprint: str | None = TOY.fingerprint) -> float:
    return StepTime(
        profile=replace(TOY, fingerprint=fingerprint),
        clock=Clock(device_sigma=0, round_sigma=0),
        training=training,
        input_shape=SHAPE,
        batch_size=32,
        slowness=1.0,
        peak_bytes=lambda model: 10**6,
    )(lenet())


def test_a_step_is_foreseen_as_the_settings_make_it() -> None:
    """Breaks if a search by time looks at dense steps where the round filters or prunes error maps."""
    table = count_macs(lenet(), SHAPE)
    plain = foreseen(Training())
    assert plain == pytest.approx(1e-3 + PER_PRODUCT * 32 * table.training)
    filtered = foreseen(Training(instance_filter=OtherFilter(kind="random", keep=0.25)))
    assert filtered == pytest.approx(1e-3 + PER_PRODUCT * 8 * table.training)
    assert filtered < foreseen(Training(error_maps=ErrorMaps(keep=0.25))) < plain
    by_two_terms = foreseen(Training(), fingerprint=None)
    assert by_two_terms == pytest.approx(
        2 * 32 * table.training / (TOY.train_gflops * 1e9) + 10 * 10**6 / (TOY.memory_gbs * 1e9)
    )


def test_a_device_knows_its_own_speed_and_not_the_round_s() -> None:
    """Breaks if a slow unit searches by its class's median, or foresees what a round's luck will be."""
    settings = Clock(device_sigma=0.5, round_sigma=0.0)
    assert own_spread(Clock(device_sigma=0.5, round_sigma=1.0), seed=3, client=2) == spread(
        settings, seed=3, client=2, round=7
    )
    assert own_spread(settings, seed=3, client=2) != own_spread(settings, seed=3, client=1)


def test_the_search_takes_the_lowest_level_in_time_or_the_fastest() -> None:
    """Breaks if a search by time cuts more than needed, or a fleet's slowest unit ends the run."""
    model = build("resnet8", num_classes=10, in_channels=3, image_size=16)
    example = torch.zeros(1, 3, 16, 16)

    def step_s(net: torch.nn.Module) -> float:
        return 1e-3 + step_shape(net, (3, 16, 16), 8).macs * 1e-9

    whole = step_s(model)
    found = search_level(model, StepSeconds(0.5 * whole, step_s), example_input=example, criterion="l1")
    assert found.tried[found.level] and not found.tried.get(round(found.level - 0.05, 2), False)
    with pytest.raises(UserError, match="at most 1e-05 seconds per step"):
        search_level(model, StepSeconds(1e-5, step_s), example_input=example, criterion="l1")
    deepest = search_level(
        model, StepSeconds(1e-5, step_s, at_best=True), example_input=example, criterion="l1"
    )
    assert deepest.level >= 0.8


@pytest.fixture
def on_toys(small, tmp_path: Path) -> Any:
    """A scenario whose devices are made of a fingerprint."""
    path = written(tmp_path, product=PER_PRODUCT, step=2e-5)
    own = f'{{name="toy", fingerprint="{path}", memory_mb=800, down_mbps=20, up_mbps=10, idle_w=1, load_w=4, '
    own += 'battery_wh="none"}'
    base = (
        f"device=[{own}]",
        "fleet=[{device='toy', count=2}]",
        "data.partition={kind='iid'}",
        "clock.device_sigma=0",
        "clock.round_sigma=0",
        "training.instance_filter.kind=none",
        "training.error_maps.keep=1.0",
    )
    return lambda *changes: small(*base, *changes, shape=())


def test_a_run_and_its_forecast_go_by_the_fingerprint(on_toys, tmp_path: Path) -> None:
    """Breaks if devices made of a fingerprint are priced by two constants, or the file is not on record."""
    scenario = on_toys("training.pruning.level=0")
    (forecast,) = plan_scenario(scenario)
    result = fedge.run(scenario, tmp_path / "out")
    row = next(row for row in result.reports() if row["round"] == 2)
    steps = -(-row["samples_seen"] // scenario.training.batch_size)
    compute_s = row["time_s"] - row["down_s"] - row["up_s"]
    assert compute_s == pytest.approx(2e-5 * steps + PER_PRODUCT * row["macs_done"], rel=0.02)
    if row["samples_seen"] == forecast["samples"]:
        assert row["time_s"] == FINE(forecast["time_s"])
    assert forecast["time_learnt_on"] == "Toy 1"
    kept = tmp_path / "out" / "programs" / "toy.json"
    assert kept.read_text() == (tmp_path / "toy.json").read_text()
    assert "toy.json" in json.loads((tmp_path / "out" / "environment.json").read_text())["programs"]
    (tmp_path / "toy.json").write_text(fingerprint_of(product=1.0))
    with pytest.raises(UserError, match=r"toy\.json has changed since round 2"):
        fedge.run(on_toys("training.pruning.level=0"), tmp_path / "out", resume=True)


def test_a_class_searches_by_time(on_toys) -> None:
    """Breaks if `search = "time"` finds another level than its seconds say, with a share or with a limit."""
    (half,) = plan_scenario(on_toys("training.pruning.level={search='time', share=0.6}"))
    (whole,) = plan_scenario(on_toys("training.pruning.level=0"))
    assert 0 < half["level"] < 0.95
    compute = [row["time_s"] for row in (half, whole)]
    assert compute[0] < compute[1]
    (limited,) = plan_scenario(on_toys("training.pruning.level={search='time', limit_s=1e-9}"))
    assert limited["level"] >= half["level"]


def test_what_simulating_takes_stands_beside(on_toys) -> None:
    """Breaks if `fedge plan --fingerprint` charges the device's seconds for this machine's."""
    scenario = on_toys("training.pruning.level=0")
    (row,) = plan_scenario(scenario, fingerprint_of(product=3 * PER_PRODUCT))
    assert row["here_s"] == pytest.approx(3 * PER_PRODUCT * row["macs_done"])
    assert "here_s" not in plan_scenario(scenario)[0]


@pytest.mark.parametrize(
    ("search", "said"),
    [
        ({"search": "macs", "limit_s": 1.0}, "limit_s is for search = 'time'"),
        ({"search": "time", "limit_s": 1.0, "share": 0.5}, "a search by time has one limit"),
        ({"search": "time", "limit_s": 0.0}, "greater than 0"),
    ],
)
def test_limits_that_cannot_be_are_refused(search: dict[str, Any], said: str) -> None:
    """Breaks if a limit is taken that nothing would keep."""
    with pytest.raises(ValueError, match=said):
        LevelSearch(**search)


def test_a_search_without_a_limit_weighs_what_it_weighed() -> None:
    """Breaks if plans of old scenarios grow by a key that they do not use, and with them their seconds."""
    assert LevelSearch(search="macs").model_dump(mode="json") == {
        "search": "macs",
        "share": 1.0,
        "slack": 0.0,
    }
    assert LevelSearch(search="time", limit_s=2.0).model_dump(mode="json")["limit_s"] == 2.0
