"""`training.source`: a device's head trained on features, its own or shipped ones; its price, its changes."""

import pytest
import torch

from fedge.device.memory.demand import peak_bytes
from fedge.device.memory.peak import peak_training_memory
from fedge.device.state import DeviceState
from fedge.errors import UserError
from fedge.models import build
from fedge.scenario.training import Training
from fedge.training.features import Trunk
from fedge.training.macs import count_macs
from fedge.training.update.what import freeze

PLAIN = (
    'training.instance_filter={kind="none"}',
    "training.error_maps.keep=1.0",
    "schedule={kind='train_only'}",
)
HEAD = (*PLAIN, "training.what=head", "training.epochs=3")
OWN, GENERATED, REPLAY = (f"training.source={source}" for source in ("own", "generated", "replay"))


def trained(device):
    device.train()
    return device


def weights(device) -> dict[str, torch.Tensor]:
    return device.model.state_dict()


def test_own_features_train_the_same_head(opened):
    """Would break if cached features, their order or their labels were others than the rows'. Not bit for bit: the
    trunk computes them in other batches."""
    cached, whole = (trained(opened(*HEAD, *more)) for more in ((OWN,), ()))
    for name, tensor in weights(cached).items():
        assert torch.allclose(tensor, weights(whole)[name], atol=1e-5), name
    assert weights(cached)["classifier.weight"].ne(weights(opened())["classifier.weight"]).any()


def test_the_trunk_runs_once_a_round(opened):
    """Would break if the trunk were counted per epoch, or not at all."""
    device = trained(opened(*HEAD, OWN))
    report, trunk = device.report(), Trunk.of(device.model, device.prepared.input_shape)
    step = count_macs(trunk.head, (trunk.width,)).training
    samples = len(device.shard)
    assert report.macs_done == samples * (trunk.macs + 3 * step)
    assert report.samples_seen == 3 * samples
    assert report.word("what") == "head"


@pytest.mark.parametrize("source", [GENERATED, REPLAY])
@pytest.mark.parametrize("classes", ["training.answers=own", "training.prior=em"])
def test_drawn_features_cost_no_forward_pass(opened, source, classes):
    """Would break if the trunk ran or changed, or if nothing were trained."""
    device = trained(opened(*HEAD, source, classes))
    report, trunk = device.report(), Trunk.of(device.model, device.prepared.input_shape)
    step = count_macs(trunk.head, (trunk.width,)).training
    assert report.macs_done - device._round.prior_macs == 3 * len(device.shard) * step
    fresh = weights(opened())
    changed = {name for name, tensor in weights(device).items() if tensor.ne(fresh[name]).any()}
    assert changed == {f"{trunk.name}.weight", f"{trunk.name}.bias"}


def test_of_a_cut_trunk_the_shipped_features_are_cut(opened):
    """Would break if a pruned network were given features of other channels than it has."""
    device = opened(*HEAD, GENERATED, "training.answers=own", "training.pruning.level=0.5")
    device.prune()
    width = Trunk.of(device.model, device.prepared.input_shape).width
    assert width < 500
    trained(device)
    assert device.report().parameters < device.report().parameters_dense


@pytest.mark.parametrize("batch_size", [32, 128])
def test_memory_is_what_the_features_take(batch_size):
    """Would break if the estimate were of the whole network's step, or left out what is kept."""
    shape = (3, 32, 32)
    model = build("resnet8", num_classes=100, in_channels=3, image_size=shape[1:])
    whole = peak_training_memory(
        lambda: model, batch_size=batch_size, input_shape=shape, optimizer="momentum"
    )
    freeze(model, "head", shape)
    how = {"batch_size": batch_size, "input_shape": shape}

    def peak(source: str | None, samples: int = 500) -> int:
        training = Training().model_copy(update={"source": source})
        return peak_bytes(model, training, **how, samples=samples)

    assert all(15 * peak(source) < whole for source in ("own", "generated", "replay"))
    assert peak("own", 900) - peak("own") == 400 * (4 * 64 + 8)
    assert peak("replay") - peak("generated") == 4 * 64 * (100 * 20 - (100 + 2 * 64))
    assert peak("own") < peak(None) < whole


def test_the_head_is_trained_anew_where_the_prior_moved(opened):
    """Would break if `moved` were ignored: where nothing changes, the second round trains nothing."""
    chosen = (*HEAD, GENERATED, "training.prior=em", "training.adaptation.moved=0.2")
    device = trained(opened(*chosen))
    report = device.report()
    state = device.state_after(report, None)
    assert report.samples_seen and set(state.prior) == {"estimate", "trained"}

    def second(prior):
        later = opened(*chosen, round=2)
        again = type(later)(later.location, later.plan, DeviceState(1, model=state.model, prior=prior))
        return trained(again).report()

    assert second(state.prior).samples_seen == 0
    elsewhere_C = torch.zeros(10, dtype=torch.float64)
    elsewhere_C[int(state.prior["estimate"].argmin())] = 1.0
    assert second(state.prior | {"trained": elsewhere_C}).samples_seen == report.samples_seen


def test_methods_of_the_whole_network_are_refused(opened):
    """Would break if a program's transform were quietly left out."""
    with pytest.raises(UserError, match="features go through the head alone"):
        opened(*HEAD, OWN).train(transform=lambda x_BCHW, generator: x_BCHW)
