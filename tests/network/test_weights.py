"""Files of weights: the forms they come in, and the ways in which they do not fit."""

import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from fedge.errors import UserError
from fedge.network.weights import load_weights


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Linear(2, 4))


def state() -> dict[str, torch.Tensor]:
    return {key: value + 1 for key, value in network().state_dict().items()}


FORMS = {
    "plain.pth": lambda held: held,
    "plain.pt": lambda held: held,
    "checkpoint.pth": lambda held: {"epoch": 3, "state_dict": held, "optimizer": {"lr": 0.1}},
    "parallel.pth": lambda held: {"model": {f"module.{key}": value for key, value in held.items()}},
    "double.pth": lambda held: {key: value.double() for key, value in held.items()},
    "old.pth": lambda held: {key: value for key, value in held.items() if "tracked" not in key},
}


@pytest.mark.parametrize("name", [*FORMS, "plain.safetensors"])
def test_usual_forms_are_read(tmp_path: Path, name: str) -> None:
    """Breaks if a file that people have lying about is refused, or put in wrongly."""
    path = tmp_path / name
    if name in FORMS:
        torch.save(FORMS[name](state()), path)
    else:
        save_file(state(), path)
    model = network()
    load_weights(model, str(path), (), who="net.py")
    for key, value in model.state_dict().items():
        assert value.dtype == network().state_dict()[key].dtype
        if "tracked" not in key:
            assert torch.equal(value, state()[key])


class Bomb:
    """Unpickled, it leaves a mark."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return (Path.touch, (self.mark,))


def test_code_in_a_pickle_is_refused_and_not_run(tmp_path: Path) -> None:
    """Breaks if opening somebody's weights can run their code."""
    torch.save({"weight": Bomb(tmp_path / "mark")}, tmp_path / "bomb.pth")
    (tmp_path / "raw.pt").write_bytes(pickle.dumps(Bomb(tmp_path / "mark"), protocol=2))
    torch.save(network(), tmp_path / "whole.pth")
    for name in ("bomb.pth", "raw.pt", "whole.pth"):
        with pytest.raises(UserError, match=r"more than tensors.*runs no code from a file") as refusal:
            load_weights(network(), str(tmp_path / name), (), who="net.py")
        assert "\n" not in str(refusal.value)
    assert not (tmp_path / "mark").exists()


def changed(**changes: torch.Tensor | None) -> dict[str, torch.Tensor]:
    held = state() | {key.replace("_", ".", 1): value for key, value in changes.items()}
    return {key: value for key, value in held.items() if value is not None}


@pytest.mark.parametrize(
    ("held", "reset", "said"),
    [
        (
            {"2_weight": torch.ones(9, 2)},
            (),
            r'2.weight is \[9, 2\] there and \[4, 2\] here: reset = \["2"\], or fit',
        ),
        ({"2_weight": None, "2_bias": None}, (), r'2.weight is not there \(and 1 more\): reset = \["2"\]'),
        (
            {"3_weight": torch.ones(1)},
            (),
            "3.weight is not here: fit the network, or leave it out of the file",
        ),
        ({"2_bias": torch.full((4,), float("nan"))}, (), "2.bias holds numbers that are nan"),
        ({}, ("head",), "model.reset names 'head', which net.py does not have; there are 0, 1, 2"),
    ],
)
def test_what_does_not_fit_is_one_line_and_changes_nothing(tmp_path: Path, held, reset, said) -> None:
    """Breaks if a network is trained from half of a file's weights."""
    save_file(changed(**held), tmp_path / "w.safetensors")
    model = network()
    with pytest.raises(UserError, match=said) as refusal:
        load_weights(model, str(tmp_path / "w.safetensors"), reset, who="net.py")
    assert "\n" not in str(refusal.value)
    assert all(torch.equal(value, network().state_dict()[key]) for key, value in model.state_dict().items())


def test_layers_of_the_file_alone_can_be_left_out(tmp_path: Path) -> None:
    """Breaks if a head of another name in the file cannot be passed over."""
    save_file(changed(fc_weight=torch.ones(3)), tmp_path / "w.safetensors")
    load_weights(network(), str(tmp_path / "w.safetensors"), ("fc",), who="net.py")


@pytest.mark.parametrize(
    "name", ["text.safetensors", "text.pth", "empty.pth", "empty.safetensors", "list.pth"]
)
def test_other_files_are_refused_in_one_line(tmp_path: Path, name: str) -> None:
    """Breaks if a wrong file ends in a traceback."""
    (tmp_path / name).write_text("" if name.startswith("empty") else "no weights\n")
    if name == "list.pth":
        torch.save([torch.ones(2)], tmp_path / name)
    with pytest.raises(UserError, match=f"weights '{name}' (hold|cannot be read)") as refusal:
        load_weights(network(), str(tmp_path / name), (), who="net.py")
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("name", ["gone.pth", "."])
def test_a_file_that_is_not_there_is_told_with_where_it_is_looked_for(tmp_path: Path, name: str) -> None:
    """Breaks if somebody with a cluster cannot see that the nodes need the file."""
    with pytest.raises(UserError, match="read where the data are prepared; on a cluster, each node"):
        load_weights(network(), str(tmp_path / name), (), who="net.py")
