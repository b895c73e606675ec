"""A network as a trunk and a head: what arrives at its classifier, and what making it costs.

    logits = head(features),  features = trunk(x)

The head is the last layer that multiplies (fedge.training.update.what), and everything before it is the trunk: in
evaluation mode, without a gradient. It must be a linear layer with nothing behind it, so that a head trained on
features is the network's. Shapes: B samples, F features.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fedge.errors import UserError
from fedge.training.macs import count_forward, evaluating, input_of, one_instance
from fedge.training.outputs import one_tensor
from fedge.training.update.what import head_of


@dataclass(frozen=True, eq=False)
class Trunk:
    """`model` without its layer `name`, which is `head`."""

    model: nn.Module
    name: str
    head: nn.Linear
    macs: int  # of making one sample's features

    @classmethod
    def of(cls, model: nn.Module, input_shape: Sequence[int]) -> "Trunk":
        """Of a network on samples [C, H, W] of that shape. UserError where its last layer is not a linear one that
        gives the logits."""
        name = head_of(model, input_shape)
        head = model.get_submodule(name)
        if not isinstance(head, nn.Linear):
            raise UserError(
                f"training.source wants a network that ends in a linear layer; its last layer that multiplies is "
                f"{name!r}, a {type(head).__name__}: leave source out"
            )
        table = count_forward(model, input_shape)
        macs = sum(layer.forward for layer in table.layers if layer.name != name)
        trunk = cls(model, name, head, macs)
        trunk._require_last(one_instance(model, input_shape))
        return trunk

    @property
    def width(self) -> int:
        """F."""
        return self.head.in_features

    def features(self, x_BCHW: Tensor) -> Tensor:
        """What arrives at the head [B, F]; the network's modes are put back."""
        return self._run(x_BCHW)[0]

    def features_of(self, pictures: Iterable[Tensor]) -> Tensor:
        """Of all of them [N, F], batch by batch."""
        made = [self.features(x_BCHW) for x_BCHW in pictures]
        return torch.cat(made) if made else torch.empty(0, self.width)

    def _run(self, x_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        seen: list[Tensor] = []
        handle = self.head.register_forward_pre_hook(
            lambda layer, inputs, by_keyword: seen.append(input_of(inputs, by_keyword)), with_kwargs=True
        )
        try:
            with evaluating(self.model), torch.no_grad():
                out_BK = one_tensor(self.model(x_BCHW))
        finally:
            handle.remove()
        return seen[-1].detach(), out_BK

    def _require_last(self, zeros_1CHW: Tensor) -> None:
        """UserError where what the network returns is not what its head does."""
        features_BF, out_BK = self._run(torch.cat([zeros_1CHW, zeros_1CHW + 1]))
        with torch.no_grad():
            last = features_BF.dim() == 2 and torch.equal(self.head(features_BF), out_BK)
        if not last:
            raise UserError(
                f"training.source wants a network that returns what its last layer {self.name!r} gives of one vector "
                "for each sample; something is done behind it, or before, to more than a vector: leave source out"
            )


def in_batches(
    features_NF: Tensor,
    y_N: Tensor,
    batch_size: int,
    seed: int,
    drawn: Callable[[Tensor], None] | None = None,
) -> Iterator[tuple[Tensor, Tensor]]:
    """One epoch over features that are there, in the order in which `Shard.batches` takes its rows by that seed.

    drawn: is told the rows of each mini-batch.
    """
    order_N = torch.randperm(len(y_N), generator=torch.Generator().manual_seed(seed))
    for rows_B in order_N.split(batch_size) if len(y_N) else ():
        if drawn is not None:
            drawn(rows_B)
        yield features_NF[rows_B], y_N[rows_B]
