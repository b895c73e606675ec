"""The Flower ServerApp. `app` is what `flwr run` finds; `server_app` makes one with somebody watching."""

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from fedge.coordinator.rounds import run_rounds
from fedge.errors import UserError
from fedge.report.observer import Observer
from fedge.report.progress import PlainProgress
from fedge.report.run_folder import SCENARIO, RunFolder
from fedge.run_config import out_folder, scenario_of
from fedge.scenario import Scenario
from fedge.scenario_file import read_scenario, scenario_toml


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
    scenario, out = scenario_of(context.run_config), out_folder(context.run_config)
    if not context.run_config.get("resume"):
        return RunFolder.start(out, scenario_toml(scenario))
    folder = RunFolder.resume(out)
    _refuse_another(read_scenario(out / SCENARIO), scenario, out)
    return folder


def _refuse_another(begun: Scenario, asked: Scenario, out: object) -> None:
    """A run may be resumed on another engine, not with other numbers."""
    same = {"engine": asked.engine}
    if begun.model_copy(update=same) != asked:
        ours, theirs = (scenario.model_dump(mode="json") for scenario in (asked, begun))
        changed = [key for key in ours if key != "engine" and ours[key] != theirs[key]]
        raise UserError(
            f"{out} holds a run of another scenario (it differs in {', '.join(changed)}); "
            "resume it with the scenario it was begun with, or give --out another folder"
        )


app = server_app(PlainProgress())
