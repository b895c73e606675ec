"""The run folder: what a killed, damaged or full disk leaves behind must be told apart and taken up rightly."""

import json

import pytest

from fedge.errors import RunError, UserError
from fedge.results.run_folder import CHECKPOINTS, LOGS, RunFolder, refuse_unusable

TOML = 'name = "t"\n'


def filled(folder, rounds: int) -> RunFolder:
    run = RunFolder.start(folder, TOML)
    for round in range(1, rounds + 1):
        commit(run, round)
    return run


def commit(run: RunFolder, round: int) -> None:
    rows = [{"round": round, "client": client} for client in range(3)]
    run.commit(round, reports=rows, egress=rows[:1], summary={"round": round})


def contents(folder) -> dict[str, str]:
    return {log: (folder / log).read_text() for log in LOGS}


def test_resume_goes_on_where_an_undisturbed_run_would_be(tmp_path) -> None:
    """Breaks if a resumed run loses, repeats or changes a line."""
    filled(tmp_path / "whole", 4)
    filled(tmp_path / "cut", 2)
    resumed = RunFolder.resume(tmp_path / "cut")
    assert resumed.round == 2
    commit(resumed, 3)
    commit(resumed, 4)
    assert contents(tmp_path / "cut") == contents(tmp_path / "whole")


@pytest.mark.parametrize("log", LOGS)
def test_half_a_round_behind_the_checkpoint_is_cut_off(tmp_path, log: str) -> None:
    """Breaks if lines of a round that was never committed count: clients would be counted twice."""
    filled(tmp_path, 2)
    good = contents(tmp_path)
    with open(tmp_path / log, "a") as file:
        file.write('{"round": 3, "client"')
    assert RunFolder.resume(tmp_path).round == 2
    assert contents(tmp_path) == good


@pytest.mark.parametrize("damage", ["", "{", '{"round": 2}', "cut", "changed"])
def test_a_damaged_checkpoint_falls_back_by_one(tmp_path, damage: str) -> None:
    """Breaks if a truncated or edited checkpoint is believed, or if the one before it is not used."""
    filled(tmp_path, 3)
    path = tmp_path / CHECKPOINTS[0]
    text = path.read_text()
    path.write_text(
        {"cut": text[:-9], "changed": text.replace('"round": 3', '"round": 9')}.get(damage, damage)
    )
    assert RunFolder.resume(tmp_path).round == 2


def test_a_changed_log_is_named_when_no_checkpoint_holds(tmp_path) -> None:
    """Breaks if a run goes on from reports that somebody edited."""
    filled(tmp_path, 3)
    log = tmp_path / "reports.jsonl"
    log.write_text(log.read_text().replace('"client": 0', '"client": 9'))
    with pytest.raises(RunError, match=r"reports\.jsonl was changed or cut"):
        RunFolder.resume(tmp_path)


def test_killed_before_the_first_round_begins_anew(tmp_path) -> None:
    """Breaks if a run that was killed before its first commit can never be resumed."""
    RunFolder.start(tmp_path, TOML)
    assert RunFolder.resume(tmp_path).round == 0


def test_start_replaces_a_run_and_the_devices_memory_of_it(tmp_path) -> None:
    """Breaks if a second run would be answered from what devices remember of the first."""
    filled(tmp_path, 2)
    (tmp_path / "devices" / "0").mkdir(parents=True)
    RunFolder.start(tmp_path, TOML)
    assert (tmp_path / "reports.jsonl").read_text() == ""
    assert not (tmp_path / "devices").exists()
    assert not any((tmp_path / name).exists() for name in CHECKPOINTS)


def test_folders_that_are_not_a_runs_are_refused_and_left_alone(tmp_path) -> None:
    """Breaks if fedge writes into, or deletes from, a folder that is somebody else's."""
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(UserError, match="holds no earlier run"):
        RunFolder.start(tmp_path, TOML)
    with pytest.raises(UserError, match="is a file"):
        refuse_unusable(tmp_path / "thesis.txt", resume=False)
    with pytest.raises(UserError, match="is a file"):
        refuse_unusable(tmp_path / "thesis.txt" / "below", resume=False)
    with pytest.raises(UserError, match="no run to resume"):
        refuse_unusable(tmp_path / "nothing", resume=True)
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_a_full_disk_is_one_line_and_keeps_the_last_round(tmp_path, monkeypatch) -> None:
    """Breaks if running out of space corrupts what was committed, or ends in a traceback."""
    run = filled(tmp_path, 2)

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(RunError, match="No space left on device; the results up to round 2 are whole"):
        commit(run, 3)
    monkeypatch.undo()
    assert RunFolder.resume(tmp_path).round == 2
    assert len((tmp_path / "rounds.jsonl").read_text().splitlines()) == 2


def test_nan_never_reaches_a_results_file(tmp_path) -> None:
    """Breaks if a results file is no JSON: NaN is not."""
    run = filled(tmp_path, 1)
    with pytest.raises(ValueError, match="not JSON compliant"):
        run.commit(2, reports=[{"x": float("nan")}], egress=[], summary={})
    json.loads((tmp_path / CHECKPOINTS[0]).read_text())
