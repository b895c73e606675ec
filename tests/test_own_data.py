"""Data of one's own from end to end: imported by the command line, named by a scenario, trained on.

And the ways to bring them wrongly: each ends as one line and exit code 2, and leaves nothing behind.
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import fedge
from fedge import cli
from fedge.launch import RunResult
from fedge.scenario.load import load_scenario
from tests.data.own.folders import pictures, recordings, scenario

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Command:
    """Run one command in `tmp_path`; (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["fedge", *arguments])
        with pytest.raises(SystemExit) as end:
            cli.main()
        said = capsys.readouterr()
        return int(end.value.code or 0), said.out, said.err

    return call


def pictures_scenario(folder: Path, command: Command) -> Path:
    pictures(folder / "pics")
    code, out, err = command("import", "images", "pics", "--out", "mine")
    assert (code, err) == (0, "") and out == "mine: 60 samples of 3 x 16 x 16, 3 classes\n"
    return scenario(folder / "own.toml", "mine")


def recordings_scenario(folder: Path, command: Command) -> Path:
    recordings(folder / "w.csv")
    columns = ["--label", "activity", "--owner", "person", "--time", "t"]
    windows = ["--window", "16", "--step", "8"]
    code, out, err = command("import", "table", "w.csv", *columns, *windows, "--out", "mine/")
    assert (code, err) == (0, "")
    assert out == "mine: 108 samples of 2 x 1 x 16, 3 classes, 3 owners, in order of time\n"
    lines = (
        'partition = { kind = "natural" }\nsplit = { by = "time", train = 0.5, validation = 0.2, test = 0.3 }'
    )
    return scenario(folder / "own.toml", "mine/", lines, model="har_cnn")


MAKERS = pytest.mark.parametrize("made", [pictures_scenario, recordings_scenario])


@MAKERS
def test_from_files_to_results(made: Callable[..., Path], command: Command, tmp_path: Path) -> None:
    """Breaks if a user's files cannot be brought through import, plan and run by the command line alone."""
    path = made(tmp_path, command)
    code, out, err = command("plan", path.name, "--json")
    assert code == 0 and json.loads(out)[0]["fits"], err
    code, _, err = command("run", path.name, "--out", "run", "--quiet")
    assert (code, err) == (0, "")
    rows = [json.loads(line) for line in (tmp_path / "run" / "reports.jsonl").read_text().splitlines()]
    assert [row["status"] for row in rows] == ["ok"] * 6
    recorded = (tmp_path / "run" / "scenario.toml").read_text()
    assert f'dataset = "{tmp_path / "mine"}"' in recorded


@pytest.mark.slow
@MAKERS
def test_reports_are_the_same_on_ray(
    made: Callable[..., Path], command: Command, tmp_path: Path, cluster: Any
) -> None:
    """Breaks if where the devices run changes what they learn from data of one's own."""

    def run(kind: str) -> RunResult:
        return fedge.run(load_scenario(str(path), [f"engine.kind={kind}"]), tmp_path / kind)

    path = made(tmp_path, command)
    assert run("inline").reports(timing=False) == run("ray").reports(timing=False)


def test_windows_that_overlap_are_never_on_both_sides(command: Command, tmp_path: Path) -> None:
    """Breaks if moments that were trained on are tested on: figures would be too good, as they are by row."""
    from fedge.data.shard import SPLITS, Shard
    from fedge.prepare import prepare

    loaded = load_scenario(str(recordings_scenario(tmp_path, command)))
    prepared = prepare(loaded)
    for client in range(3):
        shard = Shard.open(Path(prepared.folder) / "shards", client)
        moments = [set(shard.arrays(split)[0].ravel()) for split in SPLITS]
        assert all(moments) and not moments[0] & moments[2] and not moments[0] & moments[1]
    assert any("drops" in line for line in prepared.notices)
    by_row = load_scenario(str(tmp_path / "own.toml"), ["data.split.by=row"])
    assert any("overlap and data.split.by is 'row'" in line for line in prepare(by_row).notices)


def test_what_accuracy_would_hide_is_told_before_the_run(command: Command, tmp_path: Path) -> None:
    """Breaks if somebody is glad of 95 % that a constant answer reaches, or reads chance off an owner of few rows."""
    from fedge.prepare import prepare

    y = np.array(["common"] * 95 + ["rare"] * 5)
    owner = [1 if row % 19 == 0 else 0 for row in range(100)]
    x = np.random.default_rng(0).integers(0, 256, (100, 16, 16), dtype=np.uint8)
    fedge.write_dataset(tmp_path / "mine", x, y, owner=owner)
    path = scenario(tmp_path / "own.toml", "mine", 'partition = { kind = "natural" }', clients=2)
    notices = prepare(load_scenario(str(path))).notices
    assert any(
        "'common' has 95 of 100 rows, 'rare' 5; always to answer 'common' is right in 95.0%" in n
        for n in notices
    )
    assert any("1 of 2 clients hold fewer than 10 rows" in notice for notice in notices)


