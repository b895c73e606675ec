"""`engine.device` and the share of a GPU that each class's hosts reserve: either both, or neither."""

from fedge.errors import UserError
from fedge.scenario.schema import DeviceClass, Scenario


def check_gpus(scenario: Scenario) -> None:
    """UserError where devices would compute on a GPU that nobody reserved, or leave idle one that is reserved."""
    cuda = scenario.engine.device == "cuda"
    if cuda and scenario.limits.hard:
        raise UserError(
            "limits.hard fences what a host's process takes of the CPU's memory, and engine.device is 'cuda', which "
            "trains in the GPU's: leave limits.hard out, or take engine.device = 'cpu'"
        )
    for index, device_class in enumerate(scenario.fleet):
        if problem := _problem(device_class, cuda=cuda):
            raise UserError(f"fleet.{index} ({device_class.label}) {problem}")


def _problem(device_class: DeviceClass, *, cuda: bool) -> str:
    share = device_class.ray.num_gpus
    if cuda and not share:
        return (
            "reserves no GPU and engine.device is 'cuda': say what share of one its hosts take, as in "
            "ray = { num_gpus = 0.25 }, or take engine.device = 'cpu'"
        )
    if cuda and share > 1:
        return f"has ray.num_gpus {share:g}; a host computes on one GPU: take at most 1"
    if share and not cuda:
        return (
            f"reserves {share:g} of a GPU and engine.device is 'cpu', which would leave that idle: take "
            "engine.device = 'cuda', or leave ray.num_gpus out"
        )
    return ""
