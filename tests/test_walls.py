"""The import walls that import-linter cannot express. The others are in pyproject.toml."""

import ast
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest

import fedge
from fedge.scenario.schema import EarlyFilter, ModelName, OtherFilter, Pruning

PUBLIC = ("flwr.app", "flwr.clientapp", "flwr.serverapp")
ROOT = Path(fedge.__file__).parent
SOURCES = sorted([*ROOT.rglob("*.py"), *(ROOT.parent / "clients").glob("*.py")])


def imported(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
    return names


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_only_one_module_touches_flowers_private_names(path: Path) -> None:
    """Breaks if a Flower update can break more than engine/flower_private.py."""
    if path.name == "flower_private.py":
        return
    private = {name for name in imported(path) if name.startswith("flwr.") and name not in PUBLIC}
    assert not private


def test_the_coordinators_side_loads_without_torch_and_ray() -> None:
    """Breaks if importing what coordinates brings torch along, by whatever detour."""
    modules = "fedge.launch, fedge.cli, fedge.coordinator.app"
    code = f"import sys, {modules}; print('torch' in sys.modules, 'ray' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


def test_scenarios_know_every_model_and_no_other() -> None:
    """Breaks if a model is added that no scenario can name, or a name stays without a model."""
    from fedge.models import MODELS

    assert set(get_args(ModelName)) == set(MODELS)


def test_scenarios_know_every_filter_and_criterion() -> None:
    """Breaks if a method is added that no scenario can name, or a name stays without a method."""
    from fedge.training.instance_filter.filters import FILTERS
    from fedge.training.pruning.criteria import CRITERIA

    filters = {*_words(EarlyFilter, "kind"), *_words(OtherFilter, "kind")}
    assert filters == set(FILTERS)
    assert _words(Pruning, "criterion") == set(CRITERIA)


def _words(section: type, key: str) -> set[str]:
    return set(get_args(section.model_fields[key].annotation))
