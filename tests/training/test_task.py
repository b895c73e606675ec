"""What is asked of a network: losses per sample, right decisions, errors; and all that takes them from the task."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedge.device.memory import peak_training_memory
from fedge.errors import UserError
from fedge.training.instance_filter import make_filter
from fedge.training.instance_filter.base import MiniBatch
from fedge.training.loop import evaluate, train
from fedge.training.pruning import prune
from fedge.training.pruning.criteria import Evidence, taylor
from fedge.training.task import Classes, Labels, Numbers, Task, WithOwnLoss, with_loss

X = torch.randn(6, 1, 4, 4, generator=torch.Generator().manual_seed(0))
OUT_BK = torch.tensor([[2.0, -1.0], [0.5, 0.25], [-3.0, 1.0], [0.0, -0.5], [1.0, 1.0], [-1.0, -2.0]])
LABELS_BK = torch.tensor([[1, 0], [1, 0], [1, 1], [0, 0], [1, 1], [0, 1]], dtype=torch.uint8)
NUMBERS_BK = torch.tensor([[1.0, -1.0], [0.5, 0.5], [0.0, 1.0], [0.0, 0.0], [3.0, 1.0], [-1.0, -2.5]])


def network(outputs: int = 2) -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Conv2d(1, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 4, 3), nn.Flatten(), nn.Linear(16, outputs)
    )


def sgd(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), 0.1)


def test_losses_by_hand():
    """Breaks if a sample's loss is a sum where PyTorch's own is a mean, or is mixed with its neighbour's."""
    for task, y in ((Labels(), LABELS_BK), (Numbers(), NUMBERS_BK), (Numbers(huber=0.5), NUMBERS_BK)):
        assert task.loss(OUT_BK, y).shape == (6,)
        alone = torch.stack([task.mean_loss(OUT_BK[i : i + 1], y[i : i + 1]) for i in range(6)])
        assert torch.allclose(task.loss(OUT_BK, y), alone)
    bce = nn.BCEWithLogitsLoss()(OUT_BK, LABELS_BK.float())
    assert Labels().mean_loss(OUT_BK, LABELS_BK).item() == pytest.approx(bce.item())
    first = math.log1p(math.exp(-2)) / 2 + math.log1p(math.exp(-1)) / 2
    assert Labels().loss(OUT_BK, LABELS_BK)[0].item() == pytest.approx(first)
    assert Numbers().loss(OUT_BK, NUMBERS_BK)[2].item() == pytest.approx(4.5)
    assert Numbers(huber=0.5).loss(OUT_BK, NUMBERS_BK)[2].item() == pytest.approx(0.5 * (3 - 0.25) / 2)


def test_right_and_wrong_by_hand():
    """Breaks if labels are judged together, if a number's tolerance is in another unit, or if NaN counts as right."""
    right = Labels().right(OUT_BK, LABELS_BK)
    assert right.tolist() == [
        [True, True],
        [True, False],
        [False, True],
        [True, True],
        [True, True],
        [True, False],
    ]
    near = Numbers(
        scale=(10.0, 1.0), tolerance=(10.0, 0.4)
    )  # off by 10, 0 | 0, .25 | 30, 0 | 0, .5 | 20, 0 | 0, .5
    assert near.right(OUT_BK, NUMBERS_BK).tolist() == [True, True, False, False, False, False]
    assert Numbers(scale=(10.0, 1.0)).right(OUT_BK, NUMBERS_BK).tolist() == [
        False,
        True,
        False,
        True,
        False,
        True,
    ]
    assert near.error(OUT_BK, NUMBERS_BK).tolist() == [5.0, 0.125, 15.0, 0.25, 10.0, 0.25]
    nothing = torch.full_like(OUT_BK, math.nan)
    for task, y in ((Labels(), LABELS_BK), (near, NUMBERS_BK), (Classes(), torch.zeros(6, dtype=torch.long))):
        assert not task.right(nothing, y).any()


def test_classes_are_what_they_were():
    """Breaks if the default task changes a bit of a network's training."""
    y = torch.arange(6) % 2
    ours, plain = network(), network()
    stats = train(ours, [(X, y)] * 3, optimizer=sgd(ours))
    optimizer, losses = sgd(plain), []
    for _ in range(3):
        optimizer.zero_grad()
        loss = F.cross_entropy(plain(X), y)
        loss.backward()
        optimizer.step()
        losses.append(loss.item() * 6)
    assert stats.loss_sum == sum(losses)
    assert all(torch.equal(*pair) for pair in zip(ours.parameters(), plain.parameters(), strict=True))


