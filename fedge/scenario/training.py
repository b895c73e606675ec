"""`[training]`: what a device does with its data. Local steps, and the methods that make them cheaper."""

from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    Discriminator,
    Field,
    SerializerFunctionWrapHandler,
    Tag,
    model_serializer,
    model_validator,
)

from fedge.catalog.names import CRITERIA, FILTERS, SCORES, TRANSFORMS, WHAT, did_you_mean, is_reference
from fedge.scenario.beside import Beside
from fedge.scenario.methods.adaptation import Adaptation
from fedge.scenario.methods.adaptation_checks import contradiction
from fedge.scenario.methods.contrast import Contrast, require_contrast_alone
from fedge.scenario.methods.exits import Exits, require_exits_alone
from fedge.scenario.section import Count, Fraction, Inner, NotNegative, Positive, Section, Share, Word

FROM_LIST = Field(
    strict=False
)  # below a `kind` pydantic takes an array of JSON for a list, which is no tuple


class Sgd(Section):
    """Stochastic gradient descent. nesterov: looks ahead by its momentum."""

    kind: Literal["sgd"] = "sgd"
    momentum: Fraction = 0.9
    nesterov: bool = False
    weight_decay: NotNegative = 0.0

    @property
    def copies(self) -> int:
        """Numbers that it keeps of every weight."""
        return int(self.momentum > 0)

    @model_validator(mode="after")
    def _nesterov_has_momentum(self) -> "Sgd":
        if self.nesterov and not self.momentum:
            raise ValueError("nesterov is true and momentum 0; it looks ahead by its momentum: raise that")
        return self


class Adam(Section):
    """Adam (arXiv 1412.6980). weight_decay: added to the gradient. betas: of the means of gradient and square."""

    kind: Literal["adam"]
    betas: Annotated[tuple[Fraction, Fraction], FROM_LIST] = (0.9, 0.999)
    eps: Positive = 1e-8
    weight_decay: NotNegative = 0.0

    @property
    def copies(self) -> int:
        """Numbers that it keeps of every weight."""
        return 2


class AdamW(Adam):
    """Adam with weight decay apart from the gradient (arXiv 1711.05101)."""

    kind: Literal["adamw"]  # type: ignore[assignment]  # another kind, with the same keys
    weight_decay: NotNegative = 0.01


def _kind_or(default: str) -> Discriminator:
    """Tells sections apart by `kind`; without one it is the default's."""

    def kind(value: Any) -> str | None:
        if isinstance(value, dict):
            return str(value.get("kind", default))
        return str(value.kind) if isinstance(value, Section) else None  # type: ignore[attr-defined]

    return Discriminator(kind)


Optimizer = Annotated[
    Annotated[Sgd, Tag("sgd")] | Annotated[Adam, Tag("adam")] | Annotated[AdamW, Tag("adamw")],
    _kind_or("sgd"),
]


class Constant(Section):
    """`learning_rate` at every step."""

    kind: Literal["constant"] = "constant"

    @property
    def per(self) -> Literal["run", "round"]:
        """Over which it falls."""
        return "round"


class Cosine(Section):
    """From `learning_rate` along half a cosine to `least` times it (arXiv 1608.03983).

    per: over all rounds of the run, or over the steps of each round.
    """

    kind: Literal["cosine"]
    least: Fraction = 0.0
    per: Literal["run", "round"] = "run"


class Steps(Section):
    """`learning_rate` times `factor` after each of the shares `at` of the run, or of each round."""

    kind: Literal["step"]
    at: Annotated[tuple[Inner, ...], Field(min_length=1), FROM_LIST] = (0.5, 0.75)
    factor: Inner = 0.1
    per: Literal["run", "round"] = "run"

    @model_validator(mode="after")
    def _ascending(self) -> "Steps":
        if list(self.at) != sorted(set(self.at)):
            raise ValueError(f"at is {list(self.at)}; the shares must rise, as in [0.5, 0.75]")
        return self


Decay = Annotated[
    Annotated[Constant, Tag("constant")] | Annotated[Cosine, Tag("cosine")] | Annotated[Steps, Tag("step")],
    _kind_or("constant"),
]


def _known_what(what: str | tuple[str, ...]) -> str | tuple[str, ...]:
    if isinstance(what, str):
        if what not in WHAT:
            raise ValueError(
                f"{what!r} is unknown; {did_you_mean(what, WHAT)}, or layers by name: [{what!r}]"
            )
    elif len(set(what)) < len(what) or not all(what):
        raise ValueError(f"what is {list(what)}; name each layer once")
    return what


What = Annotated[
    Annotated[str, Field(json_schema_extra={"enum": list(WHAT)}), Tag("word")]
    | Annotated[tuple[str, ...], Field(min_length=1), FROM_LIST, Tag("layers")],
    Discriminator(lambda value: "layers" if isinstance(value, list | tuple) else "word"),
    AfterValidator(_known_what),
]


