"""The networks are the papers' networks: their sizes, and what they say to input they cannot take."""

import pytest
import torch

from fedge.errors import UserError
from fedge.models import MODELS, build
from fedge.training.pruning import prune

SIZES = [  # name, classes, channels, image, parameters
    ("lenet", 10, 1, 28, 431_080),
    ("alexnet", 100, 3, 32, 2_495_396),
    ("resnet20", 100, 3, 32, 278_324),
    ("mobilenet_v2", 100, 3, 32, 2_412_212),
    ("squeezenet", 100, 3, 32, 781_156),
    ("resnet8", 10, 3, 32, 78_042),
    ("resnet56", 10, 3, 32, 855_770),
    ("resnet110", 10, 3, 32, 1_730_714),
    ("vgg11", 10, 3, 32, 9_228_362),
    ("vgg16", 10, 3, 32, 14_724_042),
    ("har_cnn", 6, 9, (1, 128), 38_118),
]


@pytest.mark.parametrize(("name", "classes", "channels", "image", "parameters"), SIZES)
def test_parameter_counts(name, classes, channels, image, parameters):
    """Another count is another network, and no published figure could be compared with ours."""
    model = build(name, num_classes=classes, in_channels=channels, image_size=image)
    assert sum(p.numel() for p in model.parameters()) == parameters


@pytest.mark.parametrize("name", MODELS)
def test_logits_have_one_column_per_class(name):
    """A head of the wrong width, or a layer that cannot run backwards, would break every method on this network."""
    channels, image = (9, (1, 128)) if name == "har_cnn" else (3, (32, 32))
    model = build(name, num_classes=7, in_channels=channels, image_size=image)
    logits_BK = model(torch.zeros(2, channels, *image))
    assert logits_BK.shape == (2, 7)
    logits_BK.sum().backward()
    assert all(p.grad is not None for p in model.parameters())


@pytest.mark.parametrize("name", MODELS)
def test_half_the_width_is_a_quarter_of_the_network(name):
    """Breaks if a layer of a narrower network keeps its published width, or no longer fits the one before it."""
    channels, image = (9, (1, 128)) if name == "har_cnn" else (3, (32, 32))
    shape = {"num_classes": 7, "in_channels": channels, "image_size": image}
    half, whole = build(name, **shape, width=0.5), build(name, **shape)
    counts = [sum(p.numel() for p in model.parameters()) for model in (half, whole)]
    assert 0.24 < counts[0] / counts[1] < 0.29
    assert half(torch.zeros(2, channels, *image)).shape == (2, 7)
    prune(half, 0.3, example_input=torch.zeros(1, channels, *image))
    assert half(torch.zeros(2, channels, *image)).shape == (2, 7)
    thin = build(name, **shape, width=0.001)
    assert thin(torch.zeros(2, channels, *image)).shape == (2, 7)


def test_no_width_is_refused():
    """Breaks if a network without channels fails in torch."""
    with pytest.raises(UserError, match="width is 0; it must be above 0"):
        build("lenet", num_classes=3, in_channels=1, image_size=28, width=0)


def test_lenet_takes_small_digits():
    """The embedded digits are 1x16x16; LeNet must take them, for the first scenario a user runs does."""
    model = build("lenet", num_classes=10, in_channels=1, image_size=16)
    assert model(torch.zeros(3, 1, 16, 16)).shape == (3, 10)


@pytest.mark.parametrize(
    ("name", "image"),
    [
        ("lenet", 15),
        ("vgg16", 31),
        ("squeezenet", 7),
        ("alexnet", 28),
        ("har_cnn", (8, 8)),
        ("lenet", (28, 8)),
    ],
)
def test_small_image_is_refused(name, image):
    """Without the check a pooling layer would fail deep inside torch, and the user would not know why."""
    with pytest.raises(UserError, match=name):
        build(name, num_classes=10, in_channels=1, image_size=image)


@pytest.mark.parametrize(
    ("name", "least"), [("lenet", 16), ("vgg16", 32), ("squeezenet", 8), ("alexnet", 29)]
)
def test_least_image_works(name, least):
    """The limit that the message names must itself be allowed and run."""
    model = build(name, num_classes=10, in_channels=1, image_size=least)
    assert model.eval()(torch.zeros(1, 1, least, least)).shape == (1, 10)


def test_unknown_name_is_refused_with_the_nearest():
    """A misspelt model must be a line that helps."""
    with pytest.raises(UserError, match="did you mean 'resnet20'"):
        build("resnet-20", num_classes=10, in_channels=3, image_size=32)


def test_no_classes_are_refused():
    """A head with no column would train without an error and learn nothing."""
    with pytest.raises(UserError, match="num_classes"):
        build("lenet", num_classes=0, in_channels=1, image_size=28)


def test_initial_weights_are_a_function_of_the_seed(monkeypatch):
    """Two hosts must build the same factory model, and building must not disturb the caller's randomness, not even
    that of an accelerator, which torch.manual_seed seeds as well."""
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    monkeypatch.setattr(torch, "manual_seed", None)
    first, again, other = (
        build("resnet8", num_classes=10, in_channels=3, image_size=32, seed=s).stem.conv.weight
        for s in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(torch.rand(3), expected)
