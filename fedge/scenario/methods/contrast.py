"""`[training.contrast]`: learning by contrast from an unlabelled stream, and a head on few labels."""

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, model_validator

from fedge.scenario.section import Count, Positive, Section

if TYPE_CHECKING:
    from fedge.scenario.training import Training


class Contrast(Section):
    """Selective data contrast (docs/methods/contrast.md). The buffer is the mini-batch, two views of each sample.

    rule: what stays in the buffer. lazy: samples in it are scored every so many segments. labels: of each class, that
    the head is trained on at the end of each round.
    """

    rule: Literal["reservoir", "contrast", "minred", "random", "fifo"] = "reservoir"
    buffer: Annotated[int, Field(ge=2)] = 64  # samples; as many come between two updates of it
    lazy: Count = 1
    temperature: Positive = 0.5
    updates_per_segment: Count = 1
    labels: Count = 5

    @model_validator(mode="after")
    def _lazy_where_something_is_scored(self) -> "Contrast":
        if self.lazy > 1 and self.rule not in ("contrast", "minred"):
            raise ValueError(
                f"lazy is {self.lazy} and rule {self.rule!r}, which scores nothing: leave lazy out, or take 'contrast' "
                "or 'minred'"
            )
        return self


def require_contrast_alone(training: "Training") -> None:
    """ValueError where `training` has contrast and what does not go with it."""
    if training.contrast is None:
        return
    others = {
        "epochs": (training.epochs, 1),
        "answers": (training.answers, "all"),
        "what": (training.what, "all"),
        "loss": (training.loss, None),
        "transform": (training.transform, "none"),
        "pruning.level": (training.pruning.level, 0.0),
        "instance_filter.kind": (training.instance_filter.kind, "none"),
        "quantization": (training.quantization, None),
        "exits": (training.exits, None),
        "prior": (training.prior, "none"),
        "source": (training.source, None),
    }
    for key, (got, wanted) in others.items():
        if got != wanted:
            said = "given" if key in ("loss", "quantization", "exits") else repr(got)
            raise ValueError(
                f"contrast goes once through unlabelled samples, by a loss and views of its own, and {key} is {said}: "
                f"leave {key} out, or contrast"
            )
