"""The edge client, with one figure more: the mean over the classes of the share of them that is answered rightly."""

import torch
from flwr.clientapp import ClientApp

from fedge.device.device import Device
from fedge.device.handler import on_device
from fedge.privacy.egress import egress_gate
from fedge.protocol import RoundPlan, RoundReport

app = ClientApp(mods=[egress_gate])


@app.train()
@on_device
def improve(device: Device, plan: RoundPlan) -> RoundReport:
    if plan.prune and not device.pruned:
        device.prune()
    device.train(instance_filter=device.instance_filter(), error_maps=device.error_maps())
    return device.report(balanced_accuracy=balanced_accuracy(device))


@torch.no_grad()
def balanced_accuracy(device: Device) -> float:
    """On the validation samples; 1 where there are none."""
    device.model.eval()
    batches = list(device.shard.batches("validation", 256))
    if not batches:
        return 1.0
    answer_N = torch.cat([device.model(x_BCHW).argmax(1) for x_BCHW, _ in batches])
    y_N = torch.cat([y_B for _, y_B in batches])
    right_N = (answer_N == y_N).float()
    return float(torch.stack([right_N[y_N == label].mean() for label in y_N.unique()]).mean())
