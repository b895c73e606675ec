"""Early instance filter (EIF): a small network drops instances before the main network sees them.

Wu, Wang, Shi, Hu, "Enabling on-device CNN training by self-supervised instance filtering and error map pruning",
arXiv 2007.03213, IEEE TCAD 39(11), section III, equations 1 to 7. Per mini-batch of B instances:

    z_B2 = filter(x)                                                p = softmax(z), classes L = 0, H = 1
    kept = rule.choose(z_H - z_L)                                   loss_threshold.py: the paper's rule or ours
    looked at = among the dropped: entropy(p) > entropy_threshold   (4), (5): uncertain ones
                and each with probability look / (1 - keep)         ours
    y_i  = H if T_l <= loss_i <= T_cap else L                       (1); T_cap is ours
    L    = sum_i w_(y_i) * CE(z_i, y_i) / sum_i w_(y_i)             (6), (7), over kept and looked at
    w_H  = 1 / keep,  w_L = 1 / (1 - keep)

What we changed, and why:
- Some dropped instances are looked at by chance, whatever the filter says of them: with uncertain ones alone, a filter
  that is sure of itself and wrong learns nothing ever again. Under the quantile rule they are the only ones, since
  their probability is known and T_l needs it.
- Norms in the filter's network are GroupNorm: the instances that it learns from are not those that it judges, so batch
  statistics would differ between the two, and a batch may hold one instance.
- T_cap, the (1 - distrust) quantile of the loss: an instance that stays at the very top is taken for mislabelled, and
  the filter is taught to drop its like. distrust = 0 is the paper.

Costs of the filter: its forward on all B, forward and backward on those it learns from; the main network's forward on
those looked at is counted by the training loop. Shapes: B on offer, K kept, N known (kept and looked at).
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from fedge.errors import UserError
from fedge.training.filter_network import FilterNetworkName, build_filter_network
from fedge.training.loss_threshold import PaperRule, QuantileRule, ThresholdRule
from fedge.training.macs import count_macs
from fedge.training.selection import Filter, MiniBatch, Selection

Controller = Literal["quantile", "paper"]


class EarlyInstanceFilter(Filter):
    """Keeps the share `keep` of instances that a small network predicts to have the highest losses.

    keep: 0 < keep <= 1; 1 keeps all, and the network is neither run nor trained.
    controller: "quantile" holds the share; "paper" is equations 1 to 3 (its share drifts: docs/training.md).
    look: share of all instances looked at by chance, forward only; 0 < look < 1 - keep. The paper's rule, which looks
        at the uncertain, looks by chance only when it would learn nothing.
    entropy_threshold: in nats, 0 .. ln 2; the paper's rule alone uses it.
    distrust: share of highest losses taken for wrong labels; 0 trusts every label.
    downsample: the filter sees the image averaged over downsample x downsample pixels; 1 sees it whole.
    """

    def __init__(
        self,
        in_channels: int = 1,
        image_size: int | tuple[int, int] = 28,
        keep: float = 0.2,
        seed: int = 0,
        *,
        controller: Controller = "quantile",
        explore: float = 0.25,
        momentum: float = 0.0,
        sample_weighted: bool = False,
        entropy_threshold: float = 0.5,
        distrust: float = 0.0,
        learning_rate: float = 0.1,
        network: FilterNetworkName = "auto",
        downsample: int = 1,
    ) -> None:
        super().__init__(keep, seed)
        if controller not in ("quantile", "paper"):
            raise UserError(f"instance filter: controller is '{controller}'; take 'quantile' or 'paper'")
        if not 0 <= distrust < keep:
            raise UserError(
                f"instance filter: distrust is {distrust}; it is a share from 0 to below keep ({keep})"
            )
        self.controller = controller
        self.sample_weighted=sample_weighted
        ranked_share = keep * (1 - explore)
        self.explore_probability = (keep - ranked_share) / (1 - ranked_share)
        self.entropy_threshold = entropy_threshold
        self.distrust = distrust
        self.network = build_filter_network(
            network, in_channels=in_channels, image_size=image_size, downsample=downsample, seed=seed
        )
        height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
        self.table = count_macs(self.network, (in_channels, height, width))
        self.optimizer = torch.optim.SGD(self.network.parameters(), lr=learning_rate, momentum=momentum)
        self.rule: ThresholdRule = PaperRule(keep) if controller == "paper" else QuantileRule(keep, ranked_share)

    @property
    def threshold(self) -> float:
        """T_l now, in nats."""
        return self.rule.loss_threshold()

    def select(self, batch: MiniBatch) -> Selection:
        """Those predicted to be worth it; no look at their labels or losses."""
        if self.keep == 1:
            return torch.arange(len(batch.y_B)), None
        with torch.no_grad():
            logits_B2 = self.network(batch.x_BCHW)
        self.macs += len(logits_B2) * self.table.forward
        margin_B = logits_B2[:, 1] - logits_B2[:, 0]
        ranked_B = self.rule.choose(margin_B)
        explored_B = torch.rand(len(margin_B), generator=self.generator) < self.explore_probability
        if self.controller == "quantile":
            kept_B = ranked_B | explored_B
            self._weight_K = torch.where(ranked_B, 1.0, 1 / self.explore_probability)[kept_B]
            self._looked_U = torch.empty(0, dtype=torch.int64)
        else:
            kept_B = ranked_B
            uncertain_B = ~ranked_B & (entropy(margin_B) > self.entropy_threshold)
            if not (kept_B | uncertain_B).any():
                uncertain_B = explored_B
            self._weight_K = torch.ones(int(kept_B.sum()))
            self._looked_U = uncertain_B.nonzero().flatten()
        return kept_B.nonzero().flatten(), None

    def learn(self, batch: MiniBatch, kept_K: Tensor, loss_K: Tensor) -> None:
        """Label all whose loss is known, take one step on them."""
        if self.keep == 1:
            return
        known_N = torch.cat([kept_K, self._looked_U])
        loss_N = torch.cat([loss_K, batch.look(self._looked_U)])
        kept_N = torch.arange(len(known_N)) < len(kept_K)
        weight_N = torch.cat([self._weight_K, torch.ones(len(self._looked_U))])
        self.rule.learn(loss_N, kept_N, weight_N, len(batch.y_B))
        if len(known_N):
            self._update(batch.x_BCHW[known_N], self._is_high(loss_N).long(), weight_N)

    def _is_high(self, loss_N: Tensor) -> Tensor:
        """Equation 1, with the cap on losses too high to be trusted."""
        high_N = loss_N >= self.threshold
        if self.distrust:
            high_N &= loss_N <= self.rule.loss_quantile(1 - self.distrust)
        return high_N

    def _update(self, x_NCHW: Tensor, high_N: Tensor, weight_N) -> None:
        """Equations 6 and 7, one step of SGD."""
        weight_2 = torch.tensor([1 / (1 - self.keep), 1 / self.keep])
        self.optimizer.zero_grad()
        w = weight_2[high_N] * (weight_N if self.sample_weighted else 1)
        l = F.cross_entropy(self.network(x_NCHW), high_N, reduction="none")
        ((l * w).sum() / w.sum()).backward()
        self.optimizer.step()
        self.macs += len(high_N) * self.table.training

    def state_dict(self) -> dict[str, Tensor]:
        """Network, rule, generator; plain SGD has no state of its own."""
        network = {f"network.{name}": value.clone() for name, value in self.network.state_dict().items()}
        rule = {f"rule.{name}": value.clone() for name, value in self.rule.tensors.items()}
        return super().state_dict() | network | rule

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Go on from `state`; UserError when it belongs to another filter or another network."""
        own = self.state_dict()
        if any(own.get(name) is None or own[name].shape != value.shape for name, value in state.items()):
            super().load_state_dict(state)  # says what does not match
        self.network.load_state_dict(_below("network.", state))
        self.rule.tensors = {name: value.clone() for name, value in _below("rule.", state).items()}
        super().load_state_dict({name: value for name, value in state.items() if "." not in name})


def _below(prefix: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}


def entropy(margin_B: Tensor) -> Tensor:
    """Equation 5 in nats, of the two-class softmax with z_H - z_L = margin: 0 when sure, ln 2 at margin 0."""
    p_B = torch.sigmoid(margin_B)
    return -(torch.special.xlogy(p_B, p_B) + torch.special.xlogy(1 - p_B, 1 - p_B))
