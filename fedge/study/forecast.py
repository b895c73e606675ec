"""`fedge study --dry-run`: what would run, and what it would cost the devices."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from rich.table import Table

from fedge.fleet.newcomers import taking_part
from fedge.forecast import plan_scenario
from fedge.scenario.schema import Scenario
from fedge.study.cells import cells_of
from fedge.study.study import Study


def forecast_table(study: Study, path: Path, out: Path, settings: Sequence[str]) -> Table:
    """Per arm: its cells, how many of them are done, and the forecast of one cell's multiply-accumulates, energy of the
    whole fleet and virtual time: of a round after pruning, times its rounds. What a yardstick costs is not forecast."""
    table = Table(title=f"{path.stem}: what would run")
    for heading in ("arm", "cells", "done", "GMAC a cell", "J a cell", "virtual s a cell"):
        table.add_column(heading, justify="left" if heading == "arm" else "right")
    cells = cells_of(study, path.absolute().parent, settings)
    for arm in dict.fromkeys(cell.arm for cell in cells):
        own = [cell for cell in cells if cell.arm == arm]
        done = sum(cell.is_done(out) for cell in own)
        costs = ("-", "-", "-") if own[0].yardstick else _costs(own[0].scenario)
        table.add_row(arm, str(len(own)), str(done), *costs)
    table.add_row("all", str(len(cells)), str(sum(cell.is_done(out) for cell in cells)), "", "", "")
    return table


def _costs(scenario: Scenario) -> tuple[str, str, str]:
    """GMAC, J and virtual seconds of a whole run; unseen clients' one round left out, as in study.json."""
    plans = plan_scenario(scenario)
    seen = Counter(scenario.device_class_of(client).label for client in taking_part(scenario, 1))
    macs, energy_j = (
        scenario.rounds * sum(plan[key] * seen[plan["class"]] for plan in plans)
        for key in ("macs_done", "energy_j")
    )
    time_s = scenario.rounds * max(plan["time_s"] for plan in plans)
    return f"{macs / 1e9:,.3g}", f"{energy_j:,.3g}", f"{time_s:,.3g}"
