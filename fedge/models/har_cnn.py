"""A small convolutional network for windows of motion-sensor samples (UCI HAR: 9 channels, 128 at 50 Hz).

The window is an image one pixel high, so that every method that works on images works on it: kernels are
(1, k). Three convolution-norm-activation blocks, two of them followed by pooling; 9 channels and 6 classes:
38,118 parameters.
"""

from torch import nn

from fedge.errors import UserError
from fedge.models.blocks import ConvNormAct, GlobalPoolHead, ImageSize, he_init, scaled


class HarCNN(nn.Sequential):
    """[B, C, 1, T] to logits [B, num_classes]; windows of at least 4 samples."""

    def __init__(
        self, num_classes: int, in_channels: int, image_size: ImageSize, *, width: float = 1.0
    ) -> None:
        height, samples = image_size
        if height != 1 or samples < 4:
            raise UserError(
                f"har_cnn takes windows of size (1, samples), samples at least 4, got {image_size}: "
                "shape the data [N, channels, 1, samples]"
            )
        super().__init__()
        first, second = scaled(32, width), scaled(64, width)
        self.features = nn.Sequential(
            ConvNormAct(in_channels, first, kernel=(1, 9)),
            nn.MaxPool2d((1, 2)),
            ConvNormAct(first, second, kernel=(1, 7)),
            nn.MaxPool2d((1, 2)),
            ConvNormAct(second, second, kernel=(1, 5)),
        )
        self.head = GlobalPoolHead(second, num_classes)
        he_init(self)
