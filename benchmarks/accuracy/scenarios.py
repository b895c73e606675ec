"""The shipped scenarios, run to their end: what they bring, for whom, at what cost.

Each is `fedge run SCENARIO --engine inline`; `--client dense` is plain local training in its place. Data files are
looked for under FEDGE_DATA. `--from FOLDER` reads finished runs instead (FOLDER/SCENARIO/summary.json).
"""

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import fedge
from benchmarks.measure.benchmark import Benchmark, Options
from benchmarks.measure.results import Results, Row
from benchmarks.measure.table import per_machine
from fedge.errors import UserError

SCENARIOS = ("quickstart", "mnist-dirichlet", "har-subjects", "cifar10-pathological", "cifar100-subsets")
SMALL = ["rounds=2", 'fleet=[{device="jetson-nano",count=2}]', "training.epochs=1"]


def run(options: Options, results: Results) -> None:
    """Every scenario."""
    for name in options.scenarios:
        results.add(row_of(name, options.client, _summary(name, options)))


def _summary(name: str, options: Options) -> dict[str, Any]:
    if options.made_before is None:
        changes = ["engine.kind=inline", *([f"client={options.client}"] if options.client else [])]
        with tempfile.TemporaryDirectory() as folder:
            changes += SMALL if options.small else []
            scenario = fedge.load_scenario(name, changes)
            return dict(fedge.run(scenario, Path(folder) / "run").summary)
    try:
        text = (Path(options.made_before) / name / "summary.json").read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(
            f"--from {options.made_before}: no finished run of {name} in it ({error.strerror})"
        ) from None
    found: dict[str, Any] = json.loads(text)
    return found


def row_of(name: str, client: str | None, summary: dict[str, Any]) -> Row:
    """One row; shares as they are, 0..1."""
    accuracy, gain, hurt = summary["accuracy"], summary["gain"], summary["hurt"]
    return {
        "scenario": name,
        "client": client or "as it stands",
        "seed": summary["seed"],
        "clients": summary["clients"],
        "factory": accuracy["factory"],
        "told": accuracy["told"],
        "after": accuracy["mean"],
        "std": accuracy["std"],
        "worst_decile": accuracy["worst_decile"],
        "gain": gain["mean"],
        "gain_interval": gain["interval"],
        "gain_over_told": gain["over_told"],
        "hurt": hurt["any"],
        "hurt_beyond_chance": hurt["beyond_chance"],
        "macs_saved": summary["macs"]["saved"],
        "messages": summary["egress"]["messages"],
        "bytes": summary["egress"]["bytes"],
        "wall_s": summary["wall_s"],
    }


COLUMNS = """
| scenario | client | clients | factory | told | after | worst decile | gain | 95 % of it | over told | hurt |\
 beyond chance | MACs saved | left the devices |
| `{scenario}` | {client} | {clients} | {factory:.1%} | {told:.1%} | {after:.1%} ± {std:.1%} | {worst_decile:.1%} |\
 {gain:+.1%} | {gain_interval[0]:+.1%} to {gain_interval[1]:+.1%} | {gain_over_told:+.1%} | {hurt:.1%} |\
 {hurt_beyond_chance:.1%} | {macs_saved:.1%} | {messages} messages, {bytes:,} bytes |
"""
NOTE = "one run each, seed {seed}; gains in percentage points of accuracy, clients weighed alike."


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--scenarios", nargs="+", default=SCENARIOS, choices=SCENARIOS)
    parser.add_argument("--client", help="another client program, such as dense")
    parser.add_argument("--from", dest="made_before", metavar="FOLDER", help="read finished runs from there")
    parser.add_argument("--small", action="store_true", help="two clients, two rounds: a trial")


BENCHMARK = Benchmark(
    name="scenarios",
    purpose="The shipped scenarios: what they bring, for whom, at what cost",
    takes="half an hour of one idle core, most of it for cifar100-subsets' factory model",
    key=("scenario", "client", "seed", "machine"),
    run=run,
    page=lambda rows: per_machine(rows, COLUMNS, NOTE),
    options=add_options,
    smoke="--scenarios quickstart --small",
)