class LevelSearch(Section):
    """Each device finds its own level, on a grid of 5%: the highest that keeps its accuracy, or the lowest that fits.

    accuracy: on its validation data, after `training.epochs` of retraining, not more than `slack` below the unpruned
    network's. memory: peak training memory at most `share` of the device's. macs: a training step at most `share` of
    the unpruned network's multiply-accumulates. time: a training step at most `share` of the unpruned network's
    seconds, or, where `limit_s` is given, the round's training at most that many virtual seconds, or as near as can be.
    """

    search: Literal["accuracy", "memory", "macs", "time"]
    share: Share = 1.0
    slack: Fraction = 0.0
    limit_s: Positive | None = None  # of a round's training, links left out; of search = "time" alone

    @model_validator(mode="after")
    def _one_limit(self) -> "LevelSearch":
        if self.limit_s is not None and self.search != "time":
            raise ValueError(f"limit_s is for search = 'time', and search is {self.search!r}: leave it out")
        if self.limit_s is not None and self.share != 1:
            raise ValueError(
                f"share is {self.share:g} and limit_s {self.limit_s:g}; a search by time has one limit: give one"
            )
        return self

    @model_serializer(mode="wrap")
    def _unset_costs_nothing(self, told: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Plans weigh what they weighed before there was a limit_s, unless it is given."""
        table: dict[str, Any] = told(self)
        return {key: value for key, value in table.items() if key != "limit_s" or value is not None}


class Pruning(Section):
    """Data-aware structured pruning (ADaPT). level: the share of parameters removed; 0: no pruning.

    criterion: "l1" is ADaPT's, which hardly sees the data; "taylor" ranks by them and won (docs/methods/pruning.md).
    """

    level: Fraction | LevelSearch = 0.0
    criterion: Annotated[str, Word(tuple(CRITERIA)), Beside(".py")] = (
        "taylor"  # or one's own, as file.py:name
    )
    ranking_samples: Count = 128  # training instances that taylor and activation rank by, at most
    accounting: Literal["exact", "adapt"] = "exact"
    round_to: Count = 1  # layer widths end as multiples of this, which processors like: 8 or 16

    @property
    def cut(self) -> dict[str, Any]:
        """How a network is cut, whatever the level and the ranking: keyword arguments of `prune`."""
        return {"accounting": self.accounting, "round_to": self.round_to}


class EarlyFilter(Section):
    """EIF: a small network, trained on the device, keeps the instances it predicts to have the highest losses."""

    kind: Literal["early"]
    keep: Share = 0.4  # share of instances trained on
    controller: Literal["quantile", "paper"] = (
        "quantile"  # what holds the share (docs/methods/instance_filter.md)
    )
    explore: Share = 0.5  # least share of the kept that is drawn at random
    distrust: Fraction = 0.0  # share of highest losses taken for wrong labels
    learning_rate: Positive = 0.1  # of the filter's own SGD
    network: Literal["auto", "slim_lenet", "resnet8"] = (
        "auto"  # the filter's; auto: slim_lenet for one channel
    )
    downsample: Count = 2  # the filter sees the image averaged over n x n pixels

    @model_validator(mode="after")
    def _some_high_losses_are_trusted(self) -> "EarlyFilter":
        if self.distrust >= self.keep:
            raise ValueError(
                f"distrust is {self.distrust:g} and keep {self.keep:g}; distrust must be the smaller, "
                "or everything worth keeping is taken for mislabelled"
            )
        return self


class OtherFilter(Section):
    """No filter; a plain one: random, smb (whole mini-batches), ohem, selective_backprop, infobatch; first_exit, of
    networks with exits; or one's own.

    One's own, as file.py:name, is called with keep, seed, `args`, and in_channels and image_size where it takes them.
    """

    kind: Annotated[str, Word(tuple(FILTERS)), Beside(".py")] = "none"
    keep: Share = 0.4
    args: dict[str, bool | int | float | str] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _args_are_for_ones_own(self) -> "OtherFilter":
        if self.args and not is_reference(self.kind):
            raise ValueError(f"args are for a filter of one's own, and kind is {self.kind!r}: leave them out")
        return self


def _filter_section(value: Any) -> str | None:
    if not isinstance(value, dict | Section):
        return None
    kind = value.get("kind", "none") if isinstance(value, dict) else getattr(value, "kind", "none")
    return EarlyFilter.__name__ if kind == "early" else OtherFilter.__name__


InstanceFilter = Annotated[
    Annotated[EarlyFilter, Tag("EarlyFilter")] | Annotated[OtherFilter, Tag("OtherFilter")],
    Discriminator(_filter_section),
]


class ErrorMaps(Section):
    """Error-map pruning in the backward pass. keep: the share of error maps kept; 1: the exact gradient.

    kind: what is kept or dropped as one: a channel for all samples of a batch (EMP); or, at random and without bias, a
    pixel or a map (a channel) of one sample, or an element, a single number. target: of elements, in place of keep, the
    share of numbers below the threshold (Ye et al.'s p). It is no share of zeros: at 0.9 some 30 to 45 % of all stay.
    """

    kind: Literal["channel", "element", "pixel", "map"] = "channel"
    keep: Share = 1.0
    target: Fraction = 0.0  # 0: by keep
    threshold: Literal["sampled", "lognormal"] = "sampled"  # of elements: how it is found for keep
    score: Annotated[str, Word(tuple(SCORES)), Beside(".py")] = "error"  # or one's own, as file.py:name
    dense_first: Annotated[int, Field(ge=0)] = 0  # the first n convolutions stay exact
    warmup_steps: Annotated[int, Field(ge=0)] = 0  # the first n steps of each round stay exact
    alternate: bool = False  # every other local epoch stays exact

    @property
    def prunes(self) -> bool:
        """Whether anything is left out."""
        return self.keep < 1 or self.target > 0

    @model_validator(mode="after")
    def _of_this_kind(self) -> "ErrorMaps":
        if self.kind != "channel" and self.score != "error":
            raise ValueError(
                f"score is {self.score!r}, which ranks channels, and kind is {self.kind!r}, drawn at random: "
                "leave score out"
            )
        if self.kind != "element" and (self.target or self.threshold != "sampled"):
            raise ValueError(
                f"target and threshold are of kind 'element', and kind is {self.kind!r}: leave them out"
            )
        if self.target and (self.keep < 1 or self.threshold != "sampled"):
            raise ValueError("target sets the threshold by itself: leave keep and threshold out, or target")
        return self


class Quantization(Section):
    """Training in few bits, simulated in float: it is counted (bit_operations), and saves no time here."""

    bits: Annotated[int, Field(ge=2, le=16)] = 8  # weights, activations, propagated errors
    weight_gradient_bits: Annotated[int, Field(ge=2, le=24)] = 16  # the errors that make weight gradients
    range_norm: bool = False  # Range-BN in place of batch norm

    @model_validator(mode="after")
    def _weight_gradient_is_the_finer(self) -> "Quantization":
        if self.weight_gradient_bits < self.bits:
            raise ValueError(
                f"weight_gradient_bits is {self.weight_gradient_bits} and bits {self.bits}; "
                "the errors that make weight gradients need at least as many"
            )
        return self


class CrossEntropy(Section):
    """Of classes. label_smoothing: the share of a target that all classes get."""

    kind: Literal["cross_entropy"]
    label_smoothing: Fraction = 0.0


class Binary(Section):
    """Binary cross-entropy of labels: the mean over a sample's labels."""

    kind: Literal["binary"]


class Squared(Section):
    """Squared error of numbers, which are standardised."""

    kind: Literal["squared"]


class Huber(Section):
    """Squared below `delta`, in standard deviations of the targets, and linear above: few wild targets weigh less."""

    kind: Literal["huber"]
    delta: Positive = 1.0


Loss = Annotated[CrossEntropy | Binary | Squared | Huber, Field(discriminator="kind")]
Transform = Annotated[str, Word(tuple(TRANSFORMS)), Beside(".py")]  # or one's own, as file.py:name


class Training(Section):
    """A device's local training, its optimizer made afresh each round."""

    epochs: Count = 1  # local epochs per round
    batch_size: Count = 32
    learning_rate: Positive = 0.01
    optimizer: Optimizer = Sgd()
    decay: Decay = Constant()  # of the learning rate
    answers: Literal["all", "own"] = (
        "all"  # own: loss, ranking and answers over the classes of one's training samples
    )
    serve: Literal["last", "best", "never_worse"] = (
        "last"  # which round's network answers, by validation samples; never_worse: or the factory model
    )
    what: What = "all"  # is trained; the rest is frozen: head, norm, shift, last, or layers by name
    prior: Literal["none", "em"] = "none"  # em: answers corrected by a label prior from unlabelled samples
    source: Literal["own", "generated", "replay"] | None = (
        None  # of the features that a head is trained on; None: samples go through the whole network each time
    )
    adaptation: Adaptation = Adaptation()  # how prior and source are had
    loss: Loss | None = None  # None: of the data's task, cross_entropy, binary or squared
    transform: Transform = "none"  # of training batches: crop_flip, or one's own as file.py:name
    pruning: Pruning = Pruning()
    instance_filter: InstanceFilter = OtherFilter()
    error_maps: ErrorMaps = ErrorMaps()
    quantization: Quantization | None = None
    exits: Exits | None = None  # None: the network has none
    contrast: Contrast | None = None  # None: from labels

    @property
    def finds_prior(self) -> bool:
        """Whether a device estimates how often each class occurs, for all of its answers or for its last exit's."""
        return self.prior == "em" or (self.exits is not None and self.exits.prior == "em")

    @model_validator(mode="after")
    def _other_ways_can_be(self) -> "Training":
        require_exits_alone(self)
        require_contrast_alone(self)
        return self

    @model_validator(mode="before")
    @classmethod
    def _keys_that_moved(cls, value: Any) -> Any:
        for key in ("momentum", "weight_decay"):
            if isinstance(value, dict) and key in value:
                raise ValueError(
                    f"{key} stands in the optimizer's table: optimizer = {{ {key} = {value[key]} }}, on a command line "
                    f"training.optimizer.{key}={value[key]}"
                )
        return value

    @model_validator(mode="after")
    def _adaptation_can_be(self) -> "Training":
        if said := contradiction(self):
            raise ValueError(said)
        return self
