"""Whole runs on a stand-in for a GPU: preparation, rounds, what is kept, what is reported.

pytest finds these by test_stand_in.py, which runs them in a process of their own.
"""

import json
from pathlib import Path

import pytest
import torch

import fedge
from fedge.console.observer import Observer
from fedge.device.state import DeviceState, StateFolder
from fedge.prepare import Prepared, prepare
from fedge.scenario.load import load_scenario
from fedge.scenario.schema import Scenario
from fedge.training.torch_device import CPU, on_cpu
from fedge.yardsticks.run import run_yardstick
from tests.stand_in.cases import DEVICE, gpu, network, same_state, settings

__all__ = ["gpu", "settings"]  # fixtures of both files

SCENARIOS = {
    "everything": [
        "training.instance_filter={kind='early', keep=0.5}",
        "training.error_maps.keep=0.25",
        "training.quantization={bits=8}",
        "training.pruning={level={search='memory', share=0.02}}",
        "limits.memory=shrink",
    ],
    "taylor": ["training.pruning={level=0.5, criterion='taylor'}", "training.instance_filter.kind=infobatch"],
    "accuracy": ["training.pruning.level={search='accuracy', slack=0.5}"],
    "head": [
        "training.what=head",
        "training.optimizer={kind='adamw', weight_decay=0.01}",
        "training.decay={kind='cosine'}",
        "training.pruning.level=0.3",
    ],
    "pictures": [
        "data.dataset=digits",
        "model.name=lenet",
        "training.transform=crop_flip",
        "model.factory={epochs=1, transform='crop_flip'}",
    ],
}


def short(device: str, changes: list[str]) -> Scenario:
    """Quickstart of three clients."""
    shares = [f"fleet.{index}.{key}" for index in range(3) for key in ("count=1", "ray={num_gpus=0.25}")]
    changes = [
        *(shares if device == "cuda" else shares[::2]),
        f"engine.device={device}",
        "engine.kind=inline",
        "rounds=3",
        "training.epochs=1",
        "data.factory_fraction=0.8",  # few are left for the clients
        "model.factory.epochs=0",
        *changes,
    ]
    return load_scenario("quickstart", changes)


def run_of(folder: Path, device: str, changes: list[str]) -> fedge.launch.RunResult:
    return fedge.run(short(device, changes), out=folder / device, observer=Observer())


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_whole_run(name: str, tmp_path: Path) -> None:
    """Preparation, a device's round, what it keeps, or what it says, would not do on a GPU."""
    here, there = (run_of(tmp_path, device, SCENARIOS[name]) for device in ("cpu", "cuda"))
    assert there.reports(timing=False) == here.reports(timing=False)
    assert any(row["status"] == "ok" for row in here.reports())
    assert there.summary["accuracy"] == here.summary["accuracy"]
    for client in range(3):
        mine, other = (StateFolder(run.out / "devices" / str(client)).at(3) for run in (there, here))
        assert (
            mine.model.keys() == other.model.keys()
            and mine.instance_filter.keys() == other.instance_filter.keys()
        )
        for kept in ("model", "instance_filter", "factory"):
            for key, tensor in getattr(mine, kept).items():
                torch.testing.assert_close(tensor, getattr(other, kept)[key], rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("name", ["fedrep", "ditto"])  # which do all that the others do
def test_yardsticks(name: str, tmp_path: Path) -> None:
    """A study on a GPU would compare methods there with averages that were trained on the CPU, or not at all."""
    for device in ("cpu", "cuda"):
        run_yardstick(name, short(device, ["rounds=2"]), tmp_path / device, Observer())
    here, there = (
        [
            {key: value for key, value in json.loads(line).items() if key != "wall_s"}
            for line in (tmp_path / device / "reports.jsonl").read_text().splitlines()
        ]
        for device in ("cpu", "cuda")
    )
    assert here and there == here


OWN_LOOP = '''
"""A client with a training loop of its own."""
import torch
from torch.nn.functional import cross_entropy
from flwr.clientapp import ClientApp
from fedge.device.handler import on_device
from fedge.privacy.egress import egress_gate

app = ClientApp(mods=[egress_gate])

@app.train()
@on_device
def step(device, plan):
    if plan.prune:
        device.prune()
    assert device.torch_device == next(device.model.parameters()).device
    optimizer = torch.optim.Adam(device.model.parameters(), lr=1e-3)
    device.model.train()
    with device.counted(optimizer) as count:
        for epoch in range(plan.training.epochs):
            for x_BCHW, y_B in device.batches(epoch):
                optimizer.zero_grad()
                loss = cross_entropy(device.model(x_BCHW), y_B)
                loss.backward()
                optimizer.step()
                count.step(seen=len(y_B), kept=len(y_B), loss=loss)
    return device.report()
'''


def test_a_loop_of_ones_own(tmp_path: Path) -> None:
    """A client program's mini-batches would not be where its network is, or its loop not be counted."""
    (tmp_path / "own.py").write_text(OWN_LOOP)
    here, there = (run_of(tmp_path, device, [f"client={tmp_path / 'own.py'}"]) for device in ("cpu", "cuda"))
    assert there.reports(timing=False) == here.reports(timing=False)
    assert all(row["status"] == "ok" and row["macs_done"] for row in here.reports())


def test_a_state_from_one_device_goes_on_on_another(tmp_path: Path) -> None:
    """A state file would hold what only a GPU can load."""
    model = network(DEVICE)
    folder = StateFolder(tmp_path / "0")
    folder.write(DeviceState(round=1, model=on_cpu(model.state_dict())))
    again = network(CPU)
    again.load_state_dict(folder.at(1).model)
    same_state(again, model)


def test_the_factory_model_is_kept_on_the_cpu(tmp_path: Path) -> None:
    """A prepared folder would be of use on a GPU alone."""
    changes = ["engine.device=cuda", "model.factory.epochs=1", "limits.hard=false"]
    changes += [f"fleet.{index}.ray={{num_gpus=1}}" for index in range(3)]
    prepared = prepare(load_scenario("quickstart", changes))
    model = Prepared.open(Path(prepared.folder)).factory_model()
    assert {parameter.device for parameter in model.parameters()} == {CPU}
    assert prepared.folder != prepare(load_scenario("quickstart", ["model.factory.epochs=1"])).folder
