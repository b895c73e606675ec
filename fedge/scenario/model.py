"""`[model]`: the network that every device ships with: a word, or one's own; its first weights; how it is trained."""

from pathlib import PurePath
from typing import Annotated

from pydantic import Field, ValidationInfo, field_validator, model_validator

from fedge.catalog.names import MODELS, is_reference
from fedge.scenario.beside import Beside
from fedge.scenario.section import Count, Fraction, NotNegative, Positive, Section, Word
from fedge.scenario.training import Loss, Transform

BUILD = "build"  # what a network's program defines
FROM_DATA = ("num_classes", "in_channels", "image_size")  # arguments of a network that its data say

WIDTH, MOST_WIDTH = "width", 4  # how much wider than published a network of fedge's is

Value = bool | int | float | str
Argument = Value | list[Value]


class Factory(Section):
    """How the factory model is trained on the factory split. epochs 0: it ships with its initial weights."""

    epochs: Annotated[int, Field(ge=0)] = 5  # 0 where model.weights is given
    batch_size: Count = 64
    learning_rate: Positive = 0.05
    momentum: Fraction = 0.9
    weight_decay: NotNegative = 5e-4
    loss: Loss | None = None  # as training.loss
    transform: Transform = "none"  # as training.transform


class Model(Section):
    """A network by `name` or by `program`. args: what its function gets beside what the data say; of a network by its
    word `width`, the share of its published channels.

    weights: a file of tensors (.safetensors, .pth, .pt), found where the data are prepared; the layers named in `reset`
    start anew.
    """

    name: Annotated[str, Word(tuple(MODELS)), Beside(".py")] | None = (
        None  # a word, or file.py:name, package.module:name
    )
    program: Annotated[str, Beside()] | None = (
        None  # a file that defines build(num_classes, in_channels, image_size)
    )
    args: dict[str, Argument] = Field(default_factory=dict)
    weights: Annotated[str, Beside()] | None = None
    reset: tuple[str, ...] = ()
    factory: Annotated[Factory, Field(validate_default=True)] = Factory()

    @property
    def reference(self) -> str:
        """A word of `MODELS`, or what resolves to the function that builds the network."""
        return self.name or f"{self.program}:{BUILD}"

    @property
    def label(self) -> str:
        """The network in a word, for people and folders' names: lenet, net, resnet18."""
        where, _, attribute = self.reference.rpartition(":")
        if not where:
            return attribute
        return PurePath(where).stem if attribute == BUILD else attribute

    @field_validator("factory")
    @classmethod
    def _given_weights_are_shipped_as_they_are(cls, factory: Factory, info: ValidationInfo) -> Factory:
        if info.data.get("weights") and "epochs" not in factory.model_fields_set:
            return factory.model_copy(update={"epochs": 0})
        return factory

    @model_validator(mode="after")
    def _one_network(self) -> "Model":
        if (self.name is None) == (self.program is None):
            got = "no network" if self.name is None else "two networks, by name and by program"
            raise ValueError(f'{got}; give one: name = "lenet" (fedge list models), or program = "net.py"')
        return self

    @model_validator(mode="after")
    def _args_have_a_taker(self) -> "Model":
        if self.name is not None and not is_reference(self.name):
            self._require_width(self.name)
        if taken := sorted(set(self.args) & set(FROM_DATA)):
            raise ValueError(f"args hold {taken[0]!r}, which the data say: leave it out")
        return self

    def _require_width(self, name: str) -> None:
        """All that a network of fedge's takes."""
        if others := sorted(set(self.args) - {WIDTH}):
            raise ValueError(
                f"args hold {others[0]!r}, and {name} takes width alone, as args = {{ width = 0.5 }}; more is for a "
                "network of one's own"
            )
        width = self.args.get(WIDTH, 1.0)
        if isinstance(width, bool | str | list) or not 0 < width <= MOST_WIDTH:
            raise ValueError(
                f"args.width is {width!r}; a number above 0 and at most {MOST_WIDTH} is wanted: 0.5 is half of each "
                "layer's channels"
            )

    @model_validator(mode="after")
    def _reset_is_of_given_weights(self) -> "Model":
        if self.reset and self.weights is None:
            raise ValueError("reset names layers of given weights that start anew, and weights is not given")
        if "" in self.reset:
            raise ValueError('reset holds ""; name layers, as in reset = ["head"], or leave weights out')
        return self
