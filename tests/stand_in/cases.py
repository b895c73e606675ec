"""All that trains, ranks, prunes or judges, on a stand-in for a GPU: nothing left on the CPU, and the CPU's numbers.

pytest finds these by test_stand_in.py, which runs them in a process of their own.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fedge.data.augment import crop_flip
from fedge.data.shard import Shard
from fedge.device.memory.peak import peak_training_memory
from fedge.errors import UserError
from fedge.models import build
from fedge.prepare import prepare
from fedge.scenario.load import load_scenario
from fedge.training import torch_device
from fedge.training.error_map import ErrorMapPruner
from fedge.training.instance_filter.base import Filter, MiniBatch, Selection
from fedge.training.instance_filter.filters import FILTERS, make_filter
from fedge.training.loop import evaluate, train
from fedge.training.macs import count_macs
from fedge.training.memory_format import maps_per_weight
from fedge.training.pruning import prune
from fedge.training.pruning.criteria import CRITERIA, Evidence
from fedge.training.pruning.level_search import PeakMemory, StepMacs, search_level
from fedge.training.quantization import Quantization
from fedge.training.task import Labels, Numbers
from fedge.training.torch_device import CPU, on_cpu
from tests.stand_in.device import StandIn, register
from tests.training.networks import DenseNetLike

DEVICE = register()
SHAPE = (3, 16, 16)


@pytest.fixture(autouse=True)
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """`engine.device = "cuda"` is the stand-in."""
    monkeypatch.setattr(torch_device, "_gpu", lambda: DEVICE)


@pytest.fixture(autouse=True)
def settings() -> Iterator[None]:
    """torch's settings as they were, for the next case."""
    with torch_device.settings_kept():
        yield


def batches(count: int = 4, size: int = 8) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    x_NCHW = torch.randn(count * size - 1, *SHAPE, generator=generator)  # the last is short
    y_N = torch.randint(0, 4, (len(x_NCHW),), generator=generator)
    return list(zip(x_NCHW.split(size), y_N.split(size), strict=True))


def network(device: torch.device, name: str = "resnet8") -> nn.Module:
    if name == "dense":
        torch.manual_seed(0)
        return DenseNetLike().to(device)
    return build(name, num_classes=4, in_channels=3, image_size=16, seed=5).to(device)


def same_state(here: nn.Module, there: nn.Module) -> None:
    """Equal weights and statistics, of a network that never left the device."""
    for (name, mine), other in zip(there.state_dict().items(), here.state_dict().values(), strict=True):
        assert isinstance(mine, StandIn), f"{name} is on {mine.device}"
        assert torch.equal(mine.cpu(), other), name


def on_both(run: Callable[[torch.device], tuple[nn.Module, Any]]) -> Any:
    """What `run` brings on the CPU, equal to what it brings on the stand-in."""
    (here, expected), (there, got) = run(CPU), run(DEVICE)
    same_state(here, there)
    assert got == expected
    return expected


MIXED = {
    "sum": lambda x, y: x + y,
    "product from the other side": lambda x, y: y * x,
    "matrix product": lambda x, y: x @ y,
    "joined": lambda x, y: torch.cat([x, y]),
    "written into the CPU": lambda x, y: y.add_(x),
    "out": lambda x, y: torch.add(x, x, out=y),
    "index of a CPU tensor": lambda x, y: y[torch.tensor([0], device=DEVICE)],
    "values put by index": lambda x, y: x.index_put((torch.tensor([0, 1]),), y[:2]),
    "loss": lambda x, y: nn.functional.cross_entropy(x, torch.tensor([0, 1, 1])),
    "layer": lambda x, y: nn.Linear(3, 2)(x),
    "number that is none": lambda x, y: torch.cat([x.flatten(), torch.tensor([1.0])]),
    "array": lambda x, y: x.numpy(),
    "array by NumPy": lambda x, y: np.asarray(x),
    "draw": lambda x, y: torch.rand(3, device=DEVICE),
    "draw in place": lambda x, y: x.uniform_(),
    "draw by the CPU's generator": lambda x, y: torch.randperm(
        3, device=DEVICE, generator=torch.Generator().manual_seed(0)
    ),
}


