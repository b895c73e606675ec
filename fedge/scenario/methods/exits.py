"""`[training.exits]`: early exits along the network, trained in the factory and again on a device for its person."""

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, model_validator

from fedge.scenario.section import Count, Fraction, NotNegative, Positive, Probability, Section, Share

if TYPE_CHECKING:
    from fedge.scenario.training import Training

OWN_PLACES = 3  # of a family, at most
BY_EXIT = "first_exit"  # the filter that goes by exits
FROM_LIST = Field(strict=False)  # as in training.py


class Exits(Section):
    """Only the exits are trained, on a trunk that stands still; a sample leaves at the first that is sure enough.

    teach: from labels; from the last exit's answers (hard) or its probabilities (soft); none: exits stay as they were
    shipped, and thresholds alone are chosen. Under hard and soft the share `labelled` of a device's samples has labels
    all the same. prior: em corrects the last exit by how often this person meets each class, found without labels as
    `[training.adaptation]` says.
    """

    where: Annotated[
        tuple[str, ...], FROM_LIST
    ] = ()  # layers behind which exits stand; none: the family's own places
    channels: Count = 48  # of an exit's convolution
    factory_epochs: Count = 5  # of the exits in the factory, when the network has had its own
    teach: Literal["labels", "hard", "soft", "none"] = "labels"
    labelled: Probability | None = None  # 1 where labels teach, else 0
    temperature: Positive = 1.0  # of soft
    prior: Literal["em", "none"] = "em"
    accuracy: Share | None = (
        None  # that those who leave must reach on validation samples; None: the last exit's
    )
    slack: Fraction = 0.0  # that they may be below the last exit's
    threshold: NotNegative | None = None  # of every exit, in place of one chosen; above 1 nobody leaves early
    retrain_epochs: Annotated[int, Field(ge=0)] = 0  # of the whole network, after a cut, before its exits'

    @property
    def shape(self) -> tuple[object, ...]:
        """What the factory model depends on, and so is the same for a whole fleet."""
        return self.where, self.channels, self.factory_epochs

    @property
    def most(self) -> int:
        """How many a network has at most, the last among them."""
        return (len(self.where) or OWN_PLACES) + 1

    @property
    def known(self) -> float:
        """The share of samples whose labels the device knows."""
        return self.labelled if self.labelled is not None else float(self.teach in ("labels", "none"))

    @property
    def needs_teacher(self) -> bool:
        """Whether a training pass goes on to the last exit."""
        return self.teach in ("hard", "soft") and self.known < 1

    @model_validator(mode="after")
    def _can_be(self) -> "Exits":
        if self.teach == "labels" and not self.known:
            raise ValueError(
                "teach is 'labels' and labelled 0: nothing teaches; take 'soft', or raise labelled"
            )
        if self.retrain_epochs and not self.known:
            raise ValueError(
                "retrain_epochs trains the whole network from labels, and labelled is 0: raise labelled"
            )
        if len(set(self.where)) < len(self.where) or not all(self.where):
            raise ValueError(f"where is {list(self.where)}; name each layer once")
        if self.threshold is not None and (self.accuracy is not None or self.slack):
            raise ValueError(
                "threshold is given, and accuracy or slack by which one is chosen: leave one out"
            )
        if self.accuracy is not None and self.slack:
            raise ValueError(
                "accuracy and slack are both given: slack is below the last exit's; leave one out"
            )
        return self


def require_exits_alone(training: "Training") -> None:
    """ValueError where `training` has exits and what trains or serves something else than exits on a still trunk, or
    has none and a filter that goes by them."""
    by_exit = training.instance_filter.kind == BY_EXIT
    if training.exits is None:
        if by_exit:
            raise ValueError(
                f"instance_filter.kind is {BY_EXIT!r}, which goes by how sure a network's first exit is: give exits, "
                "or take another kind"
            )
        return
    if getattr(training.pruning.level, "search", None) == "accuracy":
        raise ValueError(
            "pruning.level searches by accuracy after retraining, and exits are trained on a trunk that stands still: "
            "search by memory or macs, or give a level"
        )
    others = {
        "what": (training.what, "all"),
        "serve": (training.serve, "last"),
        "prior": (training.prior, "none"),
        "source": (training.source, None),
        "contrast": (training.contrast, None),
        "error_maps.keep": (training.error_maps.keep, 1.0),
        "error_maps.target": (training.error_maps.target, 0.0),
        "instance_filter.kind": (training.instance_filter.kind, BY_EXIT if by_exit else "none"),
        "quantization": (training.quantization, None),
    }
    for key, (got, wanted) in others.items():
        if got != wanted:
            said = repr(got) if isinstance(got, str | float | tuple) else "given"
            raise ValueError(
                f"exits are trained on a trunk that stands still, and {key} is {said}, which does not go with them: "
                f"leave {key} or exits out" + (", and see exits.prior" if key == "prior" else "")
            )
