"""`fedge run --watch`: what trackers are told, and that none of them can cost a run."""

import json
import subprocess
import sys
import types
from pathlib import Path

import pytest

import fedge
from fedge.watch.series import round_series, run_series
from fedge.watch.tracker import Place
from fedge.watch.watchers import study_watched_by, watched_by, watcher

MINE = """
import fedge

def say(*words):
    with open(__file__ + ".said", "a") as file:
        print(*words, file=file)

class Mine(fedge.Observer):
    def run_started(self, scenario):
        say("started", scenario.name, scenario.rounds)
    def round_finished(self, figures):
        say("round", figures["round"], figures["accuracy"]["mean"])
    def run_finished(self, summary):
        say("finished", summary["clients"])

class Fails(fedge.Observer):
    def round_finished(self, figures):
        raise ValueError("no disk")

class Ends(fedge.Observer):
    def round_finished(self, figures):
        raise fedge.errors.RunError("accuracy fell: stop here")

class Needs(fedge.Observer):
    def __init__(self, key):
        pass

class Nothing:
    pass
"""
CHANGES = (
    "rounds=2",
    "training.epochs=1",
    "model.factory.epochs=1",
    *(f"fleet.{i}.count=1" for i in range(3)),
)
RUN = ("run", "quickstart", "--engine", "inline", *(part for key in CHANGES for part in ("--set", key)))


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    path = tmp_path / "mine.py"
    path.write_text(MINE.replace("__file__", repr(str(path))))
    return path


def test_a_watcher_of_ones_own_hears_the_run_and_one_that_fails_is_dropped(
    fedge, mine: Path, tmp_path: Path
) -> None:
    """Breaks if an Observer in a file is not told when a run starts, how each round ended, and that it is over;
    or if another's trouble costs the run, or is told in every round."""
    out = tmp_path / "out"
    code, _, err = fedge(*RUN, "--out", str(out), "--watch", f"{mine}:Mine", "--watch", f"{mine}:Nothing")
    assert code == 2 and "Nothing is no fedge.Observer" in err and not out.exists()
    code, _, err = fedge(*RUN, "--out", str(out), "--watch", f"{mine}:Fails", "--watch", f"{mine}:Mine")
    assert code == 0, err
    (named,) = [line for line in err.splitlines() if "--watch" in line]
    assert "Fails failed and is told no more (ValueError: no disk)" in named
    rounds = [json.loads(line) for line in (out / "rounds.jsonl").read_text().splitlines()]
    said = (tmp_path / "mine.py.said").read_text().splitlines()
    told = [f"round {r['round']} {r['accuracy']['mean']}" for r in rounds]
    assert len(rounds) == 2 and said == ["started quickstart 2", *told, "finished 3"]


def test_a_watcher_may_end_the_run(fedge, mine: Path, tmp_path: Path) -> None:
    """Breaks if nobody can end a run from a watcher."""
    code, _, err = fedge(*RUN, "--out", str(tmp_path / "ends"), "--watch", f"{mine}:Ends")
    assert (code, err.splitlines()[-1]) == (3, "fedge: accuracy fell: stop here")


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("tensorbord", "did you mean 'tensorboard'"),
        ("{mine}:Mein", "has no 'Mein'"),
        ("{mine}:Needs", "cannot be made without arguments"),
        ("nowhere.py:Mine", "no such file"),
    ],
)
def test_a_wrong_watcher_is_one_line(fedge, mine: Path, tmp_path: Path, name: str, says: str) -> None:
    """Breaks if a mistake in --watch ends in a traceback, or only after minutes of preparation."""
    code, out, err = fedge(*RUN, "--out", str(tmp_path / "o"), "--watch", name.format(mine=mine))
    assert (code, out, len(err.splitlines())) == (2, "", 1) and says in err
    assert not (tmp_path / "o").exists()


