"""`[[device]]`: a device class of one's own, what is refused of it, and that all who ask for a profile find it."""

import csv
import importlib.resources
import json
from pathlib import Path

import pytest

import fedge
from fedge.catalog.devices import PROFILES
from fedge.commands.listing import listing
from fedge.console.observer import Observer
from fedge.device.simulated import Simulated
from fedge.errors import UserError
from fedge.forecast import plan_scenario
from fedge.launch import host_request
from fedge.scenario.file import read_scenario, scenario_toml
from fedge.scenario.hardware.device import OwnDevice
from fedge.scenario.load import load_scenario
from fedge.yardsticks.run import run_yardstick
from tests.device.time.fingerprints import written as fingerprint_file

BOARD = {
    "name": '"my-board"',
    "train_gflops": "3.0",
    "memory_mb": "512",
    "memory_gbs": "6.4",
    "down_mbps": "20",
    "up_mbps": "10",
    "idle_w": "1.2",
    "load_w": "4",
    "battery_wh": '"none"',
}
HEAD = """
name = "own"
rounds = 2
[data]
dataset = "digits"
partition = { kind = "iid" }
[model]
name = "lenet"
factory = { epochs = 1 }
[training]
batch_size = 16
[training.pruning]
level = 0.3
"""


def written(folder: Path, *devices: dict[str, str], more: str = "", fleet: str = "my-board") -> str:
    """The path of a scenario with these devices, on whose first all clients run."""
    tables = ["[[device]]\n" + "\n".join(f"{key} = {value}" for key, value in own.items()) for own in devices]
    text = "\n".join([HEAD, *tables, more, f'[[fleet]]\ndevice = "{fleet}"\ncount = 2\n'])
    path = folder / "own.toml"
    path.write_text(text)
    return str(path)


def test_its_columns_are_those_of_the_table() -> None:
    """A column that the table gains would be unknown to a device of one's own."""
    table = importlib.resources.files("fedge.catalog").joinpath("devices.csv").read_text()
    own = [name for name in OwnDevice.model_fields if name != "fingerprint"]
    assert own == next(csv.reader(table.splitlines()))


def test_a_fingerprint_stands_in_for_two_columns(tmp_path: Path) -> None:
    """Breaks if a device made of a fingerprint needs numbers that it does not use, or takes both and ignores one."""
    fingerprint_file(tmp_path, product=1e-10)
    told = {key: value for key, value in BOARD.items() if key not in ("train_gflops", "memory_gbs")}
    scenario = load_scenario(written(tmp_path, told | {"fingerprint": '"toy.json"'}))
    mine = scenario.profile_of(scenario.fleet[0])
    assert mine.fingerprint == (tmp_path / "toy.json").read_text()
    assert (mine.train_gflops, mine.memory_gbs) == (1.0, 1.0)
    (tmp_path / "toy.json").unlink()  # it has travelled with the scenario
    assert Simulated.of(scenario, 0).profile == mine


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (
            {"fingerprint": '"toy.json"', "train_gflops": "3.0"},
            "train_gflops is 3.0 and fingerprint is given",
        ),
        ({"fingerprint": '"gone.json"'}, "gone.json: cannot be read"),
        ({"fingerprint": '"own.toml"'}, "own.toml: no JSON"),
        ({}, "lacks train_gflops"),
    ],
)
def test_a_wrong_fingerprint_is_told_in_one_line(tmp_path: Path, more: dict[str, str], said: str) -> None:
    """Breaks if a scenario with a wrong file starts, or ends in a traceback."""
    fingerprint_file(tmp_path, product=1e-10)
    told = {key: value for key, value in BOARD.items() if key not in ("train_gflops", "memory_gbs")}
    with pytest.raises(UserError, match=said) as refusal:
        load_scenario(written(tmp_path, told | more))
    assert "\n" not in str(refusal.value)


def test_everything_that_asks_for_a_profile_finds_it(tmp_path: Path) -> None:
    """The device, the forecast or Ray would know the shipped devices alone, or a changed file would be overlooked."""
    more = '[[fleet]]\ndevice = "raspberry-pi-4"\ncount = 1\n'
    scenario = load_scenario(
        written(tmp_path, BOARD | {"ray_num_cpus": "0.25", "battery_wh": "7.5"}, more=more)
    )
    own = next(device for device in scenario.fleet if device.device == "my-board")
    mine = scenario.profile_of(own)
    assert (mine.train_gflops, mine.memory_bytes, mine.battery_wh) == (3.0, 512_000_000, 7.5)
    assert Simulated.of(scenario, 2).profile == mine
    assert Simulated.of(scenario, 0).profile == PROFILES["raspberry-pi-4"]
    assert (host_request(scenario, own).num_cpus, host_request(scenario, own).memory_bytes) == (
        0.25,
        700_000_000,
    )
    rows = {row["class"]: row for row in plan_scenario(scenario)}
    assert rows["my-board"]["memory_have_bytes"] == 512_000_000
    assert rows["my-board"]["time_s"] > 1.4 * rows["raspberry-pi-4"]["time_s"]
    assert "my-board" not in {row["name"] for row in listing("devices")}


