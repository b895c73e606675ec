"""ResNet-8 to ResNet-110 for 32x32 images: depth 6n + 2, three stages of n basic blocks, 16-32-64 channels.

He et al., "Deep residual learning for image recognition", CVPR 2016, section 4.2. Where a stage changes the
shape, the shortcut is a 1x1 projection with a norm, as in ADaPT (arXiv 2006.08554): ResNet-20 has 278,324
parameters at 100 classes, 40.82 M multiply-accumulates.
"""

from functools import partial

from torch import Tensor, nn

from fedge.errors import UserError
from fedge.models.blocks import ConvNormAct, GlobalPoolHead, ImageSize, he_init, scaled

STAGE_WIDTHS = (16, 32, 64)


class ResidualBlock(nn.Module):
    """relu(body(x) + shortcut(x)); the body is two 3x3 convolutions."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            ConvNormAct(in_channels, out_channels, stride=stride),
            ConvNormAct(out_channels, out_channels, activation=False),
        )
        same_shape = stride == 1 and in_channels == out_channels
        self.shortcut = (
            nn.Identity()
            if same_shape
            else ConvNormAct(in_channels, out_channels, kernel=1, stride=stride, activation=False)
        )
        self.act = nn.ReLU(inplace=True)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        y_BCHW: Tensor = self.act(self.body(x_BCHW) + self.shortcut(x_BCHW))
        return y_BCHW


class ResNet(nn.Sequential):
    """[B, C, H, W] to logits [B, num_classes]; `depth` 8, 14, 20, ...; images of any size."""

    def __init__(
        self, num_classes: int, in_channels: int, image_size: ImageSize, *, depth: int, width: float = 1.0
    ) -> None:
        del image_size  # global pooling takes any
        blocks, rest = divmod(depth - 2, 6)
        if rest or blocks < 1:
            raise UserError(f"a resnet's depth is 6n + 2, got {depth}: take 8, 14, 20, 26, ...")
        super().__init__()
        widths = [scaled(channels, width) for channels in STAGE_WIDTHS]
        channels = widths[0]
        self.stem = ConvNormAct(in_channels, channels)
        for stage, wide in enumerate(widths, start=1):
            first_stride = 1 if stage == 1 else 2
            first = ResidualBlock(channels, wide, first_stride)
            rest_of_stage = [ResidualBlock(wide, wide, 1) for _ in range(blocks - 1)]
            self.add_module(f"stage{stage}", nn.Sequential(first, *rest_of_stage))
            channels = wide
        self.head = GlobalPoolHead(channels, num_classes)
        he_init(self)


resnet8, resnet20, resnet32, resnet56, resnet74, resnet110 = (
    partial(ResNet, depth=depth) for depth in (8, 20, 32, 56, 74, 110)
)
