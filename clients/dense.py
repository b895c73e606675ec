"""The dense client: plain SGD on every instance of the unpruned network. The yardstick for what is saved."""

from flwr.clientapp import ClientApp

from fedge.device.device import Device
from fedge.device.handler import on_device
from fedge.privacy.egress import egress_gate
from fedge.protocol import RoundPlan, RoundReport

app = ClientApp(mods=[egress_gate])


@app.train()
@on_device
def improve(device: Device, plan: RoundPlan) -> RoundReport:
    """One round of local training, whatever the plan says of pruning, filter and error maps."""
    device.train()
    return device.report()
