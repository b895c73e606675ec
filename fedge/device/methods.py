"""The one maker from settings to methods, for devices and for the forecast; and the names of what was made or brought.

A report says what ran by a word: a name that scenarios know, "none", or "own" for what fedge has no name for.
"""

import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import nn

from fedge.catalog import names
from fedge.catalog.names import is_reference
from fedge.errors import UserError
from fedge.protocol.report import ELEMENT, NONE, OWN, SAMPLED
from fedge.references import Programs, resolve_callable
from fedge.scenario.training import Cosine, OtherFilter, Steps, Training
from fedge.training.error_map.pruner import ErrorMapPruner, ScoreName
from fedge.training.error_map.scores import Score
from fedge.training.instance_filter.filters import FILTERS, InstanceFilter, make_filter
from fedge.training.macs import count_macs
from fedge.training.pruning.criteria import CRITERIA, Criterion
from fedge.training.quantization import Quantization
from fedge.training.update.decay import Curve, cosine, steps

MakeOptimizer = Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]

KINDS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "sgd": torch.optim.SGD,
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
}


@dataclass(frozen=True)
class Methods:
    """Makes what `training` names, for networks on samples of `input_shape` (C, H, W).

    seed: of a purpose in this round. filter_seed: of the filter, which lives on from round to round. programs: the
    texts of references.
    """

    training: Training
    input_shape: tuple[int, int, int]
    seed: Callable[[str], int]
    filter_seed: int
    programs: Programs = field(default_factory=dict)

    @property
    def criterion(self) -> Criterion:
        """What channels are ranked by."""
        name = self.training.pruning.criterion
        found: Criterion = (
            self._own("training.pruning.criterion", name) if is_reference(name) else CRITERIA[name]
        )
        return found

    def instance_filter(self) -> InstanceFilter | None:
        """A filter that has learnt nothing yet; None: every instance is trained on."""
        choice = self.training.instance_filter
        channels, height, width = self.input_shape
        if isinstance(choice, OtherFilter) and is_reference(choice.kind):
            make = self._own("training.instance_filter.kind", choice.kind)
            shape = {"in_channels": channels, "image_size": (height, width)}
            taken = {
                name: value for name, value in shape.items() if name in inspect.signature(make).parameters
            }
            own: InstanceFilter = make(keep=choice.keep, seed=self.filter_seed, **taken, **choice.args)
            return own
        return make_filter(
            choice.kind,
            choice.keep,
            in_channels=channels,
            image_size=(height, width),
            seed=self.filter_seed,
            **choice.model_dump(exclude={"kind", "keep", "args"}),
        )

    def error_maps(self, model: nn.Module, epochs_before: int = 0) -> ErrorMapPruner | None:
        """The pruner of the model's error maps; None where all are kept, or where what is frozen leaves no convolution
        a backward pass. `alternate` goes on from `epochs_before`."""
        choice = self.training.error_maps
        if not choice.prunes or (self.training.what != "all" and not self._has_error_maps(model)):
            return None
        score: ScoreName | Score = cast(ScoreName, choice.score)  # the scenario has checked it
        if is_reference(choice.score):
            score = self._own("training.error_maps.score", choice.score)
        by = {"keep": None} if choice.target else {"target": None}
        options = choice.model_dump(exclude={"score"}) | by
        pruner = ErrorMapPruner(model, **options, score=score, seed=self.seed("error_maps"))
        pruner.epoch = epochs_before
        return pruner

    def _has_error_maps(self, model: nn.Module) -> bool:
        layers = dict(model.named_modules())
        table = count_macs(model, self.input_shape)
        back = [layer.name for layer in table.layers if layer.training > layer.forward]
        return any(isinstance(layers[name], nn.Conv2d) for name in back)

    def quantization(self, model: nn.Module) -> Quantization | None:
        """Quantised training of the model; None: 32-bit floats."""
        choice = self.training.quantization
        if choice is None:
            return None
        return Quantization(model, **choice.model_dump(), seed=self.seed("quantization"))

    def optimizer(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """As the settings say, afresh."""
        return settings_optimizer(self.training, parameters)

    def _own(self, key: str, reference: str) -> Any:
        return resolve_callable(reference, self.programs, key=key)


def settings_optimizer(training: Training, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    """The optimizer that `training` names, afresh."""
    choice = training.optimizer
    options = choice.model_dump(exclude={"kind"})
    return KINDS[choice.kind](parameters, lr=training.learning_rate, **options)


def settings_decay(training: Training) -> Curve | None:
    """The factor on the learning rate by the share of the run that is done, or of the round where the settings say so;
    None: constant."""
    choice = training.decay
    if isinstance(choice, Cosine):
        return cosine(choice.least)
    return steps(choice.at, choice.factor) if isinstance(choice, Steps) else None


def made_for(model: nn.Module, make: MakeOptimizer) -> torch.optim.Optimizer:
    """An optimizer of what is trained of the model, by a function that may be a program's own. UserError where it is
    none."""
    if not callable(make) or isinstance(make, torch.optim.Optimizer):
        raise UserError(
            f"device.train: optimizer is a {type(make).__name__}; pass a function that makes one, since the network "
            "may be cut first: optimizer=lambda parameters: torch.optim.Adam(parameters, lr=1e-3)"
        )
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = make(parameters or list(model.parameters()))
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise UserError(
            f"device.train: optimizer returned a {type(optimizer).__name__}; it must return a torch.optim.Optimizer"
        )
    if not updates(optimizer, model):
        raise UserError(
            "device.train: optimizer returned an optimizer of other parameters than it was given: "
            "optimizer=lambda parameters: torch.optim.Adam(parameters, lr=1e-3)"
        )
    return optimizer


def updates(optimizer: torch.optim.Optimizer, model: nn.Module) -> bool:
    """Whether the optimizer holds any of the model's parameters."""
    own = {id(parameter) for parameter in model.parameters()}
    return any(id(parameter) in own for group in optimizer.param_groups for parameter in group["params"])


def criterion_word(criterion: Criterion) -> str:
    """What a report calls a criterion."""
    return next((name for name, known in CRITERIA.items() if known is criterion), OWN)


def filter_word(instance_filter: InstanceFilter | None) -> str:
    """What a report calls a filter: by its class, whatever its settings."""
    if instance_filter is None:
        return NONE
    return next((name for name, known in FILTERS.items() if known is type(instance_filter)), OWN)


def score_word(error_maps: ErrorMapPruner | None) -> str:
    """What a report calls the score that error maps are pruned by; or what is drawn at random."""
    if error_maps is None:
        return NONE
    if type(error_maps) is not ErrorMapPruner:
        return OWN
    if error_maps.kind != "channel":
        return ELEMENT if error_maps.kind == "element" else SAMPLED
    return str(error_maps.score) if error_maps.score in names.SCORES else OWN


def optimizer_word(optimizer: torch.optim.Optimizer) -> str:
    """What a report calls an optimizer: by its class, whatever its settings."""
    return next((word for word, kind in KINDS.items() if kind is type(optimizer)), OWN)
