"""SqueezeNet for 32x32 images, with batch norm in its Fire modules and a 1x1 convolution as classifier.

Iandola et al., arXiv 1602.07360, in the form that ADaPT prunes (arXiv 2006.08554): 781,156 parameters at 100
classes, 53.28 M multiply-accumulates. Its LogSoftmax is left out: cross-entropy applies one itself.
"""

import torch
from torch import Tensor, nn

from fedge.models.blocks import ConvNormAct, ImageSize, he_init, require_image, scaled

STEM_WIDTH = 96
STAGES = (  # of Fire modules, each behind a pooling: their channels, squeezed and expanded by either kernel
    ((16, 64), (16, 64), (32, 128)),
    ((32, 128), (48, 192), (48, 192), (64, 256)),
    ((64, 256),),
)


class Fire(nn.Module):
    """Squeeze to few channels, expand by 1x1 and 3x3 side by side, concatenate: 2 * `expand` channels."""

    def __init__(self, in_channels: int, squeeze: int, expand: int) -> None:
        super().__init__()
        self.squeeze = ConvNormAct(in_channels, squeeze, kernel=1, bias=True)
        self.expand1 = ConvNormAct(squeeze, expand, kernel=1, bias=True)
        self.expand3 = ConvNormAct(squeeze, expand, kernel=3, bias=True)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        s_BCHW = self.squeeze(x_BCHW)
        return torch.cat((self.expand1(s_BCHW), self.expand3(s_BCHW)), dim=1)


class SqueezeNet(nn.Sequential):
    """[B, C, H, W] to logits [B, num_classes]; images from 8x8."""

    def __init__(
        self, num_classes: int, in_channels: int, image_size: ImageSize, *, width: float = 1.0
    ) -> None:
        require_image("squeezenet", image_size, least=8)
        super().__init__()
        channels = scaled(STEM_WIDTH, width)
        self.features = nn.Sequential(ConvNormAct(in_channels, channels, bias=True))
        for fires in STAGES:
            self.features.append(nn.MaxPool2d(2))
            for squeeze, expand in fires:
                self.features.append(Fire(channels, scaled(squeeze, width), scaled(expand, width)))
                channels = 2 * scaled(expand, width)
        self.classifier = nn.Conv2d(channels, num_classes, kernel_size=1)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        he_init(self)
