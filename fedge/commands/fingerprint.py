"""`fedge fingerprint`."""

import time
from pathlib import Path
from typing import Annotated

import typer

from fedge.commands.options import scenarios_like
from fedge.errors import UserError

PREDICTORS = ("width", "trees")
_LIMIT_S = 480.0  # after which no round is begun: ten minutes with all the rest


def fingerprint_command(
    out: Annotated[Path, typer.Option(help="The file to write.")] = Path("fingerprint.json"),
    quick: Annotated[bool, typer.Option("--quick", help="About a minute, and less exact.")] = False,
    predictor: Annotated[
        str,
        typer.Option(
            metavar="|".join(PREDICTORS),
            help="width: for any network; trees: for levels of the networks that were timed.",
        ),
    ] = "width",
    probe: Annotated[
        str | None,
        typer.Option(
            metavar="SCENARIO",
            help="Time six steps of this scenario's network too.",
            autocompletion=scenarios_like,
        ),
    ] = None,
) -> None:
    """Learn what training steps take on this machine, and write it down.

    Trains a few steps of four networks at five levels and three batches, by one thread, and fits some ten coefficients.
    Takes up to ten minutes; leave the machine alone meanwhile. A scenario's device is made of it by
    [[device]] fingerprint = "FILE".
    """
    if predictor not in PREDICTORS:
        raise UserError(f"--predictor is {predictor!r}; take {' or '.join(PREDICTORS)}")
    if out.exists():
        raise UserError(f"{out} is there already, and is left as it is: give another --out, or remove it")
    if not out.absolute().parent.is_dir():
        raise UserError(f"{out} cannot be written: there is no folder {out.absolute().parent}")
    from fedge.scenario.load import load_scenario

    scenario = None if probe is None else load_scenario(probe, [])
    text = _learnt(quick, predictor, scenario)
    try:
        out.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(f"{out} cannot be written: {error.strerror}") from None
    print(_told(text, out))


def _learnt(quick: bool, predictor: str, scenario: object | None) -> str:
    """The file's text; brings torch."""
    from fedge.console.progress import watched
    from fedge.device.time.probe import probe
    from fedge.progress import tell
    from fedge.scenario.schema import Scenario
    from fedge.training.time.learn import fingerprint_text, measured
    from fedge.training.time.sample import cells
    from fedge.training.time.timing import ROUNDS

    begun_s, rounds = time.monotonic(), 2 if quick else ROUNDS

    def told(done: int, of: int) -> None:
        tell("timing", done, of)

    with watched():
        tell("timing")
        rows = measured(cells(quick=quick), rounds=rounds, limit_s=_LIMIT_S, told=told)
        if isinstance(scenario, Scenario):
            rows += probe(scenario, rounds=rounds, told=told)
    return fingerprint_text(rows, predictor, took_s=time.monotonic() - begun_s)


def _told(text: str, out: Path) -> str:
    """What was learnt, for a person."""
    import json

    table = json.loads(text)
    machine, errors = table["machine"], table["errors"]
    lines = [
        f"{out}: {machine['processor']}, {machine['vector_instructions']}, torch {machine['torch']}, "
        f"{machine['threads']} thread, {len(table['measured'])} steps timed in {table['took_s']:.0f} s",
        f"the same step, timed again: {errors['noise']:.1%} off",
    ]
    for kind in PREDICTORS:
        parts = ", ".join(f"{part} {error:.1%}" for part, error in errors[kind].items())
        lines.append(f"{kind} off in the mean, on what is held out: {parts}")
    return "\n".join(lines)
