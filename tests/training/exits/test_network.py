"""Networks with exits: the trunk stands still, the cascade is what it says, and a cut is of trunk and exits alike."""

import copy

import pytest
import torch
from torch import nn

from fedge.errors import UserError
from fedge.models import build
from fedge.training.exits import ExitNetwork, ExitTask, with_exits
from fedge.training.loop import train
from fedge.training.pruning import Topology, prune
from fedge.training.task import Classes
from fedge.training.update.what import training_mode

SHAPE = (3, 16, 16)


def resnet(seed: int = 0, channels: int = 8) -> ExitNetwork:
    """ResNet-8 for ten classes, narrow."""
    trunk = build("resnet8", num_classes=10, in_channels=3, image_size=16, seed=seed, width=0.5)
    return with_exits(trunk, SHAPE, 10, channels=channels, seed=seed)


def batches(count: int = 3, size: int = 8) -> list[tuple[torch.Tensor, torch.Tensor]]:
    generator = torch.Generator().manual_seed(5)
    return [
        (torch.randn(size, *SHAPE, generator=generator), torch.randint(0, 10, (size,), generator=generator))
        for _ in range(count)
    ]


@pytest.mark.parametrize("whole", [True, False])
def test_a_frozen_trunk_does_not_move_by_a_bit(whole: bool) -> None:
    """Would break if weights, norms' statistics or counters of the trunk moved while its exits are trained."""
    model = resnet()
    model.freeze_trunk()
    model.whole = whole
    trunk, exits = copy.deepcopy(model.trunk.state_dict()), copy.deepcopy(model.exits.state_dict())
    optimizer = torch.optim.SGD(model.exits.parameters(), lr=0.1, momentum=0.9)
    stats = train(model, batches(), optimizer=optimizer, task=ExitTask(Classes(), whole=whole))
    assert all(torch.equal(value, model.trunk.state_dict()[name]) for name, value in trunk.items())
    moved = [name for name, value in exits.items() if not torch.equal(value, model.exits.state_dict()[name])]
    assert set(moved) == set(exits) and stats.samples_seen == 24


def test_dropout_of_a_frozen_trunk_is_off_and_of_a_thawed_one_on() -> None:
    """Would break if a frozen trunk gave its exits other maps in training than it gives them when they answer."""
    trunk = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.Dropout(0.5), nn.Conv2d(4, 4, 3), nn.Flatten(), nn.LazyLinear(10)
    )
    trunk(torch.zeros(1, *SHAPE))
    model = with_exits(trunk, SHAPE, 10, where=["1"], channels=4)
    model.freeze_trunk()
    training_mode(model)
    assert not trunk[1].training and model.training and model.exits[0].features.norm.training
    model.thaw_trunk()
    training_mode(model)
    assert trunk[1].training


def test_the_cascade_at_its_limits() -> None:
    """Would break if tau = 0 did not stop at the first exit, or tau > 1 changed the trunk's answer by a bit."""
    model, (x_BCHW, _) = resnet().eval(), batches()[0]
    with torch.no_grad():
        last_BC = model.trunk(x_BCHW)
        assert torch.equal(model(x_BCHW), last_BC)  # as it is shipped: nobody leaves
        with model.telling_all():
            out_BCE = model(x_BCHW)
        assert out_BCE.shape == (8, 10, 3) and torch.equal(out_BCE[:, :, 2], last_BC)
        model.rule.thresholds_K.fill_(0.0)
        assert torch.equal(model(x_BCHW), out_BCE[:, :, 0])
        model.rule.thresholds_K.copy_(torch.tensor([1.01, 0.0]))
        assert torch.equal(model(x_BCHW), out_BCE[:, :, 1])


def test_what_lies_behind_the_exit_does_not_run() -> None:
    """Would break if leaving saved nothing but on paper: in `answer`, and in a training pass that needs no teacher."""
    model, (x_BCHW, _) = resnet(), batches()[0]
    ran: list[str] = []
    for name in ("stage2.0.body", "stage3", "head"):
        model.trunk.get_submodule(name).register_forward_hook(lambda *_, name=name: ran.append(name))
    model.eval().rule.thresholds_K.fill_(0.0)
    model.answer(x_BCHW[:1])
    assert ran == []
    model.rule.thresholds_K.fill_(2.0)
    model.answer(x_BCHW[:1])
    assert ran == ["stage2.0.body", "stage3", "head"]
    ran.clear()
    model.freeze_trunk()
    model.whole = False
    assert model.train()(x_BCHW).shape == (8, 10, 2) and ran == ["stage2.0.body"]


