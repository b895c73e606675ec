"""The command line of all benchmarks.

    python -m benchmarks list                         what there is, and how long it takes
    python -m benchmarks NAME [options]               measure; rows go to benchmarks/results/NAME.jsonl
    python -m benchmarks NAME --smoke                 the same code in seconds, on tiny data; writes nothing here
    python -m benchmarks table NAME                   benchmarks/results/NAME.md from its rows
    python -m benchmarks NAME --help                  its options

Nothing here imports torch: processes that are measured import this module, too.
"""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from benchmarks.measure.benchmark import Benchmark

MODULES = {
    "adapt": "adapt.benchmark",
    "adaptation": "adaptation.benchmark",
    "contrast": "accuracy.contrast",
    "eif_emp": "eif_emp.benchmark",
    "exits": "accuracy.exits",
    "gradients": "accuracy.gradients",
    "noise": "accuracy.noise",
    "scenarios": "accuracy.scenarios",
    "clock": "cost.clock",
    "fingerprint": "cost.fingerprint",
    "frozen": "cost.frozen",
    "gpu": "cost.gpu",
    "gradients_clock": "cost.gradients_clock",
    "heap": "cost.heap",
    "memory": "cost.memory",
    "memory_format": "cost.memory_format",
    "prune_wallclock": "cost.prune_wallclock",
    "wallclock": "cost.wallclock",
    "deployment": "engine.deployment",
    "isolation": "engine.isolation",
    "overhead": "engine.overhead",
    "scale": "engine.scale",
}


def benchmark(name: str) -> "Benchmark":
    """The benchmark of that name, its module imported."""
    chosen: Benchmark = import_module(f"benchmarks.{MODULES[name]}").BENCHMARK
    return chosen


def main(arguments: Sequence[str] | None = None) -> None:
    """Do what the command line says."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", choices=["list", "table", *MODULES], metavar="NAME")
    name = parser.parse_args(arguments[:1]).name
    if name == "list":
        print("\n".join(_described(benchmark(each)) for each in MODULES))
    elif name == "table":
        _table(arguments[1:])
    else:
        _run(benchmark(name), arguments[1:])


def _described(chosen: "Benchmark") -> str:
    return f"{chosen.name:16} {chosen.purpose}\n{'':16} {chosen.takes}"


def _table(arguments: list[str]) -> None:
    from benchmarks.measure.results import FOLDER, read_rows

    parser = argparse.ArgumentParser(prog="python -m benchmarks table")
    parser.add_argument("name", choices=MODULES)
    parser.add_argument("--out", type=Path, default=FOLDER, help="folder of the rows and of the page")
    options = parser.parse_args(arguments)
    rows = read_rows(options.out / f"{options.name}.jsonl")
    if not rows:
        parser.exit(2, f"{options.out}: no {options.name}.jsonl with rows; measure first\n")
    (options.out / f"{options.name}.md").write_text(benchmark(options.name).render(rows))


def _run(chosen: "Benchmark", arguments: list[str]) -> None:
    from benchmarks.measure.results import FOLDER, Results
    from fedge.errors import FedgeError

    module = sys.modules[chosen.run.__module__]
    parser = argparse.ArgumentParser(
        prog=f"python -m benchmarks {chosen.name}",
        description=f"{module.__doc__}\nTakes {chosen.takes}.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--smoke", action="store_true", help="seconds, tiny data, results in a temporary folder"
    )
    parser.add_argument(
        "--out", type=Path, help=f"folder of the rows; default: {FOLDER.name}/ of the checkout"
    )
    chosen.options(parser)
    smoke = chosen.smoke.split() if "--smoke" in arguments else []
    options = parser.parse_args([*smoke, *arguments])
    with tempfile.TemporaryDirectory(prefix="fedge-benchmark-") as temporary:
        folder = options.out or (Path(temporary) if options.smoke else FOLDER)
        results = Results(folder / f"{chosen.name}.jsonl", chosen.key)
        try:
            chosen.run(options, results)
        except FedgeError as error:
            parser.exit(error.exit_code, f"{chosen.name}: {error}\n")
        print(chosen.render(results.rows))


if __name__ == "__main__":
    main()
