"""What the families share: convolution-norm-activation, the head, He's initial weights, the size check."""

from torch import nn

from fedge.errors import UserError

ImageSize = tuple[int, int]  # (height, width) in pixels


def scaled(channels: int, width: float) -> int:
    """`channels` of a network that is `width` times as wide as published, at least 1; themselves at width 1."""
    return max(1, round(channels * width))


class ConvNormAct(nn.Sequential):
    """Convolution, batch norm, ReLU: the unit that pruning cuts as one.

    `activation=False` leaves the ReLU out (before a residual sum, after a linear bottleneck). `padding`
    defaults to (kernel - 1) // 2, which keeps an odd kernel's image size at stride 1. The convolution has a
    bias only when asked: the norm's own shift makes it redundant.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int | tuple[int, int] = 3,
        *,
        stride: int | tuple[int, int] = 1,
        padding: int | tuple[int, int] | None = None,
        groups: int = 1,
        bias: bool = False,
        activation: bool = True,
    ) -> None:
        super().__init__()
        if padding is None:
            height, width = (kernel, kernel) if isinstance(kernel, int) else kernel
            padding = (height - 1) // 2, (width - 1) // 2
        self.conv = nn.Conv2d(
            in_channels, out_channels, kernel, stride=stride, padding=padding, groups=groups, bias=bias
        )
        self.norm = nn.BatchNorm2d(out_channels)
        self.act = nn.ReLU(inplace=True) if activation else nn.Identity()


class GlobalPoolHead(nn.Sequential):
    """Mean over the image, then one linear layer: [B, C, H, W] to logits [B, num_classes]."""

    def __init__(self, channels: int, num_classes: int) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.classifier = nn.Linear(channels, num_classes)


def he_init(model: nn.Module) -> None:
    """He et al. (ICCV 2015): convolution weights from N(0, 2 / fan_out), biases 0, in place."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def require_image(model: str, image_size: ImageSize, *, least: int) -> None:
    """Refuse an image whose shorter side is below `least` pixels: pooling would leave nothing of it."""
    if min(image_size) < least:
        height, width = image_size
        raise UserError(
            f"{model} needs images of at least {least}x{least}, got {height}x{width}: "
            "take a larger image or a model with less pooling (lenet from 16x16, resnet20 from any size)"
        )