def test_a_yardstick_runs_on_it(tmp_path: Path) -> None:
    """A study could not be made of a device of one's own."""
    run_yardstick("fedavg", load_scenario(written(tmp_path, BOARD)), tmp_path / "out", Observer())
    rows = [json.loads(line) for line in (tmp_path / "out" / "reports.jsonl").read_text().splitlines()]
    assert {row["device"] for row in rows} == {"my-board"} and all(row["time_s"] > 0 for row in rows)


def test_it_is_part_of_the_resolved_scenario(tmp_path: Path) -> None:
    """A run's record would name a device that nobody can look up."""
    scenario = load_scenario(written(tmp_path, BOARD, {**BOARD, "name": '"other"', "battery_wh": "3"}))
    again = tmp_path / "again.toml"
    again.write_text(scenario_toml(scenario))
    assert read_scenario(again) == scenario
    assert scenario.device[0].battery_wh == "none"


def test_a_run_on_it_beside_a_trace_and_a_resume_on_another(tmp_path: Path) -> None:
    """A device of one's own would not run, not follow a trace of one's own, or be changed in mid-run unnoticed."""
    (tmp_path / "trace.csv").write_text("id,start,end\na,0,7200\nb,3600,7200\n")
    trace = '[availability]\nkind = "trace"\npath = "trace.csv"\n[engine]\nkind = "inline"\n'
    path = written(tmp_path, BOARD, more=trace)
    result = fedge.run(path, out=tmp_path / "run", observer=Observer())
    rows = result.reports()
    assert [(row["round"], row["client"]) for row in rows if row["status"] == "ok"] == [
        (1, 0),
        (2, 0),
        (2, 1),
    ]
    slow = fedge.run(
        load_scenario(path, ["device.0.train_gflops=0.3", "clock.device_sigma=0", "clock.round_sigma=0"]),
        out=tmp_path / "slow",
    )
    assert slow.reports()[0]["time_s"] > 2 * rows[0]["time_s"]
    with pytest.raises(UserError, match=r"it differs in device"):
        fedge.run(load_scenario(path, ["device.0.load_w=5"]), out=tmp_path / "run", resume=True)


BROKEN = {  # what is written over BOARD: what the line must say
    "name": ('"jetson-nano"', "device.0.name is 'jetson-nano', which is a known device"),
    "train_gflop": ("3.0", "unknown key 'device.0.train_gflop'; did you mean 'train_gflops'?"),
    "memory_gb": ("2", "memory_gb is 2; it is given in MB: memory_mb = 2000"),
    "train_tflops": ("0.1", "it is given in GFLOP/s: train_gflops = 100"),
    "battery_j": ("36000", "it is given in Wh: battery_wh = 10"),
    "battery_mah": ("3000", None),
    "memory_mb": ('"2 GiB"', "it is a number of MB, without its unit: memory_mb = 2147.48"),
    "load_w": ("-4", "device.0.load_w is -4; it should be greater than 0"),
    "idle_w": ("9", "device.0: idle_w is 9 and load_w 4"),
    "up_mbps": ('"10 Mbit/s"', "up_mbps = 10"),
    "down_mbps": ("0", "device.0.down_mbps is 0; it should be greater than 0"),
    "battery_wh": ('"mains"', "device.0.battery_wh"),
    "memory_gbs": ("inf", "device.0.memory_gbs"),
    "ray_num_cpus": ("0", "device.0.ray_num_cpus is 0"),
}


@pytest.mark.parametrize("key", BROKEN)
def test_each_wrong_thing_is_one_line(tmp_path: Path, key: str) -> None:
    """A wrong unit would be taken for a number a thousand times off, a typing error would cost a search."""
    value, says = BROKEN[key]
    fleet = json.loads(value) if key == "name" else "my-board"
    with pytest.raises(UserError) as told:
        load_scenario(written(tmp_path, BOARD | {key: value}, fleet=fleet))
    assert "\n" not in str(told.value)
    assert (says or "unknown key 'device.0.battery_mah'") in str(told.value)


@pytest.mark.parametrize("column", [column for column in BOARD if column != "name"])
def test_a_missing_cost_is_an_error(tmp_path: Path, column: str) -> None:
    """A blank would count as 0 seconds or 0 joules."""
    left = {key: value for key, value in BOARD.items() if key != column}
    with pytest.raises(UserError, match=rf"device\.0: 'my-board' lacks {column} \("):
        load_scenario(written(tmp_path, left))


def test_two_of_one_name_and_a_name_that_nobody_has(tmp_path: Path) -> None:
    """A fleet would run on whichever came first."""
    with pytest.raises(UserError, match=r"device\.1\.name is 'my-board', as is device\.0's"):
        load_scenario(written(tmp_path, BOARD, BOARD))
    with pytest.raises(UserError, match=r"did you mean 'my-board'\?"):
        load_scenario(written(tmp_path, BOARD, fleet="my-bord"))
