"""All rows of one world: five subsets, and for each what every method brings and costs."""

import copy
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.adaptation.heads import (
    BATCH,
    MOMENTUM,
    RATES,
    Rows,
    corrected,
    on_drawn,
    on_rows,
    shares,
    told,
    trained,
)
from benchmarks.adaptation.world import Group, World
from benchmarks.measure.results import Row
from fedge.data.unlabelled import pictures
from fedge.device.memory.demand import peak_bytes
from fedge.scenario.methods.adaptation import Adaptation
from fedge.scenario.training import Training
from fedge.seeding import derive_seed
from fedge.training.features import Gaussians, Trunk
from fedge.training.label_prior import em_prior
from fedge.training.loop import evaluate, train
from fedge.training.macs import count_forward
from fedge.training.pruning import prune
from fedge.training.pruning.criteria import CRITERIA
from fedge.training.task import Classes, Task
from fedge.training.update.what import freeze

PARTS = ("prior", "heads", "pruned", "whole")  # cheap ones first
UNLABELLED = (50, 200, 1000)
DRAWS = 5
TEMPERATURES = (1.0, 1.25, 1.5)
PSEUDO_COUNTS = (0.0, 0.5, 1.0, 2.0)
HEAD_EPOCHS, WHOLE_EPOCHS = 10, 3
LEVEL = 0.3  # of the pruned rows: the scenario's
GENERATED = Training(batch_size=BATCH, what="head", source="generated", answers="own")
REPLAYED = {
    k: GENERATED.model_copy(update={"source": "replay", "adaptation": Adaptation(replayed=k)})
    for k in (5, 20)
}
OWN = GENERATED.model_copy(update={"source": "own"})
WHOLE = Training(batch_size=BATCH)
SHIPPED = [GENERATED.model_copy(update={"prior": "em"}), *REPLAYED.values()]


