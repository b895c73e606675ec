"""torchvision's networks: counted, trained, and estimated."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedge.device.memory import peak_training_memory
from fedge.errors import UserError
from fedge.torchvision_compat import import_torchvision_datasets
from fedge.training.loop import train
from fedge.training.torch_private import FakeTensorMode
from tests.training.judge import judged_macs

SHAPE = (3, 224, 224)
LARGE = (
    "densenet121", "convnext_tiny", "efficientnet_b0", "googlenet", "mobilenet_v3_small", "regnet_y_400mf", "resnet18",
    "swin_t", "vit_b_16",
)  # fmt: skip
NAMES = [
    "squeezenet1_1",
    "shufflenet_v2_x0_5",
    *(pytest.param(name, marks=pytest.mark.slow) for name in LARGE),
]


def network(name: str, **options: object) -> nn.Module:
    import_torchvision_datasets()
    from torchvision import models

    if name == "googlenet":
        options = {"init_weights": False, "aux_logits": False} | options
    return getattr(models, name)(num_classes=10, **options)


def judged(model: nn.Module, x: Tensor, y: Tensor) -> float:
    """MACs of a training step, without computing it."""
    fake = FakeTensorMode(allow_non_fake_inputs=True)
    with fake:
        tensors = {name: fake.from_tensor(held) for name, held in model.state_dict(keep_vars=True).items()}
        return judged_macs(lambda: F.cross_entropy(torch.func.functional_call(model, tensors, (x,)), y))


@pytest.mark.parametrize("name", NAMES)
def test_a_network_of_torchvision_trains_and_its_cost_is_torchs_count(name):
    """If this fails, a network that everybody uses is refused, or its cost is not what runs."""
    torch.manual_seed(0)
    model, x, y = network(name).train(), torch.randn(2, *SHAPE), torch.tensor([1, 7])
    expected = judged(model, x, y)
    stats = train(model, [(x, y)], optimizer=torch.optim.SGD(model.parameters(), 0.01))
    assert stats.macs_done == pytest.approx(expected, rel=0.01)
    weights = 4 * sum(parameter.numel() for parameter in model.parameters())
    assert peak_training_memory(lambda: model, batch_size=2, input_shape=SHAPE) > 2 * weights


def test_auxiliary_outputs_are_refused_in_one_line():
    """If this fails, a network with several heads ends in an error of the loss function."""
    model = network("googlenet", aux_logits=True)
    with pytest.raises(
        UserError, match=r"one tensor of logits \[B, K\] is wanted, a tuple came \(GoogLeNetOutputs\)"
    ):
        train(
            model,
            [(torch.zeros(2, *SHAPE), torch.tensor([0, 1]))],
            optimizer=torch.optim.SGD(model.parameters(), 0.01),
        )
