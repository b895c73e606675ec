"""A network of one's own: two convolutions and a head, for small grey pictures."""

from torch import Tensor, nn


class Net(nn.Module):
    """[B, C, H, W] to logits [B, K]."""

    def __init__(self, in_channels: int, num_classes: int, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(in_channels, width, 3, padding=1),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(width, 2 * width, 3, padding=1),
            nn.BatchNorm2d(2 * width),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(2),
            nn.Flatten(),
        )
        self.head = nn.Linear(8 * width, num_classes)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return self.head(self.body(x_BCHW))


def build(num_classes: int, in_channels: int, image_size: tuple[int, int], width: int = 16) -> nn.Module:
    return Net(in_channels, num_classes, width)
