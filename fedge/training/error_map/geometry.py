"""What a convolution does besides its weights."""

from dataclasses import dataclass
from functools import cache, cached_property


@dataclass(frozen=True)
class Geometry:
    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    groups: int
    depthwise: bool
    """Every output channel has input channels of its own: to drop its map is to drop the group."""

    @cached_property
    def skips_pixels(self) -> bool:
        """Whether the kernel is one point and reads every so manieth pixel, as on a shortcut."""
        return self.kernel == (1, 1) and self.padding == (0, 0) and self.stride != (1, 1)

    @cached_property
    def exchangeable(self) -> bool:
        """Whether error and input, in one group, have the same size: they may change places in the weight gradient, and
        the error goes back by a convolution with the same padding."""
        reach = tuple(d * (k - 1) for d, k in zip(self.dilation, self.kernel, strict=True))
        return self.stride == (1, 1) and self.groups == 1 and reach == tuple(2 * p for p in self.padding)

    def output_size(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of the output; none or less where the kernel is larger than the picture with its zeros."""
        axes = zip((height, width), self.kernel, self.stride, self.padding, self.dilation, strict=True)
        rows, columns = ((n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, s, p, d in axes)
        return rows, columns


@cache
def geometry(
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int],
    groups: int,
    channels: int,
) -> Geometry:
    """Of a convolution with that number of output channels."""
    return Geometry(kernel, stride, padding, dilation, groups, depthwise=groups > 1 and groups == channels)
