"""What a benchmark registers: its name, what it is for, how long it takes, how it runs, how its rows become a page."""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from benchmarks.measure.results import Results, Row

Options = argparse.Namespace


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """One benchmark, `BENCHMARK` of its module.

    `key`: the fields that tell rows apart; a row measured anew replaces the one of the same key. `options` adds
    arguments to the command line, and `smoke` is the command line of a run that takes seconds, on data that ship with
    the dependencies. `run(options, results)` adds rows; `page(rows)` is the Markdown behind the title.
    """

    name: str
    purpose: str
    takes: str
    key: Sequence[str]
    run: Callable[[Options, Results], None]
    page: Callable[[list[Row]], str]
    options: Callable[[argparse.ArgumentParser], None] = lambda parser: None
    smoke: str

    def render(self, rows: list[Row]) -> str:
        """The whole page: `results/NAME.md` from `results/NAME.jsonl`."""
        return (
            f"# {self.purpose}\n\n`python -m benchmarks {self.name}` measures, `python -m benchmarks table "
            f"{self.name}` makes this page from `{self.name}.jsonl`.\n\n{self.page(rows)}\n"
        )
