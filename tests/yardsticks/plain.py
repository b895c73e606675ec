"""Federated averaging and local training in plain PyTorch, for fedge's to be held against.

Of fedge it takes a scenario's numbers, the rows of each client's split and the factory model's weights: no loop, no
batches, no transform, no optimizer and no counts.
"""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, pad

from fedge.data.shard import Shard
from fedge.prepare import prepare
from fedge.scenario.schema import Scenario


class Plain:
    """x_NCHW in 0..1 and y_N of each client's training and test rows; `model` begins as the factory model."""

    def __init__(self, scenario: Scenario, seed: int = 0) -> None:
        self.scenario, self.draws = scenario, torch.Generator().manual_seed(seed)
        prepared = prepare(scenario)
        self.model, self.train_rows, self.test_rows = prepared.factory_model(), [], []
        for number in range(scenario.clients):
            shard = Shard.open(Path(prepared.folder) / "shards", number)
            for split, held in (("train", self.train_rows), ("test", self.test_rows)):
                x, y = shard.arrays(split)
                scale = 255 if x.dtype == np.uint8 else 1
                held.append((torch.from_numpy(x).float() / scale, torch.from_numpy(y)))
        self.mean, self.std = (torch.tensor(of)[:, None, None] for of in (shard.mean, shard.std))

    def fedavg(self) -> list[float]:
        """The last average's accuracy on each client's test rows."""
        average = {name: tensor.clone() for name, tensor in self.model.state_dict().items()}
        total = sum(len(y) for _, y in self.train_rows)
        for _ in range(self.scenario.rounds):
            sums = {name: torch.zeros_like(tensor, dtype=torch.float64) for name, tensor in average.items()}
            for x, y in self.train_rows:
                self.model.load_state_dict(average)
                self.train(x, y)
                for name, tensor in self.model.state_dict().items():
                    sums[name] += tensor.double() * len(y) / total
            average = {name: sums[name].to(tensor.dtype) for name, tensor in average.items()}
        self.model.load_state_dict(average)
        return [self.accuracy(x, y) for x, y in self.test_rows]

    def alone(self) -> list[float]:
        """Every client's own network on its own test rows, without any average."""
        shipped = {name: tensor.clone() for name, tensor in self.model.state_dict().items()}
        found = []
        for own, test in zip(self.train_rows, self.test_rows, strict=True):
            self.model.load_state_dict(shipped)
            for _ in range(self.scenario.rounds):
                self.train(*own)
            found.append(self.accuracy(*test))
        return found

    def train(self, x: Tensor, y: Tensor) -> None:
        """A round's local epochs of SGD with momentum."""
        settings = self.scenario.training
        velocity = [torch.zeros_like(weight) for weight in self.model.parameters()]
        self.model.train()
        for _ in range(settings.epochs):
            for batch in torch.randperm(len(y), generator=self.draws).split(settings.batch_size):
                shown = self.crop_flip(x[batch]) if settings.transform == "crop_flip" else x[batch]
                self.model.zero_grad()
                cross_entropy(self.model((shown - self.mean) / self.std), y[batch]).backward()
                with torch.no_grad():
                    for weight, v in zip(self.model.parameters(), velocity, strict=True):
                        v.mul_(settings.optimizer.momentum).add_(weight.grad)
                        weight -= settings.learning_rate * v

    def crop_flip(self, x_BCHW: Tensor) -> Tensor:
        """Padded by 4 with black, cropped and flipped at random, picture by picture."""
        side, cut = x_BCHW.shape[-1], []
        for picture in pad(x_BCHW, (4, 4, 4, 4)):
            top, left, flipped = (int(torch.randint(most, (), generator=self.draws)) for most in (9, 9, 2))
            window = picture[:, top : top + side, left : left + side]
            cut.append(window.flip(-1) if flipped else window)
        return torch.stack(cut)

    @torch.no_grad()
    def accuracy(self, x: Tensor, y: Tensor) -> float:
        self.model.eval()
        return float((self.model((x - self.mean) / self.std).argmax(1) == y).float().mean())
