"""`fedge cache`: what is prepared, and that clearing takes nothing from under a run."""

import fcntl
import json
import os
import time
from pathlib import Path

import pytest

import fedge as api
from fedge.cache import entries, hold, let_go, lock_path
from fedge.console.observer import Observer
from fedge.errors import UserError
from fedge.prepare import prepare
from fedge.progress import listening

DAY_S = 86400.0


@pytest.fixture
def prepared(small, tmp_path: Path, monkeypatch) -> list[Path]:
    """Two prepared folders in a cache of their own; the second was used forty days ago."""
    monkeypatch.setenv("FEDGE_CACHE", str(tmp_path / "cache"))
    folders = [Path(prepare(small(f"seed={seed}")).folder) for seed in (1, 2)]
    past_s = time.time() - 40 * DAY_S
    os.utime(lock_path(folders[1]), (past_s, past_s))
    return folders


def test_the_list_says_what_whose_how_large_and_when(fedge, prepared) -> None:
    """Breaks if nobody can tell what of a full disk may go."""
    code, out, _ = fedge("cache", "list", "--json")
    rows = json.loads(out)
    assert code == 0
    assert [row["name"] for row in rows] == [folder.name for folder in prepared]  # most recently used first
    assert {row["scenario"] for row in rows} == {"quickstart"}
    assert rows[0]["unused_s"] < 3600 and rows[1]["unused_s"] == pytest.approx(40 * DAY_S, rel=1e-3)
    for row, folder in zip(rows, prepared, strict=True):
        assert row["size_bytes"] == sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    code, out, _ = fedge("cache", "list")
    assert code == 0 and "40 d ago" in out and "MB in" in out


def test_only_what_is_old_goes(fedge, prepared) -> None:
    """Breaks if --older-than takes what was used yesterday."""
    code, out, err = fedge("cache", "clear", "--older-than", "30d", "--yes")
    assert code == 0, err
    assert [folder.exists() for folder in prepared] == [True, False]
    assert "1 prepared folders removed" in out
    code, out, _ = fedge("cache", "clear", "--older-than", "30d", "--yes")
    assert (code, out) == (0, "nothing to clear\n")


def test_what_is_named_goes_and_is_prepared_again(fedge, prepared, small) -> None:
    """Breaks if a name clears another's folder, or if a cleared scenario cannot be run again."""
    partial = prepared[0].parent / f".{prepared[0].name}-abc123"
    partial.mkdir()  # a preparation that was killed
    code, _, err = fedge("cache", "clear", prepared[0].name, "--yes")
    assert code == 0, err
    assert [folder.exists() for folder in prepared] == [False, True]
    assert not partial.exists()
    assert prepare(small("seed=1")).folder == str(prepared[0])
    code, _, err = fedge("cache", "clear", "digits-lenet-0", "--yes")
    assert (code, len(err.splitlines())) == (2, 1)


def test_nobody_is_asked_where_nobody_is(fedge, prepared, monkeypatch) -> None:
    """Breaks if a script hangs at a question, or clears without --yes."""
    monkeypatch.setattr("sys.stdin.isatty", lambda: False, raising=False)
    code, _, err = fedge("cache", "clear")
    assert code == 2 and "--yes" in err
    assert all(folder.exists() for folder in prepared)


@pytest.mark.parametrize(("answer", "left"), [("y\n", 0), ("n\n", 2)])
def test_the_person_is_asked(fedge, prepared, monkeypatch, answer: str, left: int) -> None:
    """Breaks if a no is taken for a yes."""
    monkeypatch.setattr(
        "fedge.commands.cache.sys.stdin", type("Terminal", (), {"isatty": lambda self: True})()
    )
    monkeypatch.setattr("click.termui.visible_prompt_func", lambda text: answer.strip())
    fedge("cache", "clear")
    assert sum(folder.exists() for folder in prepared) == left


@pytest.mark.parametrize("text", ["30", "d", "-3d", "30 days", "3y"])
def test_an_age_is_a_number_and_a_unit(fedge, text: str) -> None:
    """Breaks if a slip clears everything."""
    code, _, err = fedge("cache", "clear", f"--older-than={text}", "--yes")
    assert (code, len(err.splitlines())) == (2, 1)
    assert "90m, 12h, 30d or 2w" in err


class Clearing(Observer):
    """Tries to clear the cache after the first report, as somebody in another shell might."""

    def __init__(self) -> None:
        self.refused: list[str] = []

    def report_arrived(self, row) -> None:
        from fedge.cache import clear

        if not self.refused:
            with pytest.raises(UserError) as caught:
                clear(entries())
            self.refused.append(str(caught.value))


@pytest.mark.long
@pytest.mark.parametrize("engine", ["inline", "ray"])
def test_a_run_keeps_what_it_uses(request, small, prepared, monkeypatch, tmp_path, engine: str) -> None:
    """Breaks if a run loses its data and its factory model between two rounds, or holds them when it is over."""
    changes = []
    if engine == "ray":
        theirs = request.getfixturevalue("cluster").run_task("os:getenv", {"key": "FEDGE_CACHE"})
        monkeypatch.setenv("FEDGE_CACHE", theirs)  # of Ray's workers, which have been there before this test
        changes = ["engine.kind=ray", "engine.hosts=1", "fleet=[{device='jetson-nano', count=2}]"]
    clearing = Clearing()
    api.run(small(*changes), tmp_path / "run", observer=clearing)
    assert "is in use by a run" in clearing.refused[0]
    deadline_s = time.monotonic() + 20
    while any(entry.in_use for entry in entries()) and time.monotonic() < deadline_s:
        time.sleep(0.1)  # Ray's hosts are being ended
    assert not any(entry.in_use for entry in entries())


def test_a_device_holds_its_folder_and_lets_go(prepared) -> None:
    """Breaks if a lock outlives its run in a notebook."""
    hold(prepared[0])
    hold(prepared[0])
    assert [entry.in_use for entry in entries()] == [True, False]
    let_go()
    assert not any(entry.in_use for entry in entries())


def test_who_waits_for_another_preparation_says_so(prepared, small) -> None:
    """Breaks if two runs of one scenario look as if the second hung."""
    heard = []
    with open(lock_path(prepared[0])) as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)

        def hear(word) -> None:
            heard.append(word.phase)
            if word.phase == "waiting":
                fcntl.flock(lock, fcntl.LOCK_UN)

        with listening(hear):
            prepare(small("seed=1"))
    assert heard[-2:] == ["waiting", "cached"]
