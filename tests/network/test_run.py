"""A network of one's own, from its file to the reports."""

import copy
import json
import shutil

import pytest
import torch
from flwr.app import Context, RecordDict
from safetensors.torch import load_file, save_file

import fedge
from fedge.device.location import locate
from fedge.errors import UserError
from fedge.forecast import plan_scenario
from fedge.prepare import Prepared, prepare
from tests.network.conftest import LAYERS


def weights_like_the_factorys(load, folder, epochs: int) -> str:
    """A file of the weights that the factory model has after so many epochs; where it lies."""
    model = prepare(load(f"model.factory.epochs={epochs}")).factory_model()
    path = folder / f"after-{epochs}.safetensors"
    save_file(model.state_dict(), path)
    return str(path)


def test_it_is_trained_pruned_and_built_again_in_each_round(folder, load, capfd) -> None:
    """Breaks if a network from a file is not built on the devices, cannot be cut or built from its record, speaks on
    the user's terminal, or if the run folder does not keep its text."""
    result = fedge.run(load(), folder / "out")
    assert [row["status"] for row in result.reports()] == ["ok"] * 4
    assert all(row["parameters"] < row["parameters_dense"] for row in result.reports() if row["round"] == 2)
    assert "built for" not in "".join(capfd.readouterr())
    kept = {path.name: path.read_text() for path in (folder / "out" / "programs").iterdir()}
    assert kept["net.py"] == (folder / "net.py").read_text() and kept["layers.py"] == LAYERS


@pytest.mark.slow
def test_ray_and_inline_report_the_same(folder, load, cluster) -> None:
    """Breaks if a host of Ray's builds another network than this process, or cannot build it."""
    weights = weights_like_the_factorys(load, folder, 1)
    results = [
        fedge.run(load(f"engine.kind={kind}", f"model.weights={weights}"), folder / kind)
        for kind in ("inline", "ray")
    ]
    inline, ray = (result.reports(timing=False) for result in results)
    assert inline == ray and len(inline) == 4


def test_the_files_place_plays_no_part_and_its_text_and_arguments_do(folder, load, tmp_path_factory) -> None:
    """Breaks if an edited network gets the factory model of the one before it from the cache, or if a folder that was
    moved has to be prepared anew."""
    first = prepare(load()).folder
    moved = tmp_path_factory.mktemp("moved")
    for name in ("own.toml", "net.py", "layers.py"):
        shutil.copy(folder / name, moved / name)
    assert prepare(fedge.load_scenario(str(moved / "own.toml"))).folder == first
    assert prepare(load("model.args={width=4}")).folder != first
    (folder / "layers.py").write_text(LAYERS.replace("ReLU", "GELU"))
    assert prepare(load()).folder != first


def test_the_prepared_folder_builds_it_without_the_file(folder, load) -> None:
    """Breaks if a device on another machine, which has a copy of prepared.json alone, cannot build the network."""
    prepared = prepare(load())
    for name in ("net.py", "layers.py"):
        (folder / name).unlink()
    again = Prepared.open(folder / "cache" / "prepared" / prepared.folder.rpartition("/")[2])
    assert again == prepared
    state = load_file(f"{prepared.folder}/factory.safetensors")
    assert all(torch.equal(value, state[key]) for key, value in again.factory_model().state_dict().items())


def test_a_device_that_prepares_for_itself_has_it_too(folder, load) -> None:
    """Breaks if the texts do not travel in the run's configuration, as Flower's own runtime needs it."""
    run = {"scenario-json": load().model_dump_json(exclude_none=True), "out": str(folder / "out")}
    for name in ("net.py", "layers.py"):
        (folder / name).unlink()
    place = locate(Context(0, 0, {"partition-id": 1}, RecordDict(), run))
    assert Prepared.open(place.data_folder).build_model().head.out_features == 10


def test_given_weights_are_the_factory_model(folder, load) -> None:
    """Breaks if weights are not put in, are trained on unasked, or if a file that was swapped under its name gives the
    factory model of the one before it."""
    few, many = (weights_like_the_factorys(load, folder, epochs) for epochs in (1, 12))
    shutil.copy(few, folder / "given.safetensors")
    path = folder / "given.safetensors"
    scenario = load(f"model.weights={path}")
    assert scenario.model.factory.epochs == 0
    first = prepare(scenario)
    assert all(
        torch.equal(value, load_file(few)[key]) for key, value in first.factory_model().state_dict().items()
    )
    before = fedge.run(scenario, folder / "before").summary["accuracy"]["factory"]
    shutil.copy(many, path)
    after = fedge.run(scenario, folder / "after").summary["accuracy"]["factory"]
    assert after > before + 0.1
    assert load(f"model.weights={path}", "model.factory.epochs=2").model.factory.epochs == 2


def test_other_weights_are_another_run(folder, load) -> None:
    """Breaks if a resumed run takes the factory model of a swapped file for the clients that it has not asked yet."""
    few, many = (weights_like_the_factorys(load, folder, epochs) for epochs in (1, 2))
    path = folder / "given.safetensors"
    shutil.copy(few, path)
    fedge.run(load(f"model.weights={path}", "rounds=2"), folder / "out")
    shutil.copy(many, path)
    with pytest.raises(UserError, match=r"the file of model\.weights has changed since the run was begun"):
        fedge.run(load(f"model.weights={path}", "rounds=3"), folder / "out", resume=True)
    shutil.copy(few, path)
    result = fedge.run(load(f"model.weights={path}", "rounds=3"), folder / "out", resume=True)
    assert len(result.reports()) == 6


def test_a_reset_layer_starts_anew(folder, load) -> None:
    """Breaks if a head of other outputs cannot be replaced, or if the rest is."""
    path = weights_like_the_factorys(load, folder, 1)
    state = load_file(path)
    state["head.weight"], state["head.bias"] = torch.ones(1000, 12), torch.ones(1000)
    save_file(state, path)
    with pytest.raises(
        UserError, match=r'differ: head.weight is \[1000, 12\] there and \[10, 12\] here.*reset = \["head"\]'
    ):
        prepare(load(f"model.weights={path}"))
    model = prepare(load(f"model.weights={path}", 'model.reset=["head"]')).factory_model()
    fresh = prepare(load("model.factory.epochs=0")).factory_model()
    assert torch.equal(model.head.weight, fresh.head.weight)
    assert torch.equal(model.body[0][0].weight, state["body.0.0.weight"])


def test_a_program_may_be_a_folder(folder, load) -> None:
    """Breaks if a network that was split into a package has to be put into one file."""
    (folder / "mynet").mkdir()
    (folder / "mynet" / "__init__.py").write_text("from mynet.body import build\n")
    (folder / "mynet" / "body.py").write_text(
        (folder / "net.py").read_text().replace("from layers", "from .layers")
    )
    (folder / "layers.py").rename(folder / "mynet" / "layers.py")
    path = folder / "mynet"
    result = fedge.run(load(f"model.program={path}"), folder / "out")
    assert [row["status"] for row in result.reports()] == ["ok"] * 4
    kept = folder / "out" / "programs" / "mynet"
    assert sorted(file.name for file in kept.iterdir()) == ["__init__.py", "body.py", "layers.py"]


def test_a_forecast_knows_it(folder, load) -> None:
    """Breaks if `fedge plan` cannot be asked about a network of one's own."""
    (row,) = plan_scenario(load())
    model = prepare(load()).build_model()
    assert row["parameters_left"] == pytest.approx(0.7, abs=0.05) and row["macs_dense"] > 0
    assert json.dumps(row) and copy.deepcopy(model)
