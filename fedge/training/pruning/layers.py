"""The layers that pruning can cut, their channels, and the cut itself.

Three kinds of layer have channels here: convolutions (transposed ones too), linear layers, and layers that treat
every channel by itself (batch norm, instance norm, PReLU). `narrow` keeps a choice of a layer's output and input
channels and really makes the layer smaller; pruning and rebuilding from a record both go through it.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from fedge.training.torch_private import BatchNorm, Conv, InstanceNorm, has_forward_hooks


class LayerShape(NamedTuple):
    """A layer's channels: `outputs`, `inputs`, `groups`. A channel-wise layer has all three equal."""

    outputs: int
    inputs: int
    groups: int

    @property
    def inputs_per_group(self) -> int:
        return self.inputs // self.groups

    @property
    def outputs_per_group(self) -> int:
        return self.outputs // self.groups

    @property
    def separable(self) -> bool:
        """One input channel per group, as in a depthwise convolution: cutting it cuts its group."""
        return self.groups > 1 and self.inputs == self.groups


def shape_of(layer: nn.Module) -> LayerShape | None:
    """The layer's channels; None for a layer that pruning does not cut (it has none, or it mixes them)."""
    if isinstance(layer, Conv):
        return LayerShape(layer.out_channels, layer.in_channels, layer.groups)
    if isinstance(layer, nn.Linear):
        return LayerShape(layer.out_features, layer.in_features, 1)
    if isinstance(layer, BatchNorm | InstanceNorm):
        return LayerShape(*(layer.num_features,) * 3)
    if isinstance(layer, nn.PReLU) and layer.num_parameters > 1:
        return LayerShape(*(layer.num_parameters,) * 3)
    return None


def channels_of(layer: nn.Module) -> LayerShape:
    """The `shape_of` a layer that has one."""
    shape = shape_of(layer)
    if shape is None:
        raise TypeError(f"{type(layer).__name__} has no channels that pruning cuts")
    return shape


def is_channelwise(layer: nn.Module) -> bool:
    """True where a layer has one set of parameters per channel and no weights between channels."""
    return isinstance(layer, BatchNorm | InstanceNorm | nn.PReLU)


def channel_axis(layer: nn.Module) -> int:
    """The axis of the layer's input that its channels lie on: 1, and the last one of a linear layer's."""
    return -1 if isinstance(layer, nn.Linear) else 1


def cuttable_layers(model: nn.Module) -> dict[str, nn.Module]:
    """The layers of `model` that have a `shape_of`, by name, in the order of `named_modules`.

    Not those whose weight is made anew from other tensors (parametrizations, masks, weight norm): it takes no new size.
    """
    return {
        name: layer
        for name, layer in model.named_modules()
        if shape_of(layer) is not None and not is_derived(layer)
    }


def is_derived(layer: nn.Module) -> bool:
    """True where the layer's weight or bias is no parameter of its own, but computed from others."""
    if is_parametrized(layer):
        return True
    own = vars(layer).get("_parameters", {})
    return any(name not in own and hasattr(layer, name) for name in ("weight", "bias"))


def norms_by_batch(model: nn.Module) -> bool:
    """True where a norm keeps no running statistics, so that even in evaluation one instance alone means nothing."""
    return any(isinstance(module, BatchNorm) and module.running_mean is None for module in model.modules())


def is_stock(layer: nn.Module) -> bool:
    """True where the layer computes what PyTorch's class does, with nothing hooked to it."""
    hooked = has_forward_hooks(layer)
    return type(layer).forward.__module__.startswith("torch.nn.") and not hooked


def filters_of(layer: nn.Module) -> Tensor:
    """A convolution's or linear layer's weights, one row per output channel: [outputs, weights per filter]."""
    weight: Tensor = layer.get_parameter("weight").detach()
    if isinstance(layer, Conv) and layer.transposed:  # [I, O/g, *k] -> [O, I/g, *k]
        weight = weight.view(layer.groups, -1, *weight.shape[1:]).transpose(1, 2).flatten(0, 1)
    return weight.flatten(1)