def test_label_smoothing_is_pytorchs():
    """Breaks if smoothing is left out where a filter asks for losses one by one."""
    y, task = torch.arange(6) % 2, Classes(label_smoothing=0.2)
    wanted = F.cross_entropy(OUT_BK, y, label_smoothing=0.2, reduction="none")
    assert torch.equal(task.loss(OUT_BK, y), wanted)
    assert task.mean_loss(OUT_BK, y).item() == pytest.approx(wanted.mean().item())


TASKS = [(Labels(), LABELS_BK), (Numbers(scale=(2.0, 3.0)), NUMBERS_BK), (Numbers(huber=1.0), NUMBERS_BK)]


@pytest.mark.parametrize(("task", "y"), TASKS)
def test_a_step_goes_down_the_tasks_own_loss(task: Task, y: Tensor):
    """Breaks if the loop trains by another loss than the task's, or evaluation forgets its decisions and errors."""
    ours, plain = network(), network()
    first = train(ours, [(X, y)], optimizer=sgd(ours), task=task)
    optimizer = sgd(plain)
    loss = task.loss(plain(X), y).mean()
    loss.backward()
    optimizer.step()
    assert first.loss == pytest.approx(loss.item())
    assert all(torch.allclose(*pair) for pair in zip(ours.parameters(), plain.parameters(), strict=True))
    found = evaluate(ours, [(X[:4], y[:4]), (X[4:], y[4:])], task=task)
    with torch.no_grad():
        out = ours.eval()(X)
    assert torch.equal(found.right_N, task.right(out, y))
    assert (found.count, found.decisions) == (6, 2 if task.name == "labels" else 1)
    assert found.accuracy == pytest.approx(task.right(out, y).float().mean().item())
    if task.name == "numbers":
        assert found.error_sum == pytest.approx(task.error(out, y).sum().item())
        assert found.error == pytest.approx(found.error_sum / 6)
    else:
        assert found.error_N is None and math.isnan(found.error)


@pytest.mark.parametrize(("task", "y"), TASKS)
@pytest.mark.parametrize("kind", ["early", "ohem", "selective_backprop", "infobatch", "random"])
def test_filters_choose_and_learn_by_the_tasks_losses(task: Task, y: Tensor, kind: str):
    """Breaks if a filter asks the network for the cross-entropy of what are no classes."""
    model = network()
    wanted = task.loss(model(X), y).detach()
    assert torch.allclose(MiniBatch(X, y, model, task).look(torch.tensor([4, 1])), wanted[[4, 1]])
    instance_filter = make_filter(kind, 0.5, in_channels=1, image_size=(4, 4))
    stats = train(model, [(X, y)] * 4, optimizer=sgd(model), instance_filter=instance_filter, task=task)
    assert stats.samples_seen == 24 and stats.samples_kept <= 24
    if kind == "ohem":
        assert stats.samples_kept == 12


@pytest.mark.parametrize(("task", "y"), TASKS)
def test_taylor_ranks_by_the_tasks_loss(task: Task, y: Tensor):
    """Breaks if pruning ranks channels by the slope of another loss than the one that is trained by."""
    topology = prune(network(), 0.3, example_input=X[:1], criterion="taylor", batches=[(X, y)], task=task)
    assert topology is not None
    seen: list[Tensor] = []

    def doubled(evidence: Evidence) -> Tensor:
        seen.append(taylor(evidence))
        return seen[-1]

    prune(network(), 0.3, example_input=X[:1], criterion=doubled, batches=[(X, y)], task=task)
    twice = WithOwnLoss(task, lambda out, y: 2 * task.loss(out, y))
    prune(network(), 0.3, example_input=X[:1], criterion=doubled, batches=[(X, y)], task=twice)
    assert torch.allclose(seen[-1], 4 * seen[0])


@pytest.mark.parametrize("task", [Labels(), Numbers(), Numbers(huber=1.0)])
def test_memory_is_estimated_with_the_tasks_loss(task: Task):
    """Breaks if a network of one output cannot be fitted to a device, since classes want two."""
    for outputs in (1, 3):
        assert (
            peak_training_memory(lambda n=outputs: network(n), batch_size=4, input_shape=(1, 4, 4), task=task)
            > 0
        )


