"""The Flower ServerApp. `app` is what `flwr run` finds; `server_app` makes one of a scenario that is at hand."""

from collections.abc import Callable

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from fedge.console.observer import Observer
from fedge.console.progress import PlainProgress
from fedge.coordinator.opening import RunRequest
from fedge.coordinator.rounds import run_rounds
from fedge.environment import environment
from fedge.protocol.run_config import out_folder, scenario_of
from fedge.results.owner import owned
from fedge.results.run_folder import RunFolder
from fedge.scenario.schema import Scenario


def server_app(scenario: Scenario, observer: Observer, open_folder: Callable[[], RunFolder]) -> ServerApp:
    """A ServerApp that runs `scenario` and tells `observer` of it; the folder is opened once the app is called."""
    app = ServerApp()

    @app.main()
    def main(grid: Grid, context: Context) -> None:
        run_rounds(grid, scenario, open_folder(), observer)

    return app


app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run the scenario that the run's configuration names, as `flwr run` asks for it."""
    run, observer = context.run_config, PlainProgress()
    scenario = scenario_of(run)
    request = RunRequest(scenario, out_folder(run), bool(run.get("resume")), bool(run.get("overwrite")))
    with owned(request.out, observer.notice):
        request.refuse()
        record = {**environment(), "kernels": scenario.engine.kernels, "runtime": "flower"}
        server_app(scenario, observer, lambda: request.open(record))(grid, context)