class Measuring:
    """Measures a group: `rows` yields them. others: all groups' test rows, to see what is forgotten."""

    def __init__(self, world: World, group: Group, trunk: Trunk, others: Rows) -> None:
        self.world, self.group, self.trunk, self.others = world, group, trunk, others
        self.own, self.validation, self.test = (
            Rows(*group.features(trunk, split)) for split in ("train", "validation", "test")
        )
        self.count = world.prepared.num_classes
        self.forward = count_forward(trunk.model, world.prepared.input_shape).forward
        self.told = told(group.classes)
        self.seed = partial(derive_seed, world.scenario.world, group.name)

    def rows(self, part: str, rates: Sequence[float]) -> Iterator[Row]:
        """Those of one of PARTS. rates: of the whole network's training."""
        match part:
            case "prior":
                yield self.row("as it is", self.trunk.head, Classes())
                yield self.row("told", self.trunk.head, self.told)
                yield from self.priors()
            case "heads":
                for rate in RATES:
                    yield from self.heads(rate)
            case "pruned":
                yield from self.pruned()
            case "whole":
                for rate in rates:
                    yield self.whole(rate)

    def row(self, method: str, head: nn.Module, task: Task, **more: Any) -> Row:
        """What that head answers by that task on features of the trunk."""
        return {
            "subset": self.group.name,
            "classes": len(self.group.classes),
            "method": method,
            "accuracy": self.test.accuracy(head, task),
            "validation": self.validation.accuracy(head, task),
            "all": self.others.accuracy(head, Classes()),
            "macs": 0,
            "peak_bytes": None,
            "shipped_bytes": 0,
            "rate": None,
            **more,
        }

    def prior(self, samples: int, draw: int, pseudo_count: float = 1.0, temperature: float = 1.0) -> Tensor:
        """By EM from so many unlabelled training and validation rows."""
        z_NF = torch.cat([self.own.features_NF, self.validation.features_NF])
        generator = torch.Generator().manual_seed(self.seed("unlabelled", draw))
        chosen_N = torch.randperm(len(z_NF), generator=generator)[:samples]
        with torch.no_grad():
            logits_NC = self.trunk.head(z_NF[chosen_N]).double() / temperature
        return em_prior(logits_NC.softmax(1), self.world.prior_C, pseudo_count)

    def priors(self) -> Iterator[Row]:
        """EM, by samples, pseudo-count and temperature: means over draws."""
        settings = [(n, 1.0, t) for n in UNLABELLED for t in TEMPERATURES]
        settings += [(n, a, 1.0) for n in UNLABELLED for a in PSEUDO_COUNTS if a != 1.0]
        for samples, pseudo_count, temperature in settings:
            drawn = [
                self.row("", self.trunk.head, corrected(prior_C, self.world.prior_C))
                for prior_C in (self.prior(samples, draw, pseudo_count, temperature) for draw in range(DRAWS))
            ]
            means = {key: sum(row[key] for row in drawn) / DRAWS for key in ("accuracy", "validation")}
            method = f"em {samples}" + (f" a={pseudo_count:g}" if pseudo_count != 1 else "")
            method += f" T={temperature:g}" if temperature != 1 else ""
            worst = min(row["accuracy"] for row in drawn)
            macs = samples * self.forward
            yield (
                drawn[0]
                | means
                | {"method": method, "worst": worst, "macs": macs, "shipped_bytes": 4 * self.count}
            )

    def heads(self, rate: float) -> Iterator[Row]:
        """Retrained on generated, replayed and own features."""
        known_C, prior_C = shares(self.group.classes, self.count), self.prior(200, 0)
        by_prior = corrected(prior_C, self.world.prior_C)
        for name, training in (
            ("generated", GENERATED),
            *((f"replay {k}", each) for k, each in REPLAYED.items()),
        ):
            shipped = self.world.shipped(training)
            for way, share_C, task in (("known", known_C, self.told), ("em 200", prior_C, by_prior)):
                epochs = on_drawn(shipped, share_C, len(self.own.y_N), self.seed(name))
                cost = {"shipped_bytes": shipped.nbytes, "peak_bytes": self.peak(training)}
                looked = 200 * self.forward if way == "em 200" else 0
                yield self.head(f"head {name}, {way}", epochs, rate, task, looked, **cost)
        for count in (50, 200, None):
            epochs = on_rows(self.own, count, self.seed("own"))
            samples = count or len(self.own.y_N)
            for way, task in (("", Classes()), (", told", self.told)):
                method = f"head own {count or 'all'}{way}"
                cost = {"peak_bytes": self.peak(OWN, samples)}
                yield self.head(method, epochs, rate, task, samples * self.trunk.macs, **cost)

    def head(self, method: str, epochs: Any, rate: float, task: Task, looked: int, **more: Any) -> Row:
        """One retrained head. looked: MACs beside those of the training."""
        head, macs = trained(self.trunk.head, HEAD_EPOCHS, epochs, rate, task)
        return self.row(method, head, task, macs=macs + looked, rate=rate, **more)

    def peak(self, training: Training, samples: int = 0) -> int:
        """Bytes, of SGD with momentum on mini-batches of BATCH."""
        model, shape = copy.deepcopy(self.trunk.model), self.world.prepared.input_shape
        freeze(model, training.what, shape)
        return peak_bytes(model, training, BATCH, shape, samples=samples)

    def whole(self, rate: float) -> Row:
        """The whole network on all own rows, answers among its classes."""
        model, (x_NCHW, y_N) = copy.deepcopy(self.trunk.model), self.group.rows("train")
        optimizer = torch.optim.SGD(model.parameters(), lr=rate, momentum=MOMENTUM)
        macs = 0
        for epoch in range(WHOLE_EPOCHS):
            order_N = torch.randperm(
                len(y_N), generator=torch.Generator().manual_seed(self.seed("whole", epoch))
            )
            batches = ((x_NCHW[rows], y_N[rows]) for rows in order_N.split(BATCH))
            macs += train(model, batches, optimizer=optimizer, task=self.told).macs_done
        found = {
            split: evaluate(model, [self.group.rows(split)], classes=self.group.classes).accuracy
            for split in ("validation", "test")
        }
        row = self.row(
            "whole, told", self.trunk.head, self.told, macs=macs, rate=rate, peak_bytes=self.peak(WHOLE)
        )
        return row | {"accuracy": found["test"], "validation": found["validation"], "all": None}

    def pruned(self) -> Iterator[Row]:
        """The network cut with the group's own rows in view, and heads for what is left of its features."""
        model, world = copy.deepcopy(self.trunk.model), self.world
        x_NCHW, y_N = self.group.rows("train")
        seen_N = torch.randperm(len(y_N), generator=torch.Generator().manual_seed(self.seed("rank")))[:128]
        record = prune(
            model,
            LEVEL,
            example_input=x_NCHW[:1],
            criterion=CRITERIA["taylor"],
            batches=[(x_NCHW[seen_N], y_N[seen_N])],
            task=self.told,
        )
        trunk = world.trunk(model)
        cut = Measuring(world, self.group, trunk, Rows(*_all_features(world, trunk)))
        yield cut.row(f"pruned {LEVEL:g}, told", trunk.head, self.told)
        kept = (record.kept or {}).get(trunk.name)
        shipped = world.shipped(GENERATED)
        shipped = shipped if kept is None else shipped.cut(kept.inputs)
        factory = world.factory_rows
        z_NF = trunk.features_of(pictures(factory, ["train"], 256))
        refit = Gaussians.fit(z_NF, torch.from_numpy(factory.labels("train")).long(), self.count)
        known_C = shares(self.group.classes, self.count)
        for rate in RATES:
            for name, source in (("generated, cut", shipped), ("generated, fitted anew", refit)):
                epochs = on_drawn(source, known_C, len(self.own.y_N), self.seed("generated"))
                yield cut.head(f"pruned {LEVEL:g}, {name}", epochs, rate, self.told, 0)
            epochs = on_rows(cut.own, None, self.seed("own"))
            looked = len(cut.own.y_N) * trunk.macs
            yield cut.head(f"pruned {LEVEL:g}, own all", epochs, rate, self.told, looked)


def all_rows(world: World, trunk: Trunk) -> Rows:
    """The test rows of all groups."""
    return Rows(*_all_features(world, trunk))


def _all_features(world: World, trunk: Trunk) -> tuple[Tensor, Tensor]:
    parts = [group.features(trunk, "test") for group in world.groups]
    return torch.cat([z for z, _ in parts]), torch.cat([y for _, y in parts])
