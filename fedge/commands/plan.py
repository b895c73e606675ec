"""`fedge plan`."""

import json
import sys

from rich.console import Console

from fedge.commands.options import AsJson, Changes, ScenarioName


def plan_command(scenario: ScenarioName, changes: Changes = None, as_json: AsJson = False) -> None:
    """Say what a scenario will cost before anything runs.

    Per device class. SCENARIO: a name in scenarios/, or a TOML file.
    """
    from fedge.console.progress import watched
    from fedge.console.table import plan_table
    from fedge.privacy.noise.forecast import noise_told
    from fedge.scenario.load import left_out, load_scenario

    loaded = load_scenario(scenario, changes or [])
    with watched():
        from fedge.forecast import plan_scenario  # brings torch, which takes its time

        plans = plan_scenario(loaded)
    for line in (*left_out(loaded), *noise_told(loaded)):
        print(line, file=sys.stderr)
    if as_json:
        print(json.dumps(plans, indent=2))
    else:
        Console().print(plan_table(plans))
