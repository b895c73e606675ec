"""The base networks M_D of the ADaPT benchmark: trained once on all of CIFAR-100, kept outside the checkout.

The authors pretrain for 150 epochs with steps at 50 and 100. Few epochs do better with one cycle of the learning
rate (Smith and Topin, arXiv 1708.07120): linear up over the first fifth, linear down to zero. AlexNet has no norm, and
with PyTorch's initial weights its loss stays at log 100 for the first epoch; it gets those of He et al.
(arXiv 1502.01852), with which it learns from the first steps on.
"""

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from benchmarks.adapt.protocol import BATCH_SIZE, MOMENTUM, Pictures, Split
from fedge.data.datasets import load_dataset
from fedge.errors import UserError
from fedge.models import build
from fedge.paths import cache_folder
from fedge.seeding import derive_seed
from fedge.training.loop import evaluate, train

CACHE = cache_folder() / "adapt"
PEAK_RATE = {"alexnet": 0.02, "squeezenet": 0.04}  # networks without norm, or with a small one, diverge above
DEFAULT_PEAK_RATE = 0.2
WEIGHT_DECAY = 5e-4
NOISE_PICTURES = 600
NORMLESS = frozenset({"alexnet"})


def load_pictures(data: str, device: str = "cpu") -> tuple[Pictures, int]:
    """CIFAR-100's pictures, and how many of them, the first, are its training split.

    'noise' instead of a folder: five training pictures and one test picture per class, for a smoke run.
    """
    if data == "noise":
        generator = torch.Generator().manual_seed(0)
        x_NCHW = torch.randint(0, 256, (NOISE_PICTURES, 3, 32, 32), generator=generator, dtype=torch.uint8)
        return Pictures(x_NCHW, torch.arange(NOISE_PICTURES) % 100, device), NOISE_PICTURES - 100
    cifar100 = load_dataset("cifar100", data)
    pictures = Pictures(torch.from_numpy(cifar100.x), torch.from_numpy(cifar100.y), device)
    return pictures, cifar100.train_count


def base_network(net: str, epochs: int, pictures: Pictures, split: Split, cache: Path) -> nn.Module:
    """M_D with its weights from `cache`, or trained for `epochs` on `split` and put there; 0 epochs: untrained."""
    model = build(net, num_classes=100, in_channels=3, image_size=32)
    model = model.to(pictures.device, memory_format=torch.channels_last)
    path = cache / f"{net}-{epochs}epochs.safetensors"
    if path.exists():
        model.load_state_dict(load_file(path, device=pictures.device))
        return model
    if net in NORMLESS:
        _initialise(model, torch.Generator(pictures.device).manual_seed(derive_seed(0, "base", net)))
    if epochs:
        if len(pictures.y_N) == NOISE_PICTURES:
            raise UserError(
                f"{net}: noise is for smoke runs with untrained networks; got {epochs} epochs of training; take 0 or "
                "give the folder of cifar-100-python"
            )
        _train(model, net, epochs, pictures, split)
        cache.mkdir(parents=True, exist_ok=True)
        save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, path)
    return model


def _train(model: nn.Module, net: str, epochs: int, pictures: Pictures, split: Split) -> None:
    optimizer = torch.optim.SGD(
        model.parameters(), lr=1.0, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY, nesterov=True
    )
    steps = epochs * -(-len(split.train) // BATCH_SIZE)
    rise = max(steps / 5, 1)
    peak = PEAK_RATE.get(net, DEFAULT_PEAK_RATE)
    cycle = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: peak * min((step + 1) / rise, (steps - step) / (steps - rise))
    )
    optimizer.register_step_post_hook(lambda *_: cycle.step())
    for epoch in range(epochs):
        generator = torch.Generator().manual_seed(derive_seed(0, "base", net, epoch))
        loss = train(model, pictures.batches(split.train, generator=generator), optimizer=optimizer).loss
        top1 = evaluate(model, pictures.batches(split.validation)).accuracy
        print(f"base {net}: epoch {epoch + 1}/{epochs}, loss {loss:.3f}, validation {top1:.1%}", flush=True)


def _initialise(model: nn.Module, generator: torch.Generator) -> None:
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu", generator=generator)
            nn.init.zeros_(layer.bias)
