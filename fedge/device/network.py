"""A device's network: as its last round left it, cut by this one, and held against what was counted."""

import hashlib
from typing import Any

import torch
from torch import nn

from fedge.device.state import DeviceState
from fedge.errors import UserError
from fedge.prepare import Prepared
from fedge.training.pruning.one_shot import prune
from fedge.training.pruning.topology import Topology


class Network:
    """`model` is the program's to train; `topology` says what was cut of the factory's, None: nothing.

    The weights and running statistics are known by a digest. It is taken when the network is loaded and whenever
    something that is counted has changed it, so that a change which nobody counted shows.
    """

    def __init__(self, prepared: Prepared, state: DeviceState) -> None:
        self.topology = Topology.from_json(state.topology) if state.topology else None
        self.model = _loaded(prepared, state, self.topology)
        self._shapes = _shapes(self.model)
        self._digest = _digest(self.model)

    def cut(self, level: float, **how: Any) -> None:
        """Remove the share `level` of the parameters; `how`: the arguments of `prune`."""
        self.topology = prune(self.model, level, **how)
        self._shapes = _shapes(self.model)
        self.accept()

    def accept(self) -> None:
        """What has changed the network until now has been counted."""
        self._digest = _digest(self.model)

    @property
    def changed(self) -> bool:
        """Whether the network is another than the last accepted one."""
        return _digest(self.model) != self._digest

    def require_counted(self) -> None:
        """UserError where the network has changed and nobody has counted what changed it."""
        self.require_own_shapes()
        if self.changed:
            raise UserError(
                "device.model: its weights or running statistics changed and nothing was counted, so that its training "
                "would be reported as free: train with device.train(), or inside `with device.counted() as count:`"
            )

    def require_own_shapes(self) -> None:
        """Weights are the program's to change; a network of other shapes could not be loaded in the next round."""
        now = _shapes(self.model)
        if now != self._shapes:
            odd = min(name for name in now | self._shapes if now.get(name) != self._shapes.get(name))
            raise UserError(
                f"device.model is not of the shapes that the device loaded or pruned (at {odd}): change its weights "
                "only, and cut channels with device.prune(), which takes a criterion of your own"
            )


def _loaded(prepared: Prepared, state: DeviceState, topology: Topology | None) -> nn.Module:
    if not state.model:
        return prepared.factory_model()
    model = topology.rebuild(prepared.build_model) if topology else prepared.build_model()
    model.load_state_dict(state.model)
    return model


def _shapes(model: nn.Module) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in model.state_dict().items()}


def _digest(model: nn.Module) -> bytes:
    """Of every weight and buffer that a state holds, bit for bit."""
    digest = hashlib.blake2b(digest_size=16)
    for name, tensor in model.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.digest()
