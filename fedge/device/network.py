"""A device's network: as its last round left it, cut by this one, and held against what was counted."""

import hashlib
import weakref
from typing import Any

import torch
from torch import Tensor, nn

from fedge.device.state import DeviceState, KeptNetwork
from fedge.errors import UserError
from fedge.prepare import Prepared
from fedge.protocol.report import LAYERS, OWN
from fedge.training.exits.network import ExitNetwork
from fedge.training.pruning.one_shot import prune
from fedge.training.pruning.topology import Topology
from fedge.training.update.what import What, freeze, trained


class Network:
    """`model` is the program's to train; `topology` says what was cut of the factory's, None: nothing.

    The weights and running statistics are known by a digest. It is taken when the network is loaded and whenever
    something that is counted has changed it, so that a change which nobody counted shows.
    """

    def __init__(self, prepared: Prepared, state: DeviceState, device: torch.device) -> None:
        self.topology = Topology.from_json(state.topology) if state.topology else None
        self.model = rebuilt(prepared, KeptNetwork(state.topology, state.model)).to(device)
        self._shapes = _shapes(self.model)
        self._digests = _digests(self.model)
        self._cut_away: dict[int, weakref.ref[Tensor]] = {}
        self._what = "all", trained(self.model)

    def cut(self, level: float, **how: Any) -> None:
        """Remove the share `level` of the parameters; `how`: the arguments of `prune`."""
        before = list(self.model.parameters())
        if isinstance(self.model, ExitNetwork):
            self.model.rule.forget()
        self.topology = prune(self.model, level, **how).after(self.topology)
        self._replaced(before)

    def regrow(self, factory: nn.Module, *, keeps_weights: bool) -> None:
        """Go back to the channels of the factory model, which is taken over; those that are still there keep their
        weights, or do not."""
        if self.topology is None:
            return
        before, where = list(self.model.parameters()), next(self.model.parameters()).device
        grown = self.topology.regrow(self.model, factory) if keeps_weights else factory
        if isinstance(grown, ExitNetwork):
            grown.rule.forget()
        self.model, self.topology = grown.to(where), None
        self._replaced(before)

    def _replaced(self, before: list[nn.Parameter]) -> None:
        """Others stand in the place of the parameters of before."""
        left = {id(parameter) for parameter in self.model.parameters()}
        self._cut_away |= {id(weight): weakref.ref(weight) for weight in before if id(weight) not in left}
        self._shapes = _shapes(self.model)
        self.accept()

    def freeze(self, what: What, input_shape: tuple[int, int, int]) -> None:
        """Leave `what` of it to be trained; of a network with exits, these."""
        if isinstance(self.model, ExitNetwork):
            self.model.freeze_trunk()
            self._what = LAYERS, trained(self.model)
            return
        freeze(self.model, what, input_shape)
        self._what = (what if isinstance(what, str) else LAYERS), trained(self.model)

    def what_word(self, optimizer: torch.optim.Optimizer | None) -> str:
        """What a report calls that which the optimizer trains (None: whatever is not frozen)."""
        now = trained(self.model)
        if optimizer is not None:
            held = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
            now = (
                frozenset(name for name, parameter in self.model.named_parameters() if id(parameter) in held)
                & now
            )
        word, settled = self._what
        return word if now == settled else OWN

    def accept(self) -> None:
        """What has changed the network until now has been counted."""
        self._digests = _digests(self.model)

    @property
    def changed(self) -> bool:
        """Whether the network is another than the last accepted one."""
        return _digests(self.model) != self._digests

    @property
    def weights_changed(self) -> bool:
        """The same of its weights, whatever its statistics are."""
        return _digests(self.model)[0] != self._digests[0]

    def was_cut_away(self, parameter: Tensor) -> bool:
        """Whether a cut or a regrowth in this round put another one in its place."""
        held = self._cut_away.get(id(parameter))
        return held is not None and held() is parameter

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


def rebuilt(prepared: Prepared, kept: KeptNetwork) -> nn.Module:
    """The network, in its own topology; the factory model where nothing was kept."""
    if not kept.model:
        return prepared.factory_model()
    model = prepared.blank(kept.topology)
    model.load_state_dict(kept.model)
    return model


def _shapes(model: nn.Module) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in model.state_dict().items()}


def _digests(model: nn.Module) -> tuple[bytes, bytes]:
    """Of every weight and of every buffer that a state holds, bit for bit."""
    weights = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    of_weights, of_buffers = hashlib.sha256(), hashlib.sha256()  # which processors compute themselves
    for name, tensor in model.state_dict().items():
        digest = of_weights if name in weights else of_buffers
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return of_weights.digest(), of_buffers.digest()
