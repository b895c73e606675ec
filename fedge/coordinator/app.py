"""The Flower ServerApp. `app` is what `flwr run` finds; `server_app` makes one with somebody watching."""

from pathlib import Path

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from fedge.console.observer import Observer
from fedge.console.progress import PlainProgress
from fedge.coordinator.rounds import run_rounds
from fedge.errors import UserError
from fedge.protocol.run_config import out_folder, scenario_of
from fedge.results.run_folder import SCENARIO, SUMMARY, RunFolder, refuse_unusable, rounds_held
from fedge.scenario.file import read_scenario, scenario_toml
from fedge.scenario.schema import Scenario


def server_app(observer: Observer) -> ServerApp:
    """A ServerApp that runs the scenario named by the run's configuration and tells `observer` of it."""
    app = ServerApp()

    @app.main()
    def main(grid: Grid, context: Context) -> None:
        scenario = scenario_of(context.run_config)
        folder = open_folder(context)
        run_rounds(grid, scenario, folder, observer)

    return app


def open_folder(context: Context) -> RunFolder:
    """The run's folder: begun anew, or taken up after its last whole round where the configuration says `resume`."""
    run = context.run_config
    scenario, out = scenario_of(run), out_folder(run)
    resume = bool(run.get("resume"))
    refuse_folder(out, scenario, resume=resume, overwrite=bool(run.get("overwrite")))
    return RunFolder.resume(out) if resume else RunFolder.start(out, scenario_toml(scenario))


def refuse_folder(out: Path, scenario: Scenario, *, resume: bool, overwrite: bool) -> None:
    """Raise UserError where `out` cannot take this run, or where an earlier run's results would be lost unasked.

    A finished run may be run again, and a run may be resumed on another engine, not with other numbers.
    """
    if resume and overwrite:
        raise UserError("--resume goes on with the run in --out, --overwrite drops it; give one of them")
    refuse_unusable(out, resume=resume)
    done = rounds_held(out)
    if overwrite or not (done or resume):
        return
    begun = _begun(out)
    held = f"{out} holds a run (round {done} of {begun.rounds})"
    if changed := _changed(begun, scenario):
        instead = "resume it with the scenario it was begun with" if resume else "take --overwrite"
        raise UserError(
            f"{held} of another scenario (it differs in {', '.join(changed)}): {instead}, or another --out"
        )
    if not (resume or (out / SUMMARY).is_file()):
        raise UserError(f"{held} that is not at its end: take --resume, --overwrite, or another --out")


def _begun(out: Path) -> Scenario:
    try:
        return read_scenario(out / SCENARIO)
    except UserError as error:
        raise UserError(
            f"{out} holds a run whose scenario cannot be read ({error}): take --overwrite, or another --out"
        ) from None


def _changed(begun: Scenario, asked: Scenario) -> list[str]:
    """The keys in which two scenarios differ, but for the engine, on which no number depends."""
    ours, theirs = (scenario.model_dump(mode="json") for scenario in (asked, begun))
    return [key for key in ours if key != "engine" and ours[key] != theirs[key]]


app = server_app(PlainProgress())
