"""Early instance filter (EIF): a small network drops instances before the main network sees them.

Wu, Wang, Shi, Hu, "Enabling on-device CNN training by self-supervised instance filtering and error map pruning",
arXiv 2007.03213, IEEE TCAD 39(11), section III, equations 1 to 7. Per mini-batch of B instances:

    z_B2 = filter(x)                                              p = softmax(z), classes L = 0, H = 1
    kept, looked at = controller.choose(z_H - z_L)                controllers.py: the paper's rules or ours
    y_i  = H if T_l <= loss_i <= T_cap else L                     (1); T_cap is ours
    L    = sum_i w_(y_i) * CE(z_i, y_i) / sum_i w_(y_i)           (6), (7), over kept and looked at
    w_H  = 1 / keep,  w_L = 1 / (1 - keep)

What we changed, and why:
- The quantile controller is the default: the paper's rule misses its share (controllers.py).
- Norms in the filter's network are GroupNorm: the instances that it learns from are not those that it judges, so batch
  statistics would differ between the two, and a batch may hold one instance.
- T_cap, the (1 - distrust) quantile of the loss: an instance that stays at the very top is taken for mislabelled, and
  the filter is taught to drop its like. distrust = 0 is the paper.
- A step is as long as what was kept is to what is kept of a full mini-batch, up to LONGEST_STEP: each instance kept
  counts the same. Else the three frames kept while a camera stands still would move the network as far as thirty new
  ones, and so would the one instance of an epoch's last mini-batch.
- The filter may see the image at half the resolution, which costs it a quarter.
The norms and the resolution hold for both controllers.

Costs: the filter's forward on all B, its forward and backward on those it learns from, and the comparison with the
instances before; the main network's forward on those looked at is counted by the training loop.
Shapes: B on offer, K kept, N of known loss (kept and looked at).
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from fedge.errors import UserError
from fedge.training.instance_filter.base import Filter, MiniBatch, Selection
from fedge.training.instance_filter.controllers import Choice, Controller, PaperController, QuantileController
from fedge.training.instance_filter.near_duplicates import NearDuplicates
from fedge.training.instance_filter.network import FilterNetworkName, build_filter_network
from fedge.training.macs import count_macs
from fedge.training.outputs import require_finite_inputs

ControllerName = Literal["quantile", "paper"]
LONGEST_STEP = 2.0
"""Of an optimiser step in units of its learning rate."""


class EarlyInstanceFilter(Filter):
    """Keeps the share `keep` of instances: those that a small network predicts to have high losses, and some at random.

    in_channels, image_size: of the instances, C and the side or (H, W) in pixels.
    keep: 0 < keep <= 1; 1 keeps all, and the network is neither run nor trained.
    controller: "quantile" holds the share; "paper" is equations 1 to 5 (its share drifts).
    explore: least share of the kept drawn at random, 0 < explore <= 1 (1: a coin); quantile only.
    distrust: share of highest losses taken for wrong labels, 0 <= distrust < keep; quantile only.
    learning_rate: of the filter's own plain SGD, above 0.
    network: "slim_lenet", "resnet8", or "auto": the first for one channel, the second for more.
    downsample: the filter sees the image averaged over downsample x downsample pixels; 1 sees it whole (the paper).

    `train` scales gradients by `step_length`; that shortens a step of SGD, not one of Adam. UserError for a value out
    of range.
    """

    tensors = ("largest_batch",)

    def __init__(
        self,
        in_channels: int = 1,
        image_size: int | tuple[int, int] = 28,
        keep: float = 0.2,
        seed: int = 0,
        *,
        controller: ControllerName = "quantile",
        explore: float = 0.5,
        distrust: float = 0.0,
        learning_rate: float = 0.1,
        network: FilterNetworkName = "auto",
        downsample: int = 2,
    ) -> None:
        super().__init__(keep, seed)
        if controller not in ("quantile", "paper"):
            raise UserError(f"instance filter: controller is '{controller}'; take 'quantile' or 'paper'")
        if not 0 < explore <= 1:
            raise UserError(f"instance filter: explore is {explore}; it is a share above 0 and at most 1")
        if not 0 <= distrust < keep:
            raise UserError(
                f"instance filter: distrust is {distrust}; take a share from 0 to below keep ({keep})"
            )
        if not learning_rate > 0:
            raise UserError(f"instance filter: learning_rate is {learning_rate}; take a number above 0")
        height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
        size = (height, width)
        self.distrust = distrust
        self.shape = (in_channels, *size)
        self.largest_batch = torch.tensor(0)
        self.network = build_filter_network(
            network, in_channels=in_channels, image_size=size, downsample=downsample, seed=seed
        )
        self.table = count_macs(self.network, (in_channels, *size))
        self.optimizer = torch.optim.SGD(self.network.parameters(), lr=learning_rate)
        self.controller: Controller = (
            PaperController(keep)
            if controller == "paper"
            else QuantileController(keep, least_explore=explore)
        )
        self.duplicates = NearDuplicates(in_channels, size) if controller == "quantile" else None

    @property
    def threshold(self) -> float:
        """T_l now, in nats."""
        return self.controller.loss_threshold()

    def select(self, batch: MiniBatch) -> Selection:
        """By the image alone: no look at labels or losses."""
        if tuple(batch.x_BCHW.shape[1:]) != self.shape:
            raise UserError(
                f"instance filter: it was made for instances {list(self.shape)} (channels, height, width), and these "
                f"are {list(batch.x_BCHW.shape[1:])}: make one with their in_channels and image_size"
            )
        if self.keep == 1:
            return torch.arange(len(batch.y_B)), None
        self.largest_batch = self.largest_batch.clamp(min=len(batch.y_B))
        self.network.to(batch.x_BCHW.device)
        with torch.no_grad():
            logits_B2 = self.network(batch.x_BCHW)
        self.macs += len(logits_B2) * self.table.forward
        margin_B = logits_B2[:, 1] - logits_B2[:, 0]
        if not margin_B.isfinite().all():
            require_finite_inputs(batch.x_BCHW)
        seen_B = self._seen(batch.x_BCHW)
        self._choice: Choice = self.controller.choose(margin_B.cpu(), seen_B.cpu(), self.generator)
        return self._choice.kept_B.nonzero().flatten(), None

    def step_length(self, kept: int, offered: int) -> float:
        """In proportion to what was kept; 1 under the paper's rule, and for keep = 1."""
        usual = max(1.0, self.keep * max(offered, int(self.largest_batch)))
        return 1.0 if self.duplicates is None else min(LONGEST_STEP, kept / usual)

    def _seen(self, x_BCHW: Tensor) -> Tensor:
        if self.duplicates is None:
            return torch.zeros(len(x_BCHW))
        self.macs += len(x_BCHW) * self.duplicates.macs_per_instance
        return self.duplicates.count(x_BCHW.cpu())

    def learn(self, batch: MiniBatch, kept_K: Tensor, loss_K: Tensor) -> None:
        """Label all whose loss is known and take one step on them."""
        if self.keep == 1:
            return
        looked_U = self._choice.looked_B.nonzero().flatten()
        known_N = torch.cat([kept_K, looked_U])
        loss_N = torch.cat([loss_K.cpu(), batch.look(looked_U).cpu()])
        kept_N = torch.arange(len(known_N)) < len(kept_K)
        self.controller.learn(loss_N, self._choice.weight_B[known_N], kept_N, len(batch.y_B))
        if len(known_N):
            self._update(batch.x_BCHW[known_N], self._is_high(loss_N))

    def _is_high(self, loss_N: Tensor) -> Tensor:
        """Equation 1, with the cap on losses too high to be trusted."""
        high_N = loss_N >= self.threshold
        if self.distrust and isinstance(self.controller, QuantileController):
            high_N &= loss_N <= self.controller.loss_quantile(1 - self.distrust)
        return high_N

    def _update(self, x_NCHW: Tensor, high_N: Tensor) -> None:
        """Equations 6 and 7, one step of SGD."""
        weight_2 = torch.tensor([1 / (1 - self.keep), 1 / self.keep], device=x_NCHW.device)
        self.optimizer.zero_grad()
        logits_N2 = self.network(x_NCHW)
        F.cross_entropy(logits_N2, high_N.long().to(x_NCHW.device), weight=weight_2).backward()
        self.optimizer.step()
        self.macs += len(high_N) * self.table.training

    def state_dict(self) -> dict[str, Tensor]:
        """Generator, network and controller; plain SGD has no state of its own."""
        return super().state_dict() | {name: tensor.clone() for name, tensor in self._learnt().items()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Go on from `state`; UserError when it belongs to a filter of another kind or shape."""
        mine = self._learnt()
        self.check_state(state, mine)
        super().load_state_dict({name: tensor for name, tensor in state.items() if name not in mine})
        learnt = {
            part: {name: state[f"{part}.{name}"].clone() for name in tensors}
            for part, tensors in self._parts().items()
        }
        self.network.load_state_dict(learnt["network"])
        self.controller.tensors = learnt["controller"]
        if self.duplicates is not None:
            self.duplicates.tensors = learnt["duplicates"]

    def _parts(self) -> dict[str, dict[str, Tensor]]:
        """What each part has learnt."""
        parts = {"network": self.network.state_dict(), "controller": self.controller.tensors}
        return parts if self.duplicates is None else parts | {"duplicates": self.duplicates.tensors}

    def _learnt(self) -> dict[str, Tensor]:
        return {
            f"{part}.{name}": tensor
            for part, tensors in self._parts().items()
            for name, tensor in tensors.items()
        }