def test_a_file_that_gives_rows_is_part_of_what_was_prepared(command: Command, tmp_path: Path) -> None:
    """Breaks if a changed who.csv is answered from the cache."""
    from fedge.prepare import prepare

    pictures(tmp_path / "pics")
    assert command("import", "images", "pics", "--out", "mine")[0] == 0
    path = scenario(
        tmp_path / "own.toml", "mine", 'partition = { kind = "given", file = "who.csv" }', clients=2
    )
    folders = set()
    for turn in (2, 3):
        lines = "\n".join(f"{row},{row % turn % 2}" for row in range(40))
        (tmp_path / "who.csv").write_text(f"row,client\n{lines}\n")
        folders.add(prepare(load_scenario(str(path))).folder)
    assert len(folders) == 2


# --- twenty ways to bring data wrongly ------------------------------------------------------------------


def one_class(folder: Path) -> None:
    pictures(folder / "pics", classes=("cat",))


def mixed_sizes(folder: Path) -> None:
    pictures(folder / "pics")
    Image.new("RGB", (17, 16)).save(folder / "pics/cat/x.png")


def sixteen_bit(folder: Path) -> None:
    pictures(folder / "pics")
    Image.fromarray(np.zeros((16, 16), np.uint16)).save(folder / "pics/cat/x.png")


def palette(folder: Path) -> None:
    pictures(folder / "pics")
    Image.new("P", (16, 16)).save(folder / "pics/cat/x.png")


def cmyk(folder: Path) -> None:
    pictures(folder / "pics")
    Image.new("CMYK", (16, 16)).save(folder / "pics/cat/x.jpg")


def truncated(folder: Path) -> None:
    path = pictures(folder / "pics") / "dog/000.png"
    path.write_bytes(path.read_bytes()[:100])


def no_picture(folder: Path) -> None:
    (folder / "pics/cat").mkdir(parents=True)
    (folder / "pics/cat/notes.txt").touch()


def parts_and_classes(folder: Path) -> None:
    pictures(folder / "pics", classes=("train", "cat"))


