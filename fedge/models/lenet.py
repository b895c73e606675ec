"""LeNet with 20, 50 and 500 units, the variant that Caffe's MNIST example made common.

LeCun et al., "Gradient-based learning applied to document recognition", Proc. IEEE 86(11), 1998. There is no
activation between the convolutions, as in that variant. 28x28x1 and 10 classes: 431,080 parameters.
"""

import math

from torch import nn

from fedge.models.blocks import ImageSize, require_image, scaled


class LeNet(nn.Sequential):
    """[B, C, H, W] to logits [B, num_classes]; images from 16x16."""

    def __init__(
        self, num_classes: int, in_channels: int, image_size: ImageSize, *, width: float = 1.0
    ) -> None:
        require_image("lenet", image_size, least=16)
        positions = math.prod(_after_two_conv_pools(side) for side in image_size)
        first, second, hidden = (scaled(units, width) for units in (20, 50, 500))
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, first, kernel_size=5)
        self.pool1 = nn.MaxPool2d(2)
        self.conv2 = nn.Conv2d(first, second, kernel_size=5)
        self.pool2 = nn.MaxPool2d(2)
        self.flatten = nn.Flatten()
        self.hidden = nn.Linear(second * positions, hidden)
        self.act = nn.ReLU()
        self.classifier = nn.Linear(hidden, num_classes)


def _after_two_conv_pools(side: int) -> int:
    return ((side - 4) // 2 - 4) // 2
