"""Where a network comes from: a word of `fedge.models`, or a function of one's own, with its text and arguments.

It holds all that builds the network again: it stands in the prepared folder, and every host, a resumed run and a device
on Flower's own runtime make the same network from it.
"""

import importlib.metadata
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import PurePath
from typing import Any, Self

from torch import nn

from fedge.catalog.names import is_reference
from fedge.catalog.program import Program
from fedge.errors import FedgeError, UserError, is_out_of_memory
from fedge.models import build
from fedge.network.arguments import arguments_of
from fedge.network.sandbox import sandboxed
from fedge.references import Programs, error_in, resolve_callable
from fedge.scenario.methods.exits import Exits
from fedge.scenario.model import Model
from fedge.seeding import derive_seed
from fedge.torchvision_compat import with_torchvision
from fedge.training.exits.network import with_exits

Shape = tuple[int, int, int]  # C, H, W of one sample


@dataclass(frozen=True)
class WithExits:
    """Early exits behind the layers of these names (none: the family's own places), that many channels each."""

    where: tuple[str, ...]
    channels: int


@dataclass(frozen=True)
class NetworkSource:
    """name: a word, `package.module:function`, or `net.py:build` with the text of that file as `program`.

    exits: that the network is given, as a trunk; None: it is as its function made it.
    """

    name: str
    args: dict[str, Any] = field(default_factory=dict)
    program: Program | None = None
    exits: WithExits | None = None

    @classmethod
    def of(cls, model: Model, programs: Programs, exits: Exits | None = None) -> Self:
        """The scenario's; the same wherever its files lie. exits: that it is shipped with."""
        where, _, function = model.reference.rpartition(":")
        program = programs.get(where)
        name = model.reference if program is None else f"{PurePath(where).name}:{function}"
        at = None if exits is None else WithExits(exits.where, exits.channels)
        return cls(name, dict(model.args), program, at)

    @classmethod
    def from_table(cls, table: Mapping[str, Any]) -> Self:
        """What `dataclasses.asdict` made, read back from JSON."""
        program, exits = table["program"], table.get("exits")
        return cls(
            table["name"],
            dict(table["args"]),
            None if program is None else Program(**program),
            None if exits is None else WithExits(tuple(exits["where"]), exits["channels"]),
        )

    @property
    def trunk(self) -> Self:
        """The same without exits."""
        return replace(self, exits=None)

    @property
    def is_own(self) -> bool:
        """Whether it is code of the user's, and not a word of fedge's."""
        return is_reference(self.name)

    @property
    def version(self) -> str:
        """Of the installed package that it comes from; "" for a file's, and where there is none."""
        if self.program is not None or not self.is_own:
            return ""
        try:
            return importlib.metadata.version(self.name.partition(":")[0].partition(".")[0])
        except importlib.metadata.PackageNotFoundError:
            return ""

    def build(self, num_classes: int, shape: Shape, *, seed: int = 0) -> nn.Module:
        """The network with fresh weights, which are a function of its name and `seed`: [B, *shape] to [B, num_classes].

        UserError, in one line, where it cannot be had.
        """
        trunk = self._built(num_classes, shape, seed)
        return (
            trunk
            if self.exits is None
            else with_exits(trunk, shape, num_classes, seed=seed, **vars(self.exits))
        )

    def _built(self, num_classes: int, shape: Shape, seed: int) -> nn.Module:
        channels, height, width = shape
        facts = {"num_classes": num_classes, "in_channels": channels, "image_size": (height, width)}
        if not self.is_own:
            return build(self.name, seed=seed, **facts, **self.args)  # type: ignore[arg-type]
        function = self._function()
        arguments = arguments_of(function, facts, self.args, own_file=self.program is not None, who=self.name)
        with sandboxed(derive_seed(seed, "model", self.name)):
            model = self._call(function, arguments)
        if isinstance(model, nn.Module):
            return model
        got = f"the class {model.__name__}" if isinstance(model, type) else f"a {type(model).__name__}"
        raise UserError(f"{self.name} gives {got}; a torch.nn.Module is wanted")

    def _function(self) -> Callable[..., Any]:
        where = self.name.rpartition(":")[0]
        programs = {} if self.program is None else {where: self.program}
        with sandboxed(0):
            found: Callable[..., Any] = resolve_callable(self.name, programs, key="model")
        return found

    def _call(self, function: Callable[..., Any], arguments: Mapping[str, Any]) -> Any:
        try:
            return with_torchvision(lambda: function(**arguments))
        except FedgeError:
            raise
        except (Exception, SystemExit) as error:
            if is_out_of_memory(error):
                raise
            raise UserError(f"{self.name} fails: {self.in_words(error)}") from error

    def in_words(self, error: BaseException) -> str:
        """What the network's own code raised, in one line."""
        text = error_in(self.name.rpartition(":")[0], error)
        not_had = isinstance(error, OSError) and not isinstance(error, TimeoutError)  # a download, a file
        if not_had or {"weights", "pretrained"} & set(self.args):
            text += (
                "; a network is built without files and downloads: give its first weights as model.weights"
            )
        return text
