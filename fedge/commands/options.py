"""What several commands take, with its help and its completion in a shell."""

from typing import Annotated

import typer
from click import Context
from typer.core import TyperCommand

from fedge.catalog.files import scenario_names, study_names


class PlainCommand(TyperCommand):
    """A command whose help is plain text: typer marks up its own `[required]` for rich, which is not in use here."""

    def get_help(self, ctx: Context) -> str:
        return super().get_help(ctx).replace("\\[", "[")


def scenarios_like(incomplete: str) -> list[str]:
    """The shipped scenarios that begin so."""
    return [name for name in scenario_names() if name.startswith(incomplete)]


def studies_like(incomplete: str) -> list[str]:
    """The shipped studies that begin so."""
    return [name for name in study_names() if name.startswith(incomplete)]


# Arguments are explained in their command's docstring: click 8.5 drops the help that typer 0.20 gives them.
ScenarioName = Annotated[str, typer.Argument(metavar="SCENARIO", hidden=True, autocompletion=scenarios_like)]
Changes = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change the scenario: --set training.pruning.level=0.5"),
]
Watch = Annotated[
    list[str] | None,
    typer.Option(
        "--watch",
        metavar="NAME",
        help="Tell a tracker too: tensorboard, mlflow, wandb, or FILE.py:CLASS, an Observer.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Machine-readable output.")]
