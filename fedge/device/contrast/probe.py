"""The probe at the end of a round: the network's head on a few of the device's own labelled samples.

They are the first in memory of each class, `training.contrast.labels` of them at most. Where no label has come yet the
head stays as it is.
"""

import torch

from fedge.device.round import Round
from fedge.training.contrast.probe import features_of, few_of_each, fit_head
from fedge.training.contrast.projection import linear_head
from fedge.training.loop import FLOAT_BIT_OPERATIONS
from fedge.training.macs import count_forward, evaluating
from fedge.training.memory_format import fast_order
from fedge.training.stats import TrainStats


def probe(round: Round, labels: int, batch_size: int) -> TrainStats:
    """Train the head; what it cost. At most `batch_size` samples go through the network at a time."""
    intake, shape = round.intake, round.prepared.input_shape
    model = round.network.model
    _, head = linear_head(model, shape)
    few_N = few_of_each(torch.from_numpy(round.shard.labels("train")), labels)
    if intake is None or not len(few_N):
        return TrainStats()
    intake.drawn(few_N.numpy())
    x_NCHW, y_N = (stored[few_N.numpy()] for stored in round.shard.arrays("train"))
    own = round.shard.with_training(x_NCHW, y_N)
    order = fast_order(model, batch_size, shape)
    with evaluating(model):
        made = [
            (features_of(model, head, x_BCHW), y_B)
            for x_BCHW, y_B in own.batches("train", batch_size, order=order, device=round.torch_device)
        ]
    features_NF, target_N = (torch.cat(parts) for parts in zip(*made, strict=True))
    passes = fit_head(head, features_NF, target_N)
    trunk = len(few_N) * count_forward(model, shape).forward
    through_head = passes * len(few_N) * head.weight.numel()
    return TrainStats(
        macs_forward=trunk + through_head,
        macs_weight_gradient=through_head,
        bit_operations=FLOAT_BIT_OPERATIONS * (trunk + 2 * through_head),
    )