@pytest.mark.parametrize("mixed", MIXED)
def test_the_stand_in_refuses_what_a_gpu_refuses(mixed: str) -> None:
    """Every other case here would pass whatever fedge left on the CPU."""
    x, y = torch.ones(3, 3).to(DEVICE), torch.ones(3, 3)
    with pytest.raises((RuntimeError, TypeError)):
        MIXED[mixed](x, y)


def test_the_stand_in_allows_what_a_gpu_allows() -> None:
    """Cases would fail where a GPU does not, and code be bent to please them."""
    x, y = torch.arange(9.0).view(3, 3).to(DEVICE), torch.arange(9.0).view(3, 3)
    assert torch.equal((x * torch.tensor(2.0)).cpu(), y * 2)
    assert torch.equal(x[torch.tensor([2, 0])].cpu(), y[[2, 0]])
    assert torch.equal(x[torch.tensor([True, False, True])].cpu(), y[[0, 2]])
    assert torch.equal(torch.zeros(3, 3).copy_(x), y)
    x[:, 1] = 0
    assert float(x.sum()) == float(y.sum()) - 12
    assert x.t().device == DEVICE and not x.t().is_contiguous()
    generator = torch.rand(3, generator=torch.Generator().manual_seed(0)).to(DEVICE)
    assert generator.device == DEVICE


