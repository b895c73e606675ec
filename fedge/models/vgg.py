"""VGG-11 and VGG-16 for 32x32 images: batch norm, one linear layer.

Simonyan and Zisserman, ICLR 2015, in the usual CIFAR form (the 4096-wide linear layers give way to one).
Without the convolutions' redundant biases: 9,228,362 and 14,724,042 parameters at 10 classes.
"""

from functools import partial

from torch import nn

from fedge.models.blocks import ConvNormAct, GlobalPoolHead, ImageSize, he_init, require_image, scaled

STAGE_WIDTHS = (64, 128, 256, 512, 512)
CONVS_PER_STAGE = {11: (1, 1, 2, 2, 2), 16: (2, 2, 3, 3, 3)}


class VGG(nn.Sequential):
    """[B, C, H, W] to logits [B, num_classes]; `depth` 11 or 16; images from 32x32."""

    def __init__(
        self, num_classes: int, in_channels: int, image_size: ImageSize, *, depth: int, width: float = 1.0
    ) -> None:
        require_image(f"vgg{depth}", image_size, least=32)
        super().__init__()
        self.features = nn.Sequential()
        channels = in_channels
        for stage, convs in zip(STAGE_WIDTHS, CONVS_PER_STAGE[depth], strict=True):
            for _ in range(convs):
                self.features.append(ConvNormAct(channels, scaled(stage, width)))
                channels = scaled(stage, width)
            self.features.append(nn.MaxPool2d(2))
        self.head = GlobalPoolHead(channels, num_classes)
        he_init(self)


vgg11, vgg16 = (partial(VGG, depth=depth) for depth in (11, 16))