def test_the_prior_moves_the_last_exit_alone() -> None:
    """Would break if a person's prior were added to exits that have learnt it from the samples."""
    model, (x_BCHW, _) = resnet().eval(), batches()[0]
    with torch.no_grad(), model.telling_all():
        before_BCE = model(x_BCHW)
        model.rule.log_shift_C[3] = 2.0
        moved_BCE = model(x_BCHW) - before_BCE
    assert not moved_BCE[:, :, :2].any() and not moved_BCE[:, :3, 2].any()
    assert torch.allclose(moved_BCE[:, 3, 2], torch.tensor(2.0))


def test_how_sure_an_exit_is_among_some_classes() -> None:
    """Would break if classes that are no answers took probability: among two, equal logits are half and half."""
    model = resnet()
    logits_BC = torch.zeros(1, 10)
    assert float(model.sure(logits_BC)) == pytest.approx(0.1)
    with model.answering_among((2, 7)):
        assert float(model.sure(logits_BC)) == pytest.approx(0.5)
    assert model.among is None


def test_exits_are_cut_with_the_trunk() -> None:
    """Would break if exits were no part of what pruning couples: the record builds the cut network again, exits too."""
    model, (x_BCHW, y_B) = resnet(channels=32).eval(), batches()[0]
    task = ExitTask(Classes(), trains_last=True)
    with model.telling_all():
        topology = prune(
            model, 0.4, example_input=x_BCHW[:1], criterion="taylor", batches=[(x_BCHW, y_B)], task=task
        )
        out_BCE = model(x_BCHW)
    second, trunk = model.exits[1].features.conv, model.trunk
    assert second.in_channels == trunk.stage2[0].body[1].conv.out_channels < 16  # the map that the exit reads
    assert 2 <= second.out_channels < 32  # the exit's own channels
    again = Topology.from_json(topology.to_json()).rebuild(lambda: resnet(channels=32)).eval()
    again.load_state_dict(model.state_dict())
    with again.telling_all(), torch.no_grad():
        assert torch.equal(again(x_BCHW), out_BCE)


def test_exits_are_a_function_of_the_seed() -> None:
    """Would break if building a network a second time on a device gave other shapes or first weights."""
    torch.manual_seed(1)
    first = resnet().exits.state_dict()
    torch.manual_seed(2)
    assert all(torch.equal(value, first[name]) for name, value in resnet().exits.state_dict().items())
    assert not torch.equal(resnet(1).exits[0].features.conv.weight, first["0.features.conv.weight"])


@pytest.mark.parametrize(
    ("name", "shape", "where"),
    [
        ("resnet8", (3, 32, 32), ("stage1.0", "stage2.0")),
        ("resnet20", (3, 32, 32), ("stage1.1", "stage2.0", "stage3.0")),
        ("lenet", (1, 28, 28), ("pool1", "pool2")),
        ("vgg11", (3, 32, 32), ("features.3", "features.6", "features.9")),
        ("mobilenet_v2", (3, 32, 32), ("blocks.3", "blocks.6", "blocks.13")),
        ("har_cnn", (9, 1, 128), ("features.1", "features.3")),
    ],
)
def test_the_families_places(name: str, shape: tuple[int, int, int], where: tuple[str, ...]) -> None:
    """Would break if an exit stood behind the last product before the head, or crowded where it saves nothing."""
    trunk = build(name, num_classes=6, in_channels=shape[0], image_size=shape[1:])
    model = with_exits(trunk, shape, 6)
    assert model.where == where
    assert model.train()(torch.zeros(2, *shape)).shape == (2, 6, len(where) + 1)


def test_places_of_ones_own() -> None:
    """Would break if named layers were taken in the order of their names, or features [B, D] had no exit."""
    trunk = nn.Sequential(
        nn.Conv2d(3, 4, 3),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4, 5),
        nn.ReLU(),
        nn.Linear(5, 10),
    )
    model = with_exits(trunk, SHAPE, 10, where=["4", "0"], channels=4)
    assert model.where == ("0", "4")
    assert model.exits[1].classifier.in_features == 5
    assert model(torch.zeros(2, *SHAPE)).shape == (2, 10, 3)


@pytest.mark.parametrize(
    ("where", "said"), [((), "name the layers"), (("heat",), "unknown"), (("9",), "never runs")]
)
def test_wrong_places_are_one_line(where: tuple[str, ...], said: str) -> None:
    """Would break if a network of one's own got exits nobody asked for, or a wrong name a traceback."""

    class Net(nn.Sequential):
        def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
            logits_BC: torch.Tensor = self[2](self[1](self[0](x_BCHW)))
            return logits_BC

    trunk = Net(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4 * 14 * 14, 10))
    trunk.add_module("9", nn.ReLU())
    with pytest.raises(UserError, match=said) as refused:
        with_exits(trunk, SHAPE, 10, where=where)
    assert "\n" not in str(refused.value)


def test_one_sample_is_answered_at_a_time() -> None:
    """Would break if a batch were answered by where its first sample leaves."""
    with pytest.raises(UserError, match="one sample"):
        resnet().eval().answer(torch.zeros(2, *SHAPE))