IMAGES = {
    one_class: "one class, 'cat'",
    mixed_sizes: "pictures differ in size",
    sixteen_bit: "colour mode I;16",
    palette: "colour mode P",
    cmyk: "colour mode CMYK",
    truncated: "dog/000.png cannot be read",
    no_picture: "holds no pictures in folders",
    parts_and_classes: "either parts or classes",
}
X = np.random.default_rng(0).integers(0, 256, (12, 3, 8, 8), dtype=np.uint8)
Y = np.arange(12) % 3
ARRAYS: dict[str, tuple[dict[str, Any], str]] = {
    "labels from 1": ({"y": Y + 1}, "subtract 1"),
    "missing class": ({"y": Y // 2 * 2}, "class '1' has no sample"),
    "nan": ({"x": np.where(X[7, 0, 0, 0] == X, np.nan, X).astype(np.float32)}, "nan or infinity in row"),
    "float64": ({"x": X / 255}, "x is float64"),
    "channels last": ({"x": np.zeros((12, 8, 8, 3), np.uint8)}, "channels last"),
    "fewer targets": ({"y": Y[:-1]}, "y has 11 rows and x 12"),
    "owners of others": ({"owner": np.arange(11)}, "owner has 11 rows and x 12"),
    "objects": ({"x": np.array([{}] * 12, dtype=object)}, "is no .npz of arrays"),
    "no y": ({"y": None}, "no 'y'; x and y are wanted"),
}
PROGRAMS = {
    "raise ValueError('two\\nlines')": "raised ValueError on line 1: two lines",
    "import no_such_package": "ModuleNotFoundError",
    "def rows():\n    yield 1": "yielded int as row 0",
    "rows = 3": "defines no function rows()",
    "def rows(): return []": "yielded nothing",
    "import sys; sys.exit(0)": "raised SystemExit",
    "def rows(:": "SyntaxError",
}
TABLE = ["import", "table", "w.csv", "--label", "activity"]
TABLES: dict[str, tuple[list[str], str]] = {
    "no column": ([*TABLE, "--owner", "who"], "no column 'who'; there are person, activity"),
    "words for numbers": (TABLE, "column 'person' holds"),
    "shape": ([*TABLE, "--drop", "person", "--shape", "2,2"], "shape is 2,2 and w.csv has 3 columns"),
    "no shape": ([*TABLE, "--drop", "person", "--shape", "2,a"], "--shape is '2,a'"),
    "too long": (
        [*TABLE, "--owner", "person", "--window", "500"],
        "no recording is as long as a window of 500",
    ),
    "step alone": ([*TABLE, "--step", "5"], "there is no --window"),
    "shape and window": ([*TABLE, "--shape", "3,1", "--window", "5"], "give one"),
    "task": ([*TABLE, "--task", "class"], "--task is 'class'"),
    "no target": (
        ["import", "table", "w.csv"],
        "--label, --labels and --target say what is to be told, and none of",
    ),
    "two targets": ([*TABLE, "--target", "ax"], "and --label and --target is given; give one"),
    "target and task": (
        ["import", "table", "w.csv", "--target", "ax", "--task", "labels"],
        "--target is given, which makes task 'numbers'",
    ),
    "no file": (["import", "table", "v.csv", "--label", "a"], "v.csv cannot be read as a table"),
    "kind": (["import", "picture", "pics"], "There are images, table, arrays, program"),
}


def refused(command: Command, said: str, *arguments: str) -> None:
    before = sorted(Path.cwd().iterdir())
    code, out, err = command(*arguments, "--out", "mine")
    assert (code, out) == (2, "") and said in err, err
    assert err.startswith("fedge: ") and err.count("\n") == 1
    assert sorted(Path.cwd().iterdir()) == before


@pytest.mark.parametrize("wrong", IMAGES, ids=lambda wrong: wrong.__name__)
def test_wrong_pictures(wrong: Callable[[Path], None], command: Command, tmp_path: Path) -> None:
    """Breaks if pictures are taken for what they are not, or refused without saying which and what to do."""
    wrong(tmp_path)
    refused(command, IMAGES[wrong], "import", "images", "pics")


@pytest.mark.parametrize("wrong", ARRAYS)
def test_wrong_arrays(wrong: str, command: Command, tmp_path: Path) -> None:
    """Breaks as above, for arrays."""
    change, said = ARRAYS[wrong]
    arrays = {name: array for name, array in ({"x": X, "y": Y} | change).items() if array is not None}
    np.savez(tmp_path / "a.npz", **arrays)
    refused(command, said, "import", "arrays", "a.npz")


@pytest.mark.parametrize("text", PROGRAMS)
def test_wrong_programs(text: str, command: Command, tmp_path: Path) -> None:
    """Breaks as above, for programs: their fault is theirs, told by its line."""
    (tmp_path / "p.py").write_text(text)
    refused(command, PROGRAMS[text], "import", "program", "p.py")


@pytest.mark.parametrize("wrong", TABLES)
def test_wrong_tables(wrong: str, command: Command, tmp_path: Path) -> None:
    """Breaks as above, for tables and for options that do not go together."""
    recordings(tmp_path / "w.csv", people="ab", moments=10)
    arguments, said = TABLES[wrong]
    refused(command, said, *arguments)


SCENARIOS: dict[str, tuple[str, dict[str, Any], str]] = {
    "no owner": ('partition = { kind = "natural" }', {}, "'natural' needs data with owners; 'mine/' has none"),
    "more clients than owners": (
        'partition = { kind = "natural" }', {"owner": np.arange(12) // 6}, "'mine/' has 2 people",
    ),
    "no order": ('split = { by = "time" }', {}, "'mine/' has none"),
    "a gap by row": ("split = { gap = 3 }", {}, "gap is for splits by 'run' or 'time'"),
    "numbers by class": (
        'partition = { kind = "dirichlet" }', {"y": np.linspace(0, 1, 12)}, "by class, and 'mine/' has task 'numbers'",
    ),
    "labels by class": (
        'partition = { kind = "shards" }', {"y": np.eye(12, 4, dtype=int)}, "by class, and 'mine/' has task 'labels'",
    ),
    "no file": ('partition = { kind = "given", file = "no.csv" }', {}, "no.csv: no such file"),
    "subsets": ('partition = { kind = "subsets" }', {}, "is for cifar100; data.dataset is 'mine/'"),
}  # fmt: skip


@pytest.mark.parametrize("wrong", SCENARIOS)
def test_wrong_scenarios(wrong: str, command: Command, tmp_path: Path) -> None:
    """Breaks if what facts.json tells is only found out after minutes of preparation, or in a traceback."""
    lines, change, said = SCENARIOS[wrong]
    given = {"x": X, "y": Y} | change
    fedge.write_dataset(tmp_path / "mine", given.pop("x"), given.pop("y"), **given)
    scenario(tmp_path / "own.toml", "mine", lines)
    code, out, err = command("plan", "own.toml")
    assert (code, out) == (2, "") and said in err and err.count("\n") == 1, err


def test_a_dataset_that_is_still_pictures_names_the_command(command: Command, tmp_path: Path) -> None:
    """Breaks if somebody who names pictures as data.dataset has to look for what to do."""
    pictures(tmp_path / "own/pictures")
    scenario(tmp_path / "own.toml", "own/pictures")
    code, _, err = command("run", "own.toml")
    assert code == 2 and "no facts.json in it, but 3 folders of pictures: fedge import images" in err
    assert "--size 48 --out NAME" in err and err.count("\n") == 1
