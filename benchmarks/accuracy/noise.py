"""What does noise cost? How far a server's figures are from the true ones, for budgets and sizes of fleets.

Two rounds of quickstart are run by sums, without noise, on real digits. Cohorts are its devices' own reports of the
last round, for fleets larger than its own drawn with replacement; each is released many times, by the code that a run
uses, and root mean squares of the differences from the cohort's exact figures are in percentage points. One round
speaks.
"""

import argparse
import math
import random
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

import fedge
from benchmarks.measure.benchmark import Benchmark, Options
from benchmarks.measure.results import Results, Row
from benchmarks.measure.table import per_machine
from fedge.coordinator.view.figures import noised_figures
from fedge.privacy.leaving import kept_reports
from fedge.privacy.noise.budget import Budget
from fedge.privacy.noise.gaussian import gaussian
from fedge.privacy.noise.vector import NoisedLayout
from fedge.protocol.hurt import is_worse
from fedge.protocol.report import WORDS, RoundReport, coded
from fedge.scenario.load import load_scenario
from fedge.scenario.schema import Scenario

SEED = 5


def run(options: Options, results: Results) -> None:
    """Every budget and size."""
    reports = devices_reports(options.rounds)
    for epsilon in options.epsilons:
        for clients in options.clients:
            results.add(measure(reports, epsilon, clients, options.releases))


def devices_reports(rounds: int) -> list[RoundReport]:
    """Of quickstart's last round, as its devices have kept them."""
    changes = ["privacy.view=sums", "engine.kind=inline", f"rounds={rounds}"]
    with tempfile.TemporaryDirectory() as folder:
        out = fedge.run(load_scenario("quickstart", changes), Path(folder) / "out").out
        last = [kept_reports(path)[-1] for path in sorted((out / "devices").iterdir())]
    words = {field: [row.pop(field) for row in last] for field in WORDS if field in last[0]}
    places = [coded(**{field: said[k] for field, said in words.items()}) for k in range(len(last))]
    return [RoundReport.model_validate({**row, **place}) for row, place in zip(last, places, strict=True)]


def measure(reports: Sequence[RoundReport], epsilon: float, clients: int, releases: int) -> Row:
    """Root mean squared errors of one size, noise on the sums; and of the mean accuracy with noise in each device."""
    chance = random.Random(SEED)
    cohort = list(reports) if clients == len(reports) else chance.choices(reports, k=clients)
    scenario = noisy(epsilon, "sums")
    budget = Budget.of(scenario)
    local = Budget.of(noisy(epsilon, "each"))
    assert budget is not None and local is not None
    errors = [differences(cohort, scenario, budget.kept()) for _ in range(releases)]
    names = errors[0].keys()
    each = local.kept()
    local_draw = gaussian(each.sigma)
    far = [sum(local_draw(clients)) / (2 * each.levels * clients) for _ in range(releases)]
    return {
        "epsilon": epsilon,
        "clients": clients,
        "releases": releases,
        **{name: round(100 * root_mean_square([error[name] for error in errors]), 2) for name in names},
        "foretold": round(100 * budget.sigma / (2 * budget.levels * clients), 2),
        "accuracy_local": round(100 * root_mean_square(far), 2),
    }


def noisy(epsilon: float, view: str) -> Scenario:
    return load_scenario("quickstart", [f"privacy.view={view}", f"privacy.epsilon={float(epsilon)}"])


def differences(cohort: Sequence[RoundReport], scenario: Scenario, budget: Budget) -> dict[str, float]:
    """Of one release from what is so."""
    layout = NoisedLayout.of(scenario, budget)
    total = np.sum([layout.vector(report) for report in cohort], axis=0, dtype=np.uint64)
    noise = np.array(gaussian(budget.sigma)(len(layout)), dtype=np.int64).astype(np.uint64)
    said = noised_figures(layout.named((total + noise).tolist(), len(cohort)), scenario, 1, len(cohort))
    accuracy = [report.test_correct / report.test_count for report in cohort]
    worst = sorted(accuracy)[: math.ceil(len(accuracy) / 10)]
    return {
        "accuracy": said["accuracy"]["mean"] - math.fsum(accuracy) / len(accuracy),
        "hurt": said["hurt"]["any"] - sum(is_worse(report.row()) for report in cohort) / len(cohort),
        "worst_decile": (said["accuracy"]["worst_decile"] or 0.0) - math.fsum(worst) / len(worst),
    }


def root_mean_square(values: Sequence[float]) -> float:
    return math.sqrt(math.fsum(value * value for value in values) / len(values))


COLUMNS = """
| epsilon | clients | mean accuracy | foretold | share hurt | worst decile | mean accuracy, noise in each device |
| {epsilon:g} | {clients:,} | {accuracy} | {foretold} | {hurt} | {worst_decile} | {accuracy_local} |
"""
NOTE = "{releases} releases each; root mean squared errors in percentage points; figures are cut to their ranges."


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--epsilons", type=float, nargs="+", default=(1.0, 4.0, 16.0))
    parser.add_argument("--clients", type=int, nargs="+", default=(12, 30, 100, 1000))
    parser.add_argument("--releases", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=2)


BENCHMARK = Benchmark(
    name="noise",
    purpose="What noise costs: a server's figures against the true ones",
    takes="two minutes of one idle core",
    key=("epsilon", "clients", "machine"),
    run=run,
    page=lambda rows: per_machine(rows, COLUMNS, NOTE),
    options=add_options,
    smoke="--epsilons 4 --clients 12 --releases 3",
)
