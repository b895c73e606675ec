"""The example notebook is executed as a person would, in a kernel of its own."""

import os
import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

from tests.docs.snippets import ROOT

NOTEBOOK = ROOT / "docs" / "guide" / "notebook.ipynb"


def outputs(cell: Any, kind: str) -> str:
    """What a cell shows of one kind: text/html, text/plain, or stdout."""
    shown = [
        output.get("text", "") if kind == "stdout" else output.get("data", {}).get(kind, "")
        for output in cell.outputs
    ]
    return "".join(shown)


@pytest.mark.long
@pytest.mark.filterwarnings("ignore")  # of the kernel's client: sockets and event loops
def test_the_notebook_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks if the first thing that a notebook's user tries ends in an error, or shows nothing."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), *sys.path]))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    NotebookClient(notebook, timeout=200, resources={"metadata": {"path": str(tmp_path)}}).execute()
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    table, frame, printed, both = code[1], code[2], code[3], code[4]
    assert "told the client&#x27;s classes" in outputs(table, "text/html")
    assert "jetson-nano" in outputs(frame, "text/html")
    assert "gain over the factory model" in outputs(printed, "stdout")
    assert "MACs saved" in outputs(both, "text/html")
    program = (tmp_path / "runs" / "notebook-mine" / "programs" / "client.py").read_text()
    assert "SMOOTHING = 0.1" in program and "from torch.nn import functional" in program


def test_no_output_is_stored() -> None:
    """Breaks if figures that nobody makes again are shown as if they were."""
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    assert not [
        cell for cell in notebook.cells if cell.cell_type == "code" and (cell.outputs or cell.execution_count)
    ]