def test_a_network_with_a_tensor_left_behind_is_told_in_one_line() -> None:
    """A user whose network makes a tensor on the CPU would get a traceback."""

    class Leaves(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(3 * 16 * 16, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(x.flatten(1) + torch.ones(x[0].numel()))

    model = Leaves().to(DEVICE)
    with pytest.raises(UserError, match="all tensors to be on the same device") as told:
        train(model, batches(), optimizer=torch.optim.SGD(model.parameters(), 0.1))
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("name", ["resnet8", "lenet", "mobilenet_v2", "dense"])
def test_plain_training_and_evaluation(name: str) -> None:
    """Batches, losses or answers would be left on the CPU."""

    def run(device: torch.device) -> tuple[nn.Module, Any]:
        model = network(device, name)
        stats = train(model, batches(), optimizer=torch.optim.SGD(model.parameters(), 0.05, momentum=0.9))
        judged = [evaluate(model, batches(), classes=classes) for classes in (None, [0, 2])]
        assert all(answers.right_N.device == CPU for answers in judged)
        return model, (stats, *((answers.right_N.tolist(), repr(answers.loss)) for answers in judged))

    on_both(run)


@pytest.mark.parametrize("optimizer", [torch.optim.Adam, torch.optim.AdamW])
def test_other_optimizers(optimizer: Any) -> None:
    """Their state would be made on the CPU."""

    def run(device: torch.device) -> tuple[nn.Module, Any]:
        model = network(device)
        return model, train(model, batches(), optimizer=optimizer(model.parameters(), lr=1e-3))

    on_both(run)


OPTIONS = [(kind, {}) for kind in FILTERS if kind != "none"] + [
    ("early", {"controller": "paper"}),
    ("early", {"distrust": 0.1, "network": "slim_lenet", "downsample": 1}),
]


@pytest.mark.parametrize(("kind", "options"), OPTIONS, ids=str)
def test_filters(kind: str, options: dict[str, Any]) -> None:
    """A filter's network, memory or draws would meet the other device; or its state, brought back from a file."""

    def run(device: torch.device) -> tuple[nn.Module, Any]:
        model = network(device)
        optimizer = torch.optim.SGD(model.parameters(), 0.05)
        how = {"in_channels": 3, "image_size": (16, 16), "seed": 3, **options}
        chosen, stats = make_filter(kind, 0.4, **how), []
        for _ in range(2):
            stats.append(train(model, batches(), optimizer=optimizer, instance_filter=chosen))
            kept = on_cpu(chosen.state_dict())
            assert all(type(tensor) is Tensor for tensor in kept.values())
            chosen = make_filter(kind, 0.4, **how)
            chosen.load_state_dict(kept)
        return model, (stats, repr({name: tensor.tolist() for name, tensor in kept.items()}))

    on_both(run)


class OnCpu(Filter):
    """A user's, that gives indices and weights of the CPU."""

    def select(self, batch: MiniBatch) -> Selection:
        return torch.arange(0, len(batch.y_B), 2), torch.linspace(1, 2, -(-len(batch.y_B) // 2))


def test_a_filter_of_ones_own_may_choose_on_the_cpu() -> None:
    """A filter that works on the CPU would not on a GPU."""

    def run(device: torch.device) -> tuple[nn.Module, Any]:
        model = network(device)
        optimizer = torch.optim.SGD(model.parameters(), 0.05)
        return model, train(model, batches(), optimizer=optimizer, instance_filter=OnCpu(0.5))

    on_both(run)


def own_score(weight_CIJL: Tensor, error_norm_C: Tensor, generator: torch.Generator) -> Tensor:
    """A user's, on the CPU."""
    return error_norm_C.cpu() * torch.rand(len(error_norm_C), generator=generator)


ERROR_MAPS = [("resnet8", score) for score in ("error", "paper", "product", "random", own_score)]


@pytest.mark.parametrize(
    ("name", "score"), [*ERROR_MAPS, ("mobilenet_v2", "error"), ("dense", "paper")], ids=str
)
def test_error_maps(name: str, score: Any) -> None:
    """Scores, kept channels or sums of the pruned backward pass would be on the CPU; it runs in another thread."""

    def run(device: torch.device) -> tuple[nn.Module, Any]:
        model = network(device, name)
        optimizer = torch.optim.SGD(model.parameters(), 0.05)
        pruner = ErrorMapPruner(model, 0.25, score, seed=2)
        stats = train(model, batches(2), optimizer=optimizer, error_maps=pruner)
        return model, (stats, pruner.cost, {layer: kept.tolist() for layer, kept in pruner.kept.items()})

    on_both(run)


@pytest.mark.parametrize("range_norm", [False, True])
def test_quantised_training(range_norm: bool) -> None:
    """Its random rounding would be drawn on the device."""

    def run(device: torch.device) -> tuple[nn.Module, Any]:
        model = network(device)
        optimizer = torch.optim.SGD(model.parameters(), 0.05)
        rounded = Quantization(model, range_norm=range_norm, seed=1)
        return model, train(model, batches(2), optimizer=optimizer, quantization=rounded)

    on_both(run)


def test_all_methods_together_on_a_pruned_network() -> None:
    """What works alone would not in a round."""

    def run(device: torch.device) -> tuple[nn.Module, Any]:
        model = network(device)
        topology = prune(model, 0.4, example_input=torch.zeros(1, *SHAPE), batches=batches())
        stats = train(
            model,
            batches(),
            optimizer=torch.optim.SGD(model.parameters(), 0.05, momentum=0.9),
            instance_filter=make_filter("early", 0.5, in_channels=3, image_size=(16, 16), seed=1),
            error_maps=ErrorMapPruner(model, 0.25),
            quantization=Quantization(model, seed=1),
        )
        return model, (topology.to_json(), stats)

    on_both(run)


def own_criterion(evidence: Evidence) -> Tensor:
    """A user's: it goes through the batches by itself, and scores where the network is."""
    device = next(evidence.model.parameters()).device
    score_U = torch.zeros(evidence.coupling.units, device=device)
    for x_BCHW, y_B in evidence.batches or ():
        score_U += (
            evidence.model(x_BCHW).detach().abs().mean() + torch.arange(len(score_U)).to(device) * y_B.sum()
        )
    return score_U


PRUNED = [("resnet8", criterion) for criterion in (*CRITERIA, own_criterion)]


@pytest.mark.parametrize(
    ("name", "criterion"), [*PRUNED, ("mobilenet_v2", "l1"), ("dense", "taylor")], ids=str
)
def test_pruning(name: str, criterion: Any) -> None:
    """Tracing, ranking, cutting, or checking the cut would mix devices."""

    def run(device: torch.device) -> tuple[nn.Module, Any]:
        model = network(device, name)
        data = (
            (batches() if device == CPU else iter(batches())) if criterion not in ("l1", "random") else None
        )
        topology = prune(model, 0.4, example_input=torch.zeros(1, *SHAPE), criterion=criterion, batches=data)
        return model, topology.to_json()

    on_both(run)


@pytest.mark.parametrize("target", ["memory", "macs"])
def test_searching_a_level(target: str) -> None:
    """A device that finds its level would not find it on a GPU, or another one."""

    def peak(model: nn.Module) -> int:
        return peak_training_memory(lambda: model, batch_size=8, input_shape=SHAPE, error_maps=0.5)

    def run(device: torch.device) -> tuple[nn.Module, Any]:
        model = network(device)
        most = 8 * count_macs(model, SHAPE).training // 2
        wanted = PeakMemory(peak(model) * 3 // 4, peak) if target == "memory" else StepMacs(most, 8, SHAPE)
        found = search_level(model, wanted, example_input=torch.zeros(1, *SHAPE), criterion=CRITERIA["l1"])
        return model, found

    assert 0 < on_both(run).level < 1


@pytest.mark.parametrize("name", ["resnet8", "dense"])
def test_what_is_counted_and_estimated_does_not_depend_on_the_device(name: str) -> None:
    """A report would tell the host's memory or arithmetic, not the simulated device's."""
    here, there = network(CPU, name), network(DEVICE, name)
    assert count_macs(there, SHAPE) == count_macs(here, SHAPE)
    assert maps_per_weight(there, 8, SHAPE) == maps_per_weight(here, 8, SHAPE)
    peaks = [
        peak_training_memory(lambda model=model: model, batch_size=8, input_shape=SHAPE, error_maps=0.5)
        for model in (here, there)
    ]
    assert peaks[0] == peaks[1]
    assert next(there.parameters()).device == DEVICE


def test_pictures_are_augmented_and_normalised_on_the_device(tmp_path: Path) -> None:
    """Batches would be made on the CPU, four bytes sent for each one stored, or other crops drawn."""
    scenario = load_scenario("quickstart", ["model.factory.epochs=1"])
    shard = Shard.open(Path(prepare(scenario).folder) / "shards", 0)
    how = {"seed": 4, "transform": crop_flip, "order": torch.channels_last}
    for here, there in zip(
        shard.batches("train", 16, **how), shard.batches("train", 16, device=DEVICE, **how), strict=True
    ):
        for mine, other in zip(there, here, strict=True):
            assert isinstance(mine, StandIn) and torch.equal(mine.cpu(), other)
            assert mine.stride() == other.stride()
    x_BCHW = torch.randint(0, 255, (4, 3, 8, 8), dtype=torch.uint8)
    moved = crop_flip(x_BCHW.to(DEVICE), torch.Generator().manual_seed(1))
    assert torch.equal(moved.cpu(), crop_flip(x_BCHW, torch.Generator().manual_seed(1)))


def test_a_transform_of_ones_own_is_on_the_cpu_as_its_generator(tmp_path: Path) -> None:
    """A function that draws would meet a picture on another device than its numbers, or draw others there."""

    def noisy(x_BCHW: Tensor, generator: torch.Generator) -> Tensor:
        return x_BCHW + torch.rand(x_BCHW.shape, generator=generator)

    shard = Shard.open(
        Path(prepare(load_scenario("quickstart", ["model.factory.epochs=1"])).folder) / "shards", 0
    )
    here, there = (shard.batches("train", 16, seed=4, transform=noisy, device=at) for at in (None, DEVICE))
    for (mine, _), (other, _) in zip(there, here, strict=True):
        assert isinstance(mine, StandIn) and torch.equal(mine.cpu(), other)


@pytest.mark.parametrize(
    "task", [Labels(), Numbers((2.0, 0.5, 1.0, 3.0), (1.0, 1.0, 2.0, 0.5)), Numbers(huber=0.5)]
)
def test_labels_and_numbers(task: Labels | Numbers) -> None:
    """A regression would end where a loss, a tolerance or an error is made on the CPU."""
    generator = torch.Generator().manual_seed(1)
    held = [(x, task.draw(len(x), 4, generator)) for x, _ in batches()]

    def run(device: torch.device) -> tuple[nn.Module, Any]:
        model = network(device)
        stats = train(
            model,
            held,
            optimizer=torch.optim.SGD(model.parameters(), 0.05),
            instance_filter=make_filter("selective_backprop", 0.7, in_channels=3, image_size=16),
            task=task,
        )
        prune(model, 0.3, example_input=torch.zeros(1, *SHAPE), batches=held, task=task)
        judged = evaluate(model, held, task=task)
        errors = None if judged.error_N is None else judged.error_N.tolist()
        return model, (stats, judged.right_N.tolist(), judged.loss, errors)

    on_both(run)
