"""What is told of work that takes a while, and that nothing but four numbers of a closed form passes."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import fedge
from fedge.console.observer import Observer
from fedge.engine.cluster import RayCluster
from fedge.engine.mailbox import Mailbox
from fedge.engine.tasks import run_task
from fedge.launch import hearing
from fedge.prepare import prepare, prepare_json
from fedge.progress import EPOCH, MOST, PHASES, Progress, advance, listening, tell

words = st.builds(
    Progress,
    phase=st.sampled_from(PHASES),
    done=st.integers(0, MOST),
    of=st.integers(0, MOST),
    accuracy=st.none() | st.integers(0, 1000).map(lambda thousandths: thousandths / 1000),
)


class Seen(Observer):
    def __init__(self) -> None:
        self.words: list[Progress] = []

    def progress(self, progress: Progress) -> None:
        self.words.append(progress)


@given(words)
def test_a_word_survives_the_way(word: Progress) -> None:
    """Breaks if a phase, a count or an accuracy arrives as another."""
    assert Progress.from_numbers(list(word.numbers())) == word


NOT_PROGRESS: list[Any] = [
    "private-193",
    b"private-193",
    None,
    [1, 2, 3],
    [1, 2, 3, 4, 5],
    [1, 0, 0, "81.2%"],
    [1, 0, 0, 0.812],
    [True, 0, 0, 0],
    [len(PHASES), 0, 0, 0],
    [-1, 0, 0, 0],
    [0, MOST + 1, 0, 0],
    [0, 0, -1, 0],
    [0, 0, 0, 1001],
    [0, 0, 0, -2],
    [0, 0, 0, math.nan],
    {0: 1, 1: 2, 2: 3, 3: 4},
]


@pytest.mark.parametrize("what", NOT_PROGRESS, ids=repr)
def test_nothing_else_passes(what: Any) -> None:
    """Breaks if what prepares could tell the coordinator a text, an array, or a number of any size."""
    seen = Seen()
    hearing(seen)(what)
    assert seen.words == []
    with pytest.raises(ValueError, match="progress is"):
        Progress.from_numbers(what)


def test_a_listener_hears_every_phase_and_not_every_step() -> None:
    """Breaks if a phase goes by untold, or if a loop over a million rows sends a million words."""
    heard: list[Progress] = []
    tell("reading")  # nobody listens
    with listening(heard.append):
        tell("reading")
        for row in range(100_000):
            advance(row, 100_000)
        tell("factory", EPOCH, 2 * EPOCH, 0.5)
        advance(2 * EPOCH, 2 * EPOCH)
    tell("writing")
    assert [word.phase for word in heard if word.phase != "reading"] == ["factory", "factory"]
    assert heard[-1] == Progress("factory", 2 * EPOCH, 2 * EPOCH, 0.5)
    assert len(heard) < 100


def test_preparation_tells_of_each_of_its_steps_and_of_the_cache(small, monkeypatch, tmp_path) -> None:
    """Breaks if minutes go by without a word, or if a person waits for a training that is not done."""
    monkeypatch.setenv("FEDGE_CACHE", str(tmp_path))
    heard: list[Progress] = []
    with listening(heard.append):
        prepare(small("model.factory.epochs=3"))
    phases = list(dict.fromkeys(word.phase for word in heard))
    assert phases == ["reading", "checking", "network", "dividing", "writing", "factory", "prepared"]
    factory = [word for word in heard if word.phase == "factory"]
    assert factory[-1].done == factory[-1].of == 3 * EPOCH
    assert 0 < heard[-1].accuracy <= 1
    heard.clear()
    with listening(heard.append):
        prepare(small("model.factory.epochs=3"))
    assert heard[-1].phase == "cached" and "factory" not in [word.phase for word in heard]


def test_watching_changes_no_number(small, monkeypatch, tmp_path) -> None:
    """Breaks if a run that is watched ships another factory model than one that is not."""
    weights = []
    for name, tell_numbers in (("watched", lambda numbers: None), ("alone", None)):
        monkeypatch.setenv("FEDGE_CACHE", str(tmp_path / name))
        prepare_json(small().model_dump_json(exclude_none=True), tell_numbers)
        (file,) = (tmp_path / name / "prepared").glob("*/factory.safetensors")
        weights.append(file.read_bytes())
    assert weights[0] == weights[1]


def told(tell: Any = None) -> int:
    """A task, for the tests below."""
    tell([1, 2, 3, -1])
    return 5


def test_a_task_in_this_process_tells() -> None:
    """Breaks if an inline run is silent."""
    heard: list[Any] = []
    assert run_task("tests.test_progress:told", {}, heard.append) == 5
    assert heard == [[1, 2, 3, -1]]


@pytest.mark.long
def test_numbers_of_a_ray_worker_arrive_while_it_works(cluster: RayCluster, small) -> None:
    """Breaks if the process that coordinates hears of preparation only when it is over, or keeps what it heard."""
    heard: list[Any] = []
    scenario = small("model.factory.epochs=40", "seed=93")
    arguments = {"scenario_json": scenario.model_dump_json(exclude_none=True)}
    cluster.run_tasks("fedge.prepare:prepare_json", arguments, hear=heard.append)
    words = [Progress.from_numbers(numbers) for numbers in heard]
    training = [word for word in words if word.phase == "factory"]
    assert training and training[0].done < training[0].of == 40 * EPOCH
    assert words[-1].phase == "prepared"


def test_a_mailbox_holds_numbers_and_nothing_else(cluster: RayCluster) -> None:
    """Breaks if a text fits between two processes, or if a task fails because it could not be heard."""
    box = Mailbox()
    assert box.get() is None
    box.put([1, 2, 3])
    box.put(["private-193"])  # type: ignore[list-item]
    box.put([2**80])
    assert Mailbox(box.name).get() == (1, 2, 3)
    box.remove()
    assert box.get() is None


@pytest.mark.long
@pytest.mark.parametrize("engine", ["inline", "ray"])
def test_an_observer_hears_all_of_a_run(request, small, monkeypatch, tmp_path, engine: str) -> None:
    """Breaks if one engine is silent before the first round, or if hosts that start look like a hang."""
    changes = []
    if engine == "ray":
        request.getfixturevalue("cluster")
        changes = ["engine.kind=ray", "engine.hosts=1"]
    seen = Seen()
    scenario = small(
        *changes,
        f"seed={len(engine)}94",
        "model.factory.epochs=20",
        shape=("fleet=[{device='phone-mid', count=2}]",),
    )
    fedge.run(scenario, tmp_path / "run", observer=seen)
    phases = list(dict.fromkeys(word.phase for word in seen.words))
    assert (phases[0] == "ray") == (engine == "ray") == (phases[-1] == "hosts")
    assert {"factory", "prepared" if engine == "inline" else "factory"} <= set(phases)