@pytest.mark.parametrize(
    ("task", "y", "text"),
    [
        (Labels(), LABELS_BK[:, :1], r"shape \[6, 1\]; \[6, 2\] is wanted"),
        (Labels(), 2 * LABELS_BK, "targets hold 2; 0 and 1 are wanted"),
        (Labels(), LABELS_BK.tolist(), "targets are a list"),
        (Numbers(), LABELS_BK, "targets are of type torch.uint8"),
        (Numbers(), NUMBERS_BK[:, 0], r"shape \[6\]; \[6, 2\] is wanted"),
        (Numbers(), NUMBERS_BK / 0, "targets hold nan or infinity"),
        (Classes(), NUMBERS_BK, "class numbers of type torch.int64 are wanted"),
    ],
)
def test_targets_of_another_task_are_one_line(task: Task, y: object, text: str):
    """Breaks if numbers are broadcast against outputs of another shape, which trains towards nonsense."""
    model = network()
    for attempt in (
        lambda: train(model, [(X, y)], optimizer=sgd(model), task=task),
        lambda: evaluate(model, [(X, y)], task=task),
    ):
        with pytest.raises(UserError, match=text) as raised:
            attempt()
        assert "\n" not in str(raised.value)


def test_outputs_of_another_task_are_one_line():
    """Breaks if a network that gives a vector for a column, or a map for a row, is trained as if it did not."""
    flat = nn.Sequential(network(1), nn.Flatten(0))
    for task, y in ((Numbers(), NUMBERS_BK[:, 0]), (Labels(), LABELS_BK[:, 0])):
        with pytest.raises(
            UserError, match=r"a tensor \[6\] of float32 for 6 samples; floats \[6, K\] are wanted"
        ):
            train(flat, [(X, y)], optimizer=sgd(flat), task=task)
    with pytest.raises(UserError, match="classes is given, and the task is 'labels'"):
        evaluate(network(), [(X, LABELS_BK)], classes=[0], task=Labels())
    with pytest.raises(UserError, match="the task has 3 numbers and the network 2 outputs"):
        evaluate(network(), [(X, NUMBERS_BK)], task=Numbers(scale=(1.0, 1.0, 1.0)))


def test_a_loss_of_ones_own():
    """Breaks if a function of the user's does not train, or one that gives a mean passes for one that gives losses."""
    y = torch.arange(6) % 2

    def focal(out_BK: Tensor, y_B: Tensor) -> Tensor:
        loss_B = F.cross_entropy(out_BK, y_B, reduction="none")
        return (1 - (-loss_B).exp()) ** 2 * loss_B

    model = network()
    wanted = focal(model(X), y).mean().item()
    task = WithOwnLoss(Classes(), focal)
    assert train(model, [(X, y)], optimizer=sgd(model), task=task).loss == pytest.approx(wanted)
    assert evaluate(model, [(X, y)], task=task).correct == evaluate(model, [(X, y)]).correct
    for own, text in (
        (lambda out, y: F.cross_entropy(out, y), r"loss returned \[\] for 6 samples; \[6\] is wanted"),
        (lambda out, y: 1.0, "loss returned a float"),
    ):
        with pytest.raises(UserError, match=text):
            train(model, [(X, y)], optimizer=sgd(model), task=WithOwnLoss(Classes(), own))


def test_a_loss_that_does_not_fit_is_refused():
    """Breaks if squared errors of class numbers are trained on."""
    assert with_loss(Classes(), "cross_entropy", label_smoothing=0.1) == Classes(0.1)
    assert with_loss(Numbers(scale=(2.0,)), "huber", delta=0.5) == Numbers(scale=(2.0,), huber=0.5)
    assert with_loss(Numbers(huber=1.0), "squared") == Numbers()
    for task, kind in ((Classes(), "squared"), (Labels(), "cross_entropy"), (Numbers(), "binary")):
        with pytest.raises(
            UserError, match=f"training.loss.kind is '{kind}', and the data's task is '{task.name}'"
        ):
            with_loss(task, kind)


def test_a_class_per_pixel_is_a_loss_per_picture():
    """Breaks if pictures with a class for each pixel have no loss of their own, or it is another than their mean."""
    out, y = torch.randn(4, 3, 5, 5), torch.randint(0, 3, (4, 5, 5))
    assert Classes().loss(out, y).shape == (4,)
    assert Classes().loss(out, y).mean().item() == pytest.approx(F.cross_entropy(out, y).item(), rel=1e-5)
    assert Classes().blank(out).shape == (4, 5, 5)
