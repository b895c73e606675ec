"""A client program: what every device does in a round. It runs on the device; only the report leaves it.

Name it in a scenario, relative to its file: client = "mine.py". Guide: docs/guide/own_client.md.
"""

import torch
from flwr.clientapp import ClientApp
from torch.nn import functional

from fedge.device.device import Device
from fedge.device.handler import on_device
from fedge.privacy.egress import egress_gate
from fedge.protocol import RoundPlan, RoundReport

app = ClientApp(mods=[egress_gate])  # the gate, first: it lets nothing but a report pass


@app.train()
@on_device
def improve(device: Device, plan: RoundPlan) -> RoundReport:
    """Prune where the plan asks for it, then train."""
    if plan.prune and not device.pruned:
        device.prune()  # to training.pruning.level, with this client's own data in view
    print(f"client {device.client}: {len(device.shard)} samples, round {plan.round}")
    train_by_hand(device, plan)  # or: device.train(instance_filter=device.instance_filter(), ...)
    return device.report()


def train_by_hand(device: Device, plan: RoundPlan) -> None:
    """A loop of your own; the device counts what it costs."""
    optimizer = torch.optim.SGD(device.model.parameters(), lr=plan.training.learning_rate, momentum=0.9)
    with device.counted(optimizer) as count:
        for epoch in range(plan.training.epochs):
            for x_BCHW, y_B in device.batches(epoch):
                loss = functional.cross_entropy(device.model(x_BCHW), y_B)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                count.step(seen=len(y_B), kept=len(y_B), loss=loss)
