"""`fedge try`: one client, one round, everything shown, nothing left."""

import json
from pathlib import Path

import pytest

from fedge.catalog.files import client_path

SHORT = ["--set", "training.epochs=1", "--set", "model.factory.epochs=1"]


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Write the edge client with other lines in the place of its pruning; its path."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TMPDIR", str(tmp_path))

    def write(lines: str) -> str:
        edge = client_path("edge").read_text()
        (tmp_path / "mine.py").write_text(
            edge.replace("    if plan.prune and not device.pruned:", lines + "\n    if plan.prune:")
        )
        return "client=mine.py"

    return write


def test_the_report_is_a_table_and_nothing_is_left(fedge, program, tmp_path: Path) -> None:
    """Breaks if somebody who tries a program cannot see what it cost, or finds folders lying about."""
    code, out, err = fedge(
        "try", "quickstart", *SHORT, "--client", "3", "--set", program("    print('I am', device.client)")
    )
    assert code == 0, err
    for line in (
        "I am 3",
        "client 3 on jetson-nano, round 1",
        "MACs",
        "memory needed",
        "virtual time",
        "accuracy after",
    ):
        assert line in out
    assert [path.name for path in tmp_path.iterdir()] == ["mine.py"]


def test_it_is_the_round_that_a_run_would_have(fedge, finished, tmp_path: Path) -> None:
    """Breaks if a trial's figures are not those of the run that follows."""
    changes = [part for index in range(3) for part in ("--set", f"fleet.{index}.count=2")]
    code, out, err = fedge(
        "try", "quickstart", *SHORT, *changes, "--set", "rounds=2", "--client", "4", "--json"
    )
    assert code == 0, err
    (row,) = [row for row in finished().reports() if (row["round"], row["client"]) == (1, 4)]
    tried = json.loads(out)
    assert {key: value for key, value in tried.items() if key != "wall_s"} == {
        key: value for key, value in row.items() if key != "wall_s"
    }


def test_the_second_round_prunes_and_out_is_kept(fedge, tmp_path: Path) -> None:
    """Breaks if a criterion cannot be tried because the first round never prunes, or if --out keeps nothing."""
    out_folder = tmp_path / "kept"
    code, out, err = fedge("try", "quickstart", *SHORT, "--round", "2", "--out", str(out_folder))
    assert code == 0, err
    row = json.loads((out_folder / "report.json").read_text())
    assert row["parameters"] < 0.55 * row["parameters_dense"] and "retrain" in out
    assert any((out_folder / "devices" / "0").iterdir())
    code, _, err = fedge("try", "quickstart", *SHORT, "--out", str(out_folder))
    assert code == 2 and "not an empty folder" in err


def test_a_program_that_raises_shows_its_whole_traceback(fedge, program) -> None:
    """Breaks if a person must look for errors.log, or sees a traceback without the program's own lines."""
    code, _, err = fedge("try", "quickstart", *SHORT, "--set", program("    raise ValueError('my mistake')"))
    assert code == 3
    assert "raise ValueError('my mistake')" in err and "in improve" in err
    assert err.splitlines()[-1] == "fedge: client 0 has no report of round 1: client_raised"


def test_what_does_not_load_shows_where(fedge, program, tmp_path: Path) -> None:
    """Breaks if the traceback of a network or a program that does not load is swallowed."""
    program("")
    (tmp_path / "mine.py").write_text("import torch\n\nbroken = torch.nosuch\n")
    code, _, err = fedge("try", "quickstart", *SHORT, "--set", "client=mine.py")
    assert code == 2
    assert "broken = torch.nosuch" in err and err.splitlines()[-1].startswith("fedge: client program 'mine'")
    (tmp_path / "net.py").write_text("def build(num_classes, in_channels, image_size):\n    return 1 / 0\n")
    code, _, err = fedge("try", "quickstart", *SHORT, "--set", "model={program='net.py'}")
    assert code == 2
    assert "in build" in err and "ZeroDivisionError" in err.splitlines()[-1]


@pytest.mark.parametrize(
    ("options", "words"), [(["--client", "12"], "clients 0 to 11"), (["--round", "7"], "1 to 6")]
)
def test_who_is_not_there_is_one_line(fedge, options: list[str], words: str) -> None:
    """Breaks if a client that there is not ends in an IndexError, or after minutes of preparation."""
    code, _, err = fedge("try", "quickstart", *options)
    assert (code, len(err.splitlines())) == (2, 1)
    assert words in err


def test_fortune_does_not_strike_a_trial(fedge) -> None:
    """Breaks if a trial fails because the device happens to be away, or a fault is injected."""
    away = ["availability={kind='markov', share=0.01}", "faults.nan.rate=1.0", "energy.start=0.05"]
    code, _, err = fedge("try", "quickstart", *SHORT, *(part for one in away for part in ("--set", one)))
    assert code == 0, err
