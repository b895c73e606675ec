"""A network with early exits: its trunk, a classifier behind each of some layers, and the rule by which one answers.

    sure_k = max over the classes of softmax(exit_k(x))         the sample leaves at the first k with sure_k >= tau_k,
                                                                 else at the last, which is the trunk's own

    the last exit's logits are  trunk(x) + T log(pi / pi0)       pi: how often this person meets each class, found
                                                                 without labels (fedge.training.label_prior); 0 at first

In evaluation mode the network gives the logits [B, C] of the exit at which each sample leaves, so that whatever judges
a network judges the cascade. In training mode it gives those of all exits, [B, C, E], for `ExitTask`. A frozen trunk
stays in evaluation mode there: neither its weights nor its statistics move. Shapes: B samples, C classes, E exits.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from fedge.errors import UserError
from fedge.models.blocks import ConvNormAct, GlobalPoolHead, he_init
from fedge.seeding import derive_seed
from fedge.training.exits.places import Place, find_places

CHANNELS = 48
"""Of an exit's convolution."""
NEVER = 2.0
"""A threshold that no sample reaches: none is surer than 1."""


class Exit(nn.Sequential):
    """A 3 x 3 convolution of stride 2, norm, ReLU, mean, linear; on windows one pixel high 1 x 3; on [B, D] linear."""

    def __init__(self, shape: Sequence[int], num_classes: int, channels: int) -> None:
        if len(shape) == 1:
            super().__init__()
            self.classifier = nn.Linear(shape[0], num_classes)
            return
        inputs, height, _ = shape
        kernel, stride = ((1, 3), (1, 2)) if height == 1 else ((3, 3), (2, 2))
        super().__init__()
        self.features = ConvNormAct(inputs, channels, kernel, stride=stride)
        self.head = GlobalPoolHead(channels, num_classes)
        he_init(self)


class LeavingRule(nn.Module):
    """When a sample leaves, and what the last exit adds to its logits. All of it is the person's own.

    `thresholds_K` of the exits before the last. `log_shift_C` is T log(pi / pi0) where `knows_prior` is 1.
    """

    thresholds_K: Tensor
    log_shift_C: Tensor
    knows_prior: Tensor

    def __init__(self, exits: int, num_classes: int) -> None:
        super().__init__()
        self.register_buffer("thresholds_K", torch.full((exits,), NEVER))
        self.register_buffer("log_shift_C", torch.zeros(num_classes))
        self.register_buffer("knows_prior", torch.zeros(1))

    def forget(self) -> None:
        """What was chosen with a trunk that is another now. The person's prior is of the factory model's answers."""
        self.thresholds_K.fill_(NEVER)


class _ReachedError(Exception):
    """The deepest exit that a pass is for."""