def test_a_tracker_that_is_not_installed_is_one_line(fedge, tmp_path: Path, monkeypatch) -> None:
    """Breaks if a missing package ends in a traceback or does not say what to install."""
    monkeypatch.setitem(sys.modules, "wandb", None)
    monkeypatch.delitem(sys.modules, "fedge.watch.wandb", raising=False)
    code, _, err = fedge(*RUN, "--out", str(tmp_path / "o"), "--watch", "wandb")
    assert code == 2 and err.rstrip().endswith("pip install wandb") and len(err.splitlines()) == 1


def test_series_are_the_results_figures(finished) -> None:
    """Breaks if a tracker is told another figure than the results hold, or a figure that is missing as 0."""
    result = finished()
    last = json.loads((result.out / "rounds.jsonl").read_text().splitlines()[-1])
    series = round_series(last | {"failures": {"late": 2}, "parameters_left": None})
    assert series["fleet/accuracy_mean"] == last["accuracy"]["mean"]
    assert series["cost/macs_saved"] == last["saved"] and series["faults/late"] == 2
    assert "cost/parameters_left" not in series
    assert run_series(result.summary)["egress/bytes"] == result.summary["egress"]["bytes"]


def run(small, folder: Path, *names: str, **more) -> fedge.launch.RunResult:
    with watched_by(names, folder, fedge.Observer()) as observer:
        return fedge.run(small(), folder, observer=observer, **more)


def test_tensorboard_holds_every_round(small, tmp_path: Path) -> None:
    """Breaks if the event files cannot be read back, miss a round, or need torch to be written."""
    pytest.importorskip("tensorboardX")
    from tensorboardX.proto.event_pb2 import Event
    from tensorboardX.record_writer import crc32c  # noqa: F401  # the reader below skips its checksums

    result = run(small, tmp_path / "out", "tensorboard")
    found: dict[tuple[str, int], float] = {}
    for path in (tmp_path / "out" / "tensorboard").iterdir():
        data, at = path.read_bytes(), 0
        while at < len(data):
            length = int.from_bytes(data[at : at + 8], "little")
            event = Event.FromString(data[at + 12 : at + 12 + length])
            at += 16 + length
            found |= {(value.tag, event.step): value.simple_value for value in event.summary.value}
    for line in (result.out / "rounds.jsonl").read_text().splitlines():
        figures = json.loads(line)
        mean = found["fleet/accuracy_mean", figures["round"]]
        assert mean == pytest.approx(figures["accuracy"]["mean"], rel=1e-6)
        assert ("clients/accuracy", figures["round"]) in found
    assert found["egress/bytes", 2] == result.summary["egress"]["bytes"]
    code = "import sys, fedge.watch.tensorboard; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@pytest.mark.filterwarnings("ignore")
def test_mlflow_holds_parameters_rounds_and_the_end(small, tmp_path: Path, monkeypatch) -> None:
    """Breaks if MLflow lacks a round, a setting, or does not learn that the run is over."""
    pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "store").as_uri())
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.chdir(tmp_path)
    from mlflow.tracking import MlflowClient

    result = run(small, tmp_path / "out", "mlflow")
    client = MlflowClient()
    experiment = client.get_experiment_by_name("fedge")
    (held,) = client.search_runs([experiment.experiment_id])
    history = client.get_metric_history(held.info.run_id, "fleet/accuracy_mean")
    rounds = [json.loads(line) for line in (result.out / "rounds.jsonl").read_text().splitlines()]
    assert [(m.step, m.value) for m in history] == [(r["round"], r["accuracy"]["mean"]) for r in rounds]
    assert held.data.params["training.pruning.level"] == "0.5"
    assert (
        held.info.status == "FINISHED"
        and held.data.metrics["run/gain_mean"] == result.summary["gain"]["mean"]
    )


STUDY = """
scenario = "quickstart"
seeds = [1]
[arms.all]
[arms."a v1"]
yardstick = "fedavg"
"""


