"""Where tensors live: what needs no GPU to be seen."""

import pytest
import torch
from torch import nn

from fedge.errors import UserError
from fedge.training.torch_device import (
    CPU,
    BroughtTo,
    brought_to,
    device_of,
    drawing_from,
    gpu_facts,
    on_cpu,
    opened,
    settings_kept,
)

NO_GPU = pytest.mark.skipif(torch.cuda.is_available(), reason="of a machine without a GPU")


@NO_GPU
def test_a_gpu_that_is_not_there_is_one_line() -> None:
    """A user without a GPU would get torch's own error, from the middle of a run."""
    with pytest.raises(
        UserError, match=r"engine\.device is 'cuda' and there is no GPU: torch .*'cpu'"
    ) as told:
        opened("cuda")
    assert "\n" not in str(told.value)


def test_the_cpu_is_left_as_it_is() -> None:
    """A run on the CPU would have torch choose other algorithms than it did."""
    before = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.allow_tf32
    assert opened("cpu") == CPU
    assert gpu_facts(CPU) == {}
    assert (torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.allow_tf32) == before


def test_settings_are_put_back() -> None:
    """A notebook would go on with algorithms that a run on a GPU had chosen."""
    with settings_kept():
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.backends.cudnn.deterministic = True
        torch.backends.cudnn.allow_tf32 = False
    assert not torch.are_deterministic_algorithms_enabled()
    assert not torch.backends.cudnn.deterministic and torch.backends.cudnn.allow_tf32


def test_batches_come_to_the_model_each_time() -> None:
    """Batches that a list holds would be had once; what is no tensor would break before it is told of."""
    meta = torch.device("meta")
    batches = BroughtTo([(torch.zeros(2), "no tensor")], meta)
    for _ in range(2):
        ((x, other),) = batches
        assert x.device == meta and other == "no tensor"
    held = torch.zeros(3)
    assert brought_to(held, CPU) is held and brought_to(held, None) is held
    assert device_of(nn.Linear(2, 2, device="meta")) == meta
    assert device_of(nn.BatchNorm1d(2, affine=False)) == CPU
    assert device_of(nn.ReLU()) is None
    assert not on_cpu({"w": nn.Parameter(held)})["w"].requires_grad


def test_draws_are_of_the_seed_and_leave_no_trace() -> None:
    """A network with dropout would train otherwise after another client than after none."""
    before = torch.get_rng_state()
    draws = []
    for _ in range(2):
        torch.rand(3)
        with drawing_from(7, CPU):
            draws.append(torch.rand(4))
    assert torch.equal(*draws)
    torch.set_rng_state(before)
    expected = torch.rand(1)
    torch.set_rng_state(before)
    with drawing_from(7, CPU):
        torch.rand(4)
    assert torch.equal(torch.rand(1), expected)
