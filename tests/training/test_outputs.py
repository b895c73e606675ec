"""Outputs, inputs and targets that are not what is meant are refused by name."""

import pytest
import torch
from torch import Tensor, nn

from fedge.device.memory import peak_training_memory
from fedge.errors import UserError
from fedge.training.loop import evaluate, train
from fedge.training.macs import count_macs
from fedge.training.outputs import finite_weights, logits_of


class Returns(nn.Module):
    """Whatever `form` makes of logits [B, 3]."""

    def __init__(self, form) -> None:
        super().__init__()
        self.layer, self.form = nn.Linear(4, 3), form

    def forward(self, x: Tensor) -> object:
        return self.form(self.layer(x.flatten(1)))


NO_TENSOR = {
    "a tuple came": lambda logits: (logits, logits),
    "a dict came": lambda logits: {"out": logits},
    "a list came": lambda logits: [logits],
    "returns None": lambda logits: None,
}
NO_LOGITS = {
    r"a tensor \[6\] for 6 instances": lambda logits: logits[:, 0],
    r"\[6, 1\], a single logit": lambda logits: logits[:, :1],
    r"a tensor \[3, 6\] for 6 instances": lambda logits: logits.T,
    "numbers of type torch.int64": lambda logits: logits.long(),
}
X, Y = torch.randn(6, 1, 2, 2), torch.arange(6) % 3


def trained(model: nn.Module, x: Tensor = X, y: object = Y) -> None:
    train(model, [(x, y)], optimizer=torch.optim.SGD(model.parameters(), 0.1))


@pytest.mark.parametrize("text", [*NO_TENSOR, *NO_LOGITS])
def test_an_output_that_is_no_tensor_of_logits_is_one_line(text):
    """If this fails, a network with several heads ends in a TypeError of torch, or trains towards nothing."""
    model = Returns((NO_TENSOR | NO_LOGITS)[text])
    weights = model.layer.weight.detach().clone()
    for attempt in (
        lambda: trained(model),
        lambda: evaluate(model, [(X, Y)]),
        lambda: peak_training_memory(lambda: model, batch_size=6, input_shape=(1, 2, 2)),
    ):
        with pytest.raises(UserError, match=text) as raised:
            attempt()
        assert "one tensor of logits [B, K] is wanted" in str(raised.value)
        assert "\n" not in str(raised.value)
    if text in NO_TENSOR:
        with pytest.raises(UserError, match=text):
            count_macs(model, (1, 2, 2))
        if text != "returns None":  # a loop of one's own may do with it what it likes
            assert count_macs(model, (1, 2, 2), nested=True).training == 2 * 4 * 3
    assert torch.equal(model.layer.weight, weights)


@pytest.mark.parametrize(
    ("y", "text"),
    [
        (Y.float(), "of type torch.float32"),
        (Y[:, None], r"shape \[6, 1\]; \[6\] is wanted"),
        (Y[:4], r"shape \[4\]; \[6\] is wanted"),
        (Y + 1, "targets are 1 to 3; 0 to 2 is wanted"),
        (Y - 1, "targets are -1 to 1"),
        (Y.bool(), "of type torch.bool"),
        ([0, 1, 2, 0, 1, 2], "targets are a list"),
    ],
)
def test_targets_that_are_no_class_numbers_are_refused(y, text):
    """If this fails, a regression trains as a classification, or labels from 1 end in an IndexError."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    weights = model[1].weight.detach().clone()
    for attempt in (lambda: trained(model, X, y), lambda: evaluate(model, [(X, y)])):
        with pytest.raises(UserError, match=text):
            attempt()
    assert torch.equal(model[1].weight, weights)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_inputs_that_are_no_numbers_are_refused_before_they_train(bad):
    """If this fails, one broken picture makes every weight nan, and the advice is about the learning rate."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    x = X.clone()
    x[2, 0, 1, 1] = bad
    with pytest.raises(UserError, match="1 of 6 instances of a mini-batch hold nan or infinity"):
        trained(model, x)
    assert finite_weights(model)
    with pytest.raises(UserError, match="1 of 6"):
        evaluate(model, [(x, Y)])
    with pytest.raises(UserError, match=r"of type torch.float64; torch.float32 is wanted"):
        trained(model, X.double())


def test_nan_is_no_right_answer():
    """If this fails, a diverged network is right about every instance of class 0."""
    logits = torch.tensor(
        [[2.0, 1, 0], [torch.nan, 1, 0], [0, torch.nan, 3], [torch.inf, 0, 0], [-torch.inf, 1, 0]]
    )
    model = nn.Flatten()
    x = torch.zeros(5, 3)
    model.register_forward_hook(lambda *_: logits)
    assert evaluate(model, [(x, torch.tensor([0, 0, 2, 0, 1]))]).correct == 2


def test_a_class_for_every_pixel():
    """If this fails, a network for segmentation cannot be trained, or its pixels are counted as pictures."""
    model = nn.Conv2d(1, 3, 1)
    x, y = torch.randn(4, 1, 5, 5), torch.randint(0, 3, (4, 5, 5))
    trained(model, x, y)
    found = evaluate(model, [(x, y)])
    assert found.count == 100
    assert found.correct == int((model(x).argmax(1) == y).sum())
    with pytest.raises(UserError, match=r"shape \[4\]; \[4, 5, 5\] is wanted"):
        trained(model, x, y[:, 0, 0])


def test_weights_are_looked_at_after_the_last_step():
    """If this fails, a network that the last step destroyed passes for sound: its loss is of before that step."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.BatchNorm1d(3))
    trained(model)
    assert finite_weights(model)
    model[1].weight.data[0, 0] = torch.inf
    assert not finite_weights(model)
    model[1].weight.data.zero_()
    model[2].running_var[1] = torch.nan
    assert not finite_weights(model)


def test_logits_pass_unchanged():
    """If this fails, checking an output copies it."""
    logits = torch.zeros(6, 3)
    assert logits_of(logits, 6) is logits