class ExitNetwork(nn.Module):
    """[B, C, H, W] to logits [B, num_classes], in training mode [B, num_classes, exits].

    where: the layers of `trunk` behind which exits stand, in the order in which they run. among: the classes that are
    answers, for how sure an exit is; None: all. whole: whether training passes go on to the last exit, as they must
    where it teaches; else the trunk runs no further than the deepest exit.
    """

    def __init__(
        self, trunk: nn.Module, places: Sequence[Place], num_classes: int, channels: int = CHANNELS
    ) -> None:
        super().__init__()
        self.trunk = trunk
        self.where = tuple(place.layer for place in places)
        self.exits = nn.ModuleList(Exit(place.shape, num_classes, channels) for place in places)
        self.rule = LeavingRule(len(places), num_classes)
        self.among: tuple[int, ...] | None = None
        self.whole = True
        self.tells_all = False
        self._own_frozen = tuple(
            name for name, weight in trunk.named_parameters() if not weight.requires_grad
        )

    def train(self, mode: bool = True) -> "ExitNetwork":
        """As ever, but for a trunk that is frozen, which stays in evaluation mode."""
        super().train(mode)
        if not any(parameter.requires_grad for parameter in self.trunk.parameters()):
            self.trunk.eval()
        return self

    def forward(self, x_BCHW: Tensor) -> Tensor:
        if self.training or self.tells_all:
            return torch.stack(self._logits(x_BCHW, stops=self.training and not self.whole), dim=2)
        return self._answers(self._logits(x_BCHW))

    @torch.no_grad()
    def answer(self, x_1CHW: Tensor) -> tuple[Tensor, int]:
        """Logits [1, C] of one sample and the exit that gave them, counted from 0; what comes behind it does not run.

        This is how a device answers; `forward` in evaluation mode computes all exits, for batches. The mode is not
        changed: set it to evaluation before.
        """
        if len(x_1CHW) != 1:
            raise UserError(f"answer: {len(x_1CHW)} samples came; one sample [1, C, H, W] is wanted")
        left: list[tuple[Tensor, int]] = []

        def leave(place: int, logits_1C: Tensor) -> None:
            if bool(self.sure(logits_1C) >= self.rule.thresholds_K[place]):
                left.append((logits_1C, place))
                raise _ReachedError

        with self._at_exits(leave):
            try:
                return self.trunk(x_1CHW) + self.rule.log_shift_C, len(self.exits)
            except _ReachedError:
                return left[0]

    def at_first_exit(self, x_BCHW: Tensor) -> Tensor:
        """Logits of the first exit [B, C]; what lies behind it does not run. The mode is not changed."""
        found: list[Tensor] = []

        def stop(place: int, logits_BC: Tensor) -> None:
            found.append(logits_BC)
            raise _ReachedError

        with self._at_exits(stop), suppress(_ReachedError):
            self.trunk(x_BCHW)
        return found[0]

    def sure(self, logits_BC: Tensor) -> Tensor:
        """How sure an exit is of each sample [B], 0..1: its largest probability, among the classes that are answers."""
        if self.among is not None:
            logits_BC = logits_BC[:, list(self.among)]
        return logits_BC.softmax(1).amax(1)

    def freeze_trunk(self) -> None:
        """Only exits are trained from here on."""
        self.trunk.requires_grad_(False)
        self.exits.requires_grad_(True)

    def thaw_trunk(self) -> None:
        """Trunk and exits are trained, but for what the trunk froze itself."""
        self.requires_grad_(True)
        for name in self._own_frozen:
            self.trunk.get_parameter(name).requires_grad_(False)

    @contextmanager
    def telling_all(self) -> Iterator[None]:
        """Within the block every pass gives the logits of all exits, [B, C, E], in evaluation mode too."""
        before = self.tells_all, self.whole
        self.tells_all = self.whole = True
        try:
            yield
        finally:
            self.tells_all, self.whole = before

    @contextmanager
    def answering_among(self, classes: Sequence[int] | None) -> Iterator[None]:
        """Within the block these classes alone are answers; None: all."""
        before, self.among = self.among, None if classes is None else tuple(classes)
        try:
            yield
        finally:
            self.among = before

    def _answers(self, logits_EBC: Sequence[Tensor]) -> Tensor:
        """Of each sample the logits of the exit at which it leaves [B, C]."""
        *early, answers_BC = logits_EBC
        for place in reversed(range(len(early))):
            leaves_B = self.sure(early[place]) >= self.rule.thresholds_K[place]
            answers_BC = torch.where(leaves_B[:, None], early[place], answers_BC)
        return answers_BC

    def _logits(self, x_BCHW: Tensor, *, stops: bool = False) -> list[Tensor]:
        """Of each exit in turn [B, C]; the last one's where the trunk does not stop at the deepest before it."""
        found: list[Tensor] = []

        def keep(place: int, logits_BC: Tensor) -> None:
            found.append(logits_BC)
            if stops and len(found) == len(self.exits):
                raise _ReachedError

        with self._at_exits(keep):
            try:
                last_BC = self.trunk(x_BCHW)
            except _ReachedError:
                return found
        return [*found, last_BC + self.rule.log_shift_C]

    @contextmanager
    def _at_exits(self, tell: Callable[[int, Tensor], None]) -> Iterator[None]:
        """While the trunk runs, `tell(number, logits [B, C])` of each exit as soon as its layer is through."""
        seen: set[int] = set()

        def hook(place: int, layer: nn.Module, inputs: Any, output: Tensor) -> None:
            if place not in seen:  # a layer that runs several times
                seen.add(place)
                tell(place, self.exits[place](output))

        layers = dict(self.trunk.named_modules())
        with ExitStack() as stack:
            for place, name in enumerate(self.where):
                stack.callback(layers[name].register_forward_hook(partial(hook, place)).remove)
            yield


def with_exits(
    trunk: nn.Module,
    input_shape: Sequence[int],
    num_classes: int,
    *,
    where: Sequence[str] = (),
    channels: int = CHANNELS,
    seed: int = 0,
) -> ExitNetwork:
    """`trunk`, for inputs [C, H, W], with exits behind the layers named in `where`; none: its family's own places.

    Their weights are a function of the seed. UserError as from `find_places`.
    """
    places = find_places(trunk, input_shape, where)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(derive_seed(seed, "exits"))
        return ExitNetwork(trunk, places, num_classes, channels)
