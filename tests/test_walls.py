"""The import walls that import-linter cannot express. The others are in pyproject.toml."""

import ast
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

import fedge
from fedge.catalog import names
from fedge.catalog.datasets import DATASETS
from fedge.catalog.named import Named

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


def private_names_of_torch(path: Path) -> set[str]:
    """Modules and names below torch that begin with an underscore, those of torch's own modules among them, and what
    its layers, tensors and operators keep to themselves."""
    found: set[str] = set()
    if not any(name.split(".")[0] == "torch" for name in imported(path)):
        return found
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "torch":
            names = [*node.module.split("."), *(alias.name for alias in node.names)]
            found |= {f"{node.module}: {name}" for name in names if name.startswith("_")}
        elif isinstance(node, ast.Import):
            found |= {
                alias.name for alias in node.names if alias.name.startswith("torch.") and "._" in alias.name
            }
        elif isinstance(node, ast.Attribute) and node.attr.startswith("_") and not node.attr.startswith("__"):
            root = ast.unparse(node).split(".")
            if root[0] in ("torch", "nn") and root[:3] != ["torch", "ops", "aten"]:
                found.add(ast.unparse(node))
            elif node.attr in KEPT_BY_TORCH:
                found.add(f".{node.attr}")
    return found


KEPT_BY_TORCH = {
    "_parameters", "_buffers", "_modules", "_forward_hooks", "_forward_pre_hooks", "_backward_hooks",
    "_backward_pre_hooks", "_reversed_padding_repeated_twice", "_cdata", "_overloadpacket", "_backward_cls",
    "_sequence_nr", "_flat_weights", "_conv_forward",
}  # fmt: skip


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_only_one_module_touches_torchs_private_names(path: Path) -> None:
    """Breaks if a torch update can break more than training/torch_private.py."""
    if path.name == "torch_private.py":
        return
    assert not private_names_of_torch(path)


def test_private_names_of_torch_are_found(tmp_path: Path) -> None:
    """Breaks if the test above finds nothing, whatever stands there."""
    for line in (
        "import torch\ntorch._C.f()",
        "import torch\nx = layer._parameters",
        "from torch.nn.modules.conv import _ConvNd",
        "from torch._subclasses import FakeTensor",
        "from torch.utils import _pytree",
        "import torch._dynamo",
    ):
        (tmp_path / "a.py").write_text(line)
        assert private_names_of_torch(tmp_path / "a.py"), line


def test_the_coordinators_side_loads_without_torch_and_ray() -> None:
    """Breaks if importing what coordinates brings torch along, by whatever detour."""
    modules = "fedge.launch, fedge.cli, fedge.coordinator.app"
    code = f"import sys, {modules}; print('torch' in sys.modules, 'ray' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


@pytest.mark.parametrize(
    "words",
    [
        names.MODELS,
        names.CRITERIA,
        names.FILTERS,
        names.SCORES,
        {f.name: f.reader for f in DATASETS.values()},
    ],
)
def test_every_word_stands_for_code(words: Mapping[str, str | None]) -> None:
    """Breaks if a scenario can name what nothing computes, or what cannot be called."""
    assert all(callable(code) for word, code in Named(words).items() if words[word] is not None)
