"""AlexNet for 32x32 images: five convolutions, one linear layer, no norm, no dropout.

Krizhevsky et al., NeurIPS 2012, in the CIFAR form that ADaPT prunes (arXiv 2006.08554): 2,495,396
parameters at 100 classes, 14.98 M multiply-accumulates. Larger images are averaged down to one position
before the linear layer; at 32x32 that average is the identity.
"""

from torch import nn

from fedge.models.blocks import GlobalPoolHead, ImageSize, require_image, scaled


class AlexNet(nn.Sequential):
    """[B, C, H, W] to logits [B, num_classes]; images from 29x29."""

    def __init__(
        self, num_classes: int, in_channels: int, image_size: ImageSize, *, width: float = 1.0
    ) -> None:
        require_image("alexnet", image_size, least=29)
        super().__init__()
        c1, c2, c3, c4 = (scaled(channels, width) for channels in (64, 192, 384, 256))
        self.features = nn.Sequential(
            *_conv(in_channels, c1, kernel=11, stride=4, padding=5),
            nn.MaxPool2d(2),
            *_conv(c1, c2, kernel=5),
            nn.MaxPool2d(2),
            *_conv(c2, c3),
            *_conv(c3, c4),
            *_conv(c4, c4),
            nn.MaxPool2d(2),
        )
        self.head = GlobalPoolHead(c4, num_classes)


def _conv(
    in_channels: int, out_channels: int, kernel: int = 3, stride: int = 1, padding: int | None = None
) -> tuple[nn.Conv2d, nn.ReLU]:
    padding = kernel // 2 if padding is None else padding
    return nn.Conv2d(in_channels, out_channels, kernel, stride=stride, padding=padding), nn.ReLU()