@pytest.mark.long
def test_a_watcher_hears_every_cell_of_a_study(fedge, mine: Path, tmp_path: Path) -> None:
    """Breaks if a study's cells go unwatched, a yardstick's among them, or a wrong name is found after hours."""
    (tmp_path / "s.toml").write_text(STUDY)
    changes = [part for key in CHANGES for part in ("--set", key)]
    study = (
        "study",
        str(tmp_path / "s.toml"),
        "--engine",
        "inline",
        *changes,
        "--out",
        str(tmp_path / "out"),
    )
    code, out, err = fedge(*study, "--watch", "tensorbord")
    assert (
        (code, out) == (2, "")
        and "did you mean 'tensorboard'" in err
        and not (tmp_path / "out/cells").exists()
    )
    code, _, err = fedge(*study, "--watch", f"{mine}:Mine")
    assert code == 0, err
    said = (tmp_path / "mine.py.said").read_text().splitlines()
    assert [line.split()[0] for line in said] == ["started", "round", "round", "finished"] * 2


class Group:
    """Stands for wandb: keeps what a run was begun with."""

    def __init__(self) -> None:
        self.begun: list[dict] = []

    def init(self, **how: object) -> "Group":
        self.begun.append(how)
        return self


def test_a_studys_cells_are_a_group_of_its_name(small, tmp_path: Path, monkeypatch) -> None:
    """Breaks if Weights & Biases strews the cells of a study among all other runs."""
    wandb = Group()
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    monkeypatch.delitem(sys.modules, "fedge.watch.wandb", raising=False)
    for place in (Place("all, world 7, seed 1", "what-pays"), Place()):
        watcher("wandb", tmp_path, place).run_started(small())
    monkeypatch.delitem(sys.modules, "fedge.watch.wandb")
    assert [(how["name"], how["group"]) for how in wandb.begun] == [
        ("all, world 7, seed 1", "what-pays"),
        ("quickstart", None),
    ]


@pytest.mark.filterwarnings("ignore")
def test_mlflow_holds_a_study_as_the_parent_of_its_cells(small, tmp_path: Path, monkeypatch) -> None:
    """Breaks if a cell is nobody's child, or a study that is taken up again begins a second parent."""
    pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "store").as_uri())
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.chdir(tmp_path)
    from mlflow.tracking import MlflowClient

    parents = []
    for summary in (None, {"arms": {"all level=0.5": {"accuracy": {"mean": 0.75}}}}):
        with study_watched_by(["mlflow"], "pays", tmp_path / "pays") as group:
            parents.append(group.parent)
            group.summary = summary
        held = MlflowClient().get_run(group.parent)
        assert held.info.status == ("FINISHED" if summary else "FAILED")
    assert parents[0] == parents[1] and held.data.metrics == {"all level:0.5/accuracy_mean": 0.75}
    cell = watcher("mlflow", tmp_path / "cell", Place("all, seed 1", "pays", group.parent))
    cell.run_started(small())
    cell.close(finished=True)
    runs = MlflowClient().search_runs([held.info.experiment_id])
    (child,) = (run for run in runs if run.info.run_id != group.parent)
    assert (child.info.run_name, child.data.tags["mlflow.parentRunId"]) == ("all, seed 1", group.parent)


def test_a_tracker_without_its_service_does_not_cost_a_study(tmp_path: Path, monkeypatch, capsys) -> None:
    """Breaks if a study of hours ends because MLflow's server is away."""

    class Away(types.ModuleType):
        class MLflow:
            def __init__(self, folder: Path, place: Place) -> None:
                pass

        @staticmethod
        def MLflowStudy(name: str, folder: Path) -> None:
            raise ConnectionError("nobody there")

    monkeypatch.setitem(sys.modules, "fedge.watch.mlflow", Away("fedge.watch.mlflow"))
    with study_watched_by(["mlflow"], "pays", tmp_path) as group:
        assert group.parent == ""
    assert (
        "--watch mlflow failed (ConnectionError: nobody there); the study goes on" in capsys.readouterr().err
    )
