"""MobileNetV2 for 32x32 images: inverted residuals with a linear bottleneck.

Sandler et al., CVPR 2018, with the strides and the 1x1 projection on stride-1 shortcuts of the CIFAR form
that ADaPT prunes (arXiv 2006.08554): 2,412,212 parameters at 100 classes, 91.27 M multiply-accumulates.
"""

from torch import Tensor, nn

from fedge.models.blocks import ConvNormAct, GlobalPoolHead, ImageSize, he_init, scaled

STAGES = (  # expansion, width, blocks, stride of the first block
    (1, 16, 1, 1),
    (6, 24, 2, 1),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
STEM_WIDTH, LAST_WIDTH = 32, 1280


class InvertedResidual(nn.Module):
    """Expand 1x1, filter 3x3 per channel, project 1x1; the sum with the input only at stride 1."""

    def __init__(self, in_channels: int, out_channels: int, expansion: int, stride: int) -> None:
        super().__init__()
        inner = expansion * in_channels
        self.body = nn.Sequential(
            ConvNormAct(in_channels, inner, kernel=1),
            ConvNormAct(inner, inner, stride=stride, groups=inner),
            ConvNormAct(inner, out_channels, kernel=1, activation=False),
        )
        self.shortcut: nn.Module | None = None
        if stride == 1:
            self.shortcut = (
                nn.Identity()
                if in_channels == out_channels
                else ConvNormAct(in_channels, out_channels, kernel=1, activation=False)
            )

    def forward(self, x_BCHW: Tensor) -> Tensor:
        y_BCHW: Tensor = self.body(x_BCHW)
        return y_BCHW if self.shortcut is None else y_BCHW + self.shortcut(x_BCHW)


class MobileNetV2(nn.Sequential):
    """[B, C, H, W] to logits [B, num_classes]; images of any size."""

    def __init__(
        self, num_classes: int, in_channels: int, image_size: ImageSize, *, width: float = 1.0
    ) -> None:
        del image_size  # global pooling takes any
        super().__init__()
        channels, last = scaled(STEM_WIDTH, width), scaled(LAST_WIDTH, width)
        self.stem = ConvNormAct(in_channels, channels)
        self.blocks = nn.Sequential()
        for expansion, stage, count, first_stride in STAGES:
            wide = scaled(stage, width)
            for index in range(count):
                stride = first_stride if index == 0 else 1
                self.blocks.append(InvertedResidual(channels, wide, expansion, stride))
                channels = wide
        self.last = ConvNormAct(channels, last, kernel=1)
        self.head = GlobalPoolHead(last, num_classes)
        he_init(self)
