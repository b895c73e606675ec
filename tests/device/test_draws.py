"""What draws without a generator of its own, dropout say, draws alike wherever a round runs."""

import pytest
import torch

import fedge
from fedge.prepare import prepare

DROPS = """
from torch import nn

def build(num_classes, in_channels, image_size):
    return nn.Sequential(nn.Flatten(), nn.Linear(256, 32), nn.ReLU(), nn.Dropout(), nn.Linear(32, num_classes))
"""
OFF = ("training.pruning.level=0", "training.instance_filter.kind=none", "training.error_maps.keep=1.0")


@pytest.fixture
def drops(tmp_path) -> str:
    (tmp_path / "net.py").write_text(DROPS)
    return f"model={{program='{tmp_path / 'net.py'}',factory={{epochs=1}}}}"


def test_a_run_with_dropout_is_a_function_of_its_scenario(small, drops: str, tmp_path, monkeypatch) -> None:
    """Breaks if dropout goes on from where the process's generator happens to be, other on each host."""
    scenario, rows, weights = small(*OFF, drops), [], []
    for before in (1, 2):
        monkeypatch.setenv("FEDGE_CACHE", str(tmp_path / f"cache{before}"))
        torch.manual_seed(before)
        drawn = torch.get_rng_state()
        weights.append(prepare(scenario).factory_model().state_dict())
        rows.append(fedge.run(scenario, tmp_path / f"out{before}").reports(timing=False))
        assert torch.equal(torch.get_rng_state(), drawn)
    assert rows[0] == rows[1]
    assert all(torch.equal(tensor, weights[1][name]) for name, tensor in weights[0].items())
