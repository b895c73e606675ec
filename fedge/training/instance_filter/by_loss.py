"""Filters that choose by the main network's own loss: what the early filter is measured against.

    ohem                top `keep` of the mini-batch by loss                      (Shrivastava et al., CVPR 2016)
    selective_backprop  kept with probability percentile(loss)^beta among the last 1024 losses, beta = 1 / keep - 1,
                        whose mean over percentiles is `keep`                     (Jiang et al., arXiv 1910.00762)
    infobatch           last known loss below the mean of all known: kept with probability 1 - r and weighted
                        1 / (1 - r); above it or unknown: kept                    (Qin et al., ICLR 2024)

The first two run the main network forward on every instance before they drop it, and again on those kept, so they
cannot save more than the backward of what they drop: the cost is 1/3 + keep of dense training. (The EIF paper books
them at 1/3 + 2/3 keep, as if the first forward could be kept for some rows of the mini-batch.)
InfoBatch costs nothing, but has to see the very same pixels again: an augmented image is new each time.
Shapes: B instances on offer, K kept.
"""

import hashlib

import torch
from torch import Tensor

from fedge.errors import UserError
from fedge.training.instance_filter.base import Filter, MiniBatch, Selection
from fedge.training.instance_filter.controllers import push

LEAST_PROBABILITY = 0.1
"""Of keeping an easy instance in InfoBatch; its weight is at most the inverse."""


class HardestFilter(Filter):
    """OHEM: the round(keep * B) instances of highest loss, at least one. Takes wrong labels for hard instances."""

    def select(self, batch: MiniBatch) -> Selection:
        loss_B = batch.look(torch.arange(len(batch.y_B)))
        kept = max(1, int(self.keep * len(loss_B) + 0.5))
        return loss_B.topk(kept).indices.sort().values, None


class SelectiveBackpropFilter(Filter):
    """Kept with probability percentile(loss)^beta, the percentile among the last `history` losses."""

    tensors = ("losses",)

    def __init__(self, keep: float, seed: int = 0, *, history: int = 1024) -> None:
        super().__init__(keep, seed)
        self.losses = torch.full((history,), torch.nan)

    def select(self, batch: MiniBatch) -> Selection:
        loss_B = batch.look(torch.arange(len(batch.y_B))).cpu()
        self.losses = push(self.losses, loss_B)
        known_N = self.losses[~self.losses.isnan()].sort().values
        percentile_B = torch.searchsorted(known_N, loss_B, right=True) / len(known_N)
        draw_B = torch.rand(len(loss_B), generator=self.generator)
        return (draw_B < percentile_B ** (1 / self.keep - 1)).nonzero().flatten(), None


class InfoBatchFilter(Filter):
    """Drops instances whose last loss was below the mean, and weighs up those of them that stay.

    The share kept cannot be below that of the instances above the mean, plus a tenth of the others.
    """

    tensors = ("prints", "losses")

    def __init__(self, keep: float, seed: int = 0) -> None:
        super().__init__(keep, seed)
        self._memory: dict[int, float] = {}

    @property
    def prints(self) -> Tensor:
        """Fingerprints of the instances known [N]; with `losses` [N] this is the memory as tensors."""
        return torch.tensor(list(self._memory), dtype=torch.int64)

    @prints.setter
    def prints(self, prints_N: Tensor) -> None:
        self._memory = dict.fromkeys(prints_N.tolist(), 0.0)

    @property
    def losses(self) -> Tensor:
        """Their last losses [N]."""
        return torch.tensor(list(self._memory.values()), dtype=torch.float64)

    @losses.setter
    def losses(self, losses_N: Tensor) -> None:
        self._memory = dict(zip(self._memory, losses_N.tolist(), strict=True))

    def select(self, batch: MiniBatch) -> Selection:
        self._prints_B = [fingerprint(x_CHW) for x_CHW in batch.x_BCHW.cpu()]
        if not self._memory:
            return torch.arange(len(batch.y_B)), None
        losses_N = self.losses
        mean = float(losses_N.mean())
        below = float((losses_N < mean).double().mean())
        probability = max(LEAST_PROBABILITY, 1 - (1 - self.keep) / max(below, 1 - self.keep, 1e-9))
        easy_B = torch.tensor([self._memory.get(print_, mean) < mean for print_ in self._prints_B])
        kept_B = ~easy_B | (torch.rand(len(easy_B), generator=self.generator) < probability)
        weight_B = torch.where(easy_B, 1 / probability, 1.0)
        return kept_B.nonzero().flatten(), weight_B[kept_B].to(batch.x_BCHW.device)

    def learn(self, batch: MiniBatch, kept_K: Tensor, loss_K: Tensor) -> None:
        """Remember the losses of what was trained on."""
        for index, loss in zip(kept_K.tolist(), loss_K.tolist(), strict=True):
            self._memory[self._prints_B[index]] = loss

    def check_state(self, state: dict[str, Tensor], more: dict[str, Tensor] | None = None) -> None:
        """The memory may be of any length."""
        lengths = {name: state[name] for name in self.tensors if name in state}
        if len({len(tensor) for tensor in lengths.values()}) > 1:
            raise UserError(
                "InfoBatchFilter: the saved state is damaged: it holds unlike numbers of instances and losses; "
                "start without it"
            )
        super().check_state({**state, **{name: getattr(self, name) for name in lengths}}, more)


def fingerprint(x_CHW: Tensor) -> int:
    """64 bits of an image's pixels: the same for the same pixels, in any mini-batch and memory order."""
    pixels = x_CHW.detach().cpu().contiguous().numpy().tobytes()
    return int.from_bytes(hashlib.blake2b(pixels, digest_size=8).digest(), signed=True)