@dataclass(frozen=True)
class Price:
    """A layer's parameters as a function of its channels: `taps` per weight pair, `per_output` per output."""

    taps: int
    per_output: int

    def weights(self, shape: LayerShape) -> int:
        """Weights between channels; none in a channel-wise layer."""
        return shape.outputs * shape.inputs_per_group * self.taps

    def parameters(self, shape: LayerShape) -> int:
        """All parameters, biases and norms' scales included."""
        return self.weights(shape) + shape.outputs * self.per_output


def price_of(layer: nn.Module) -> Price:
    """What the layer's channels cost, whatever their number."""
    if is_channelwise(layer):
        return Price(0, sum(1 for _ in layer.parameters(recurse=False)))
    shape = channels_of(layer)
    taps = layer.get_parameter("weight").numel() // (shape.outputs * shape.inputs_per_group)
    return Price(taps, int(layer.bias is not None))


def leading(shape: LayerShape, of: LayerShape) -> tuple[Tensor, Tensor]:
    """Indices that narrow a layer of shape `of` to `shape`: the first channels, of each group the first."""
    if of.groups == 1 or of.separable:
        return torch.arange(shape.outputs), torch.arange(shape.inputs)
    group_G1 = torch.arange(of.groups)[:, None]
    outputs_GK = group_G1 * of.outputs_per_group + torch.arange(shape.outputs_per_group)
    inputs_GK = group_G1 * of.inputs_per_group + torch.arange(shape.inputs_per_group)
    return outputs_GK.flatten(), inputs_GK.flatten()


def narrow(layer: nn.Module, keep_outputs: Tensor, keep_inputs: Tensor) -> None:
    """Keep these output and input channels of `layer` (ascending int64 indices), in place.

    Its parameters are replaced by smaller ones without a gradient; `requires_grad` stays as it was. Of a grouped
    convolution every group must keep the same local channels, unless it has one input per group: then groups go.
    """
    if is_channelwise(layer):
        _narrow_channelwise(layer, keep_outputs)
    elif isinstance(layer, nn.Linear):
        _keep(layer, "weight", 0, keep_outputs)
        _keep(layer, "weight", 1, keep_inputs)
        _keep(layer, "bias", 0, keep_outputs)
        layer.out_features, layer.in_features = len(keep_outputs), len(keep_inputs)
    elif isinstance(layer, Conv):
        _narrow_convolution(layer, keep_outputs, keep_inputs)


def _narrow_channelwise(layer: nn.Module, keep: Tensor) -> None:
    for name in ("weight", "bias", "running_mean", "running_var"):
        _keep(layer, name, 0, keep)
    size = "num_parameters" if isinstance(layer, nn.PReLU) else "num_features"
    setattr(layer, size, len(keep))


def _narrow_convolution(layer: Conv, keep_outputs: Tensor, keep_inputs: Tensor) -> None:
    shape = channels_of(layer)
    rows, columns = (keep_inputs, keep_outputs) if layer.transposed else (keep_outputs, keep_inputs)
    columns_per_group = shape.outputs_per_group if layer.transposed else shape.inputs_per_group
    _keep(layer, "weight", 0, rows)
    if not shape.separable:  # the second axis counts channels within a group, alike in all groups
        _keep(layer, "weight", 1, columns[columns < columns_per_group])
    _keep(layer, "bias", 0, keep_outputs)
    layer.out_channels, layer.in_channels = len(keep_outputs), len(keep_inputs)
    if shape.separable:
        layer.groups = len(keep_inputs)


def _keep(layer: nn.Module, name: str, axis: int, index: Tensor) -> None:
    """Replace the layer's parameter or buffer `name` by its entries `index` along `axis`, if there is one."""
    old = getattr(layer, name, None)
    if old is None or len(index) == old.shape[axis]:
        return
    new = old.detach().index_select(axis, index.to(old.device))
    setattr(layer, name, nn.Parameter(new, old.requires_grad) if isinstance(old, nn.Parameter) else new)
