"""The edge client: prunes its network with its own data, then trains it on the instances and error maps that matter.

To write your own, copy this file, change `improve`, and name the copy in the scenario: `client = "mine.py"`.
"""

from flwr.clientapp import ClientApp

from fedge.device.device import Device
from fedge.device.handler import on_device
from fedge.privacy.egress import egress_gate
from fedge.protocol import RoundPlan, RoundReport

app = ClientApp(mods=[egress_gate])


@app.train()
@on_device
def improve(device: Device, plan: RoundPlan) -> RoundReport:
    """One round: ADaPT's pruning where the plan asks for it, then training with EIF and EMP."""
    if plan.prune and not device.pruned:
        device.prune()
    device.train(
        instance_filter=device.instance_filter(),
        error_maps=device.error_maps(),
        quantization=device.quantization(),
    )
    return device.report()
