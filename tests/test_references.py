"""Code of one's own by reference: `file.py:name` beside the scenario, `package.module:name`."""

import json
from pathlib import Path

import pytest

import fedge
from fedge.catalog.names import did_you_mean, is_reference
from fedge.catalog.program import Program
from fedge.errors import UserError
from fedge.references import resolve, resolve_callable
from fedge.scenario.file import read_scenario, scenario_toml
from fedge.training.macs import LayerMacs, MacTable
from fedge.training.pruning.criteria import CRITERIA, macs_per_sample

MINE = """
import torch
from nearby import NTH
from fedge.training.instance_filter import Filter

def backwards(evidence):
    return -torch.arange(evidence.coupling.units, dtype=torch.float32)

def weight(weight_CIJL, error_norm_C, generator):
    return weight_CIJL.abs().sum((1, 2, 3))

class Every(Filter):
    def __init__(self, keep, seed, image_size, nth=NTH):
        super().__init__(keep, seed)
        self.nth = nth
        assert len(image_size) == 2

    def select(self, batch):
        return torch.arange(0, len(batch.y_B), self.nth), None
"""
OWN = """
[training.pruning]
level = 0.3
criterion = "mine.py:backwards"
[training.instance_filter]
kind = "mine.py:Every"
args = { nth = 4 }
[training.error_maps]
keep = 0.5
score = "mine.py:weight"
"""


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A scenario whose criterion, filter and score are a file's beside it, which imports another one."""
    (tmp_path / "mine.py").write_text(MINE)
    (tmp_path / "nearby.py").write_text("NTH = 2\n")
    text = (
        'name = "own"\nrounds = 2\n[data]\ndataset = "digits"\nfactory_fraction = 0.1\n[model]\nname = "lenet"\n'
        '[model.factory]\nepochs = 0\n[[fleet]]\ndevice = "jetson-nano"\ncount = 30\n'
        '[selection]\nclients_per_round = 1\n[engine]\nkind = "inline"\n'
    )
    (tmp_path / "own.toml").write_text(text + OWN)
    return tmp_path / "own.toml"


@pytest.mark.parametrize(
    ("name", "is_one"), [("a.py:b", 1), ("a.b:C", 1), ("l1", 0), (":b", 0), ("a:", 0), ("a:b c", 0)]
)
def test_references_are_told_from_words(name: str, is_one: bool) -> None:
    """Breaks if a typo passes as a reference, or a reference is refused as an unknown word."""
    assert is_reference(name) == is_one


def test_methods_of_ones_own_run_and_are_reported_as_such(own: Path, tmp_path: Path, monkeypatch) -> None:
    """Breaks if a reference is resolved in the shell's folder, if fedge's own method runs in its place, if `args` are
    lost, or if the run folder does not keep the text that ran."""
    monkeypatch.setenv("FEDGE_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir("/")
    result = fedge.run(str(own), tmp_path / "out")
    last = result.reports()[-1]
    assert (last["criterion"], last["instance_filter"], last["error_maps"]) == ("own", "own", "own")
    assert last["samples_kept"] == -(-last["samples_seen"] // 4)  # one mini-batch
    kept = {path.name: path.read_text() for path in (tmp_path / "out" / "programs").iterdir()}
    assert kept["mine.py"] == MINE and kept["nearby.py"] == "NTH = 2\n"


def test_the_texts_travel_with_the_scenario_and_stay_out_of_its_toml(own: Path, tmp_path: Path) -> None:
    """Breaks if a device without the file could not run, or if scenario.toml cannot be read again."""
    scenario = read_scenario(own)
    assert list(scenario.programs) == [str(tmp_path / "mine.py")]
    sent = json.loads(scenario.model_dump_json())["programs"]
    assert sent[str(tmp_path / "mine.py")]["files"] == {"nearby.py": "NTH = 2\n"}
    (tmp_path / "again.toml").write_text(scenario_toml(scenario))
    assert "NTH" not in scenario_toml(scenario)
    assert read_scenario(tmp_path / "again.toml") == scenario


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ('training.pruning.criterion="mine.py:backward"', "did you mean 'backwards'"),
        ('training.pruning.criterion="tailor"', "did you mean 'taylor'"),
        ('training.instance_filter={kind="erly"}', "did you mean 'early'"),
        ('training.instance_filter={kind="random",args={nth=2}}', "args are for a filter of one's own"),
        ('training.error_maps.score="nowhere.to.be:found"', "does not load: ModuleNotFoundError"),
        ('training.error_maps.score="math:pi"', "a float; a function or class is wanted"),
        ('training.error_maps.score="gone.py:score"', "gone.py: cannot be read"),
        ('training.error_maps.score="broken.py:score"', "ZeroDivisionError on line 2"),
    ],
)
def test_a_wrong_name_ends_before_the_first_round(
    own: Path, tmp_path: Path, monkeypatch, change: str, said: str
) -> None:
    """Breaks if a slip in a reference costs a factory model's training, or is answered with a traceback."""
    monkeypatch.setenv("FEDGE_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "broken.py").write_text("\n1 / 0\n")
    with pytest.raises(UserError, match=said) as refusal:
        fedge.run(fedge.load_scenario(str(own), [change]), tmp_path / "out")
    assert "\n" not in str(refusal.value)
    assert not list(tmp_path.glob("cache/prepared/*"))


def test_programs_cannot_be_written_into_a_scenario(own: Path) -> None:
    """Breaks if a scenario's text could smuggle in code under another file's name."""
    own.write_text("programs = {}\n" + own.read_text())
    with pytest.raises(UserError, match="unknown key 'programs'"):
        read_scenario(own)


def test_a_file_runs_once_and_a_changed_one_anew() -> None:
    """Breaks if state in a module is lost between two uses, or an old text answers for a new one."""
    program = Program("mine", "class Thing: pass", {})
    first, second = (resolve("/x/mine.py:Thing", {"/x/mine.py": program}, key="k") for _ in range(2))
    changed = resolve("/x/mine.py:Thing", {"/x/mine.py": Program("mine", "Thing = 5", {})}, key="k")
    assert first is second and changed == 5
    with pytest.raises(UserError, match="k is"):
        resolve_callable("/x/mine.py:Thing", {"/x/mine.py": Program("mine", "Thing = 5", {})}, key="k")


def test_a_criterion_says_what_it_costs() -> None:
    """Breaks if a criterion that looks at nothing is charged, or one of a user's own cannot say its cost."""
    table = MacTable((LayerMacs(name="a", forward=7, error_propagation=5, weight_gradient=3),))
    assert [macs_per_sample(CRITERIA[name], table) for name in ("l1", "random", "activation", "taylor")] == [
        0,
        0,
        7,
        12,
    ]

    def mine(evidence):
        return None

    assert macs_per_sample(mine, table) == 12
    mine.macs = lambda table: 2 * table.forward
    assert macs_per_sample(mine, table) == 14


def test_refusals_do_not_list_hundreds_of_names() -> None:
    """Breaks if the nearest word drowns in all the others."""
    assert did_you_mean("w7", [f"word{i}" for i in range(99)]).endswith("and 75 more")
