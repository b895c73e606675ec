"""Floats of a report leave rounded: a figure tells what it is for, and has no room for much else.

A value keeps `bits` significant binary digits, and none finer than `step`. Rounding twice changes nothing.
"""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Rounding:
    """To `bits` significant bits, and to a multiple of `step`, a power of two, where that is coarser.

    Of 0 up to 2**(bits) * step all multiples of `step` are left; above, half as many values for each doubling.
    """

    bits: int
    step: float

    def __call__(self, value: float) -> float:
        """The nearest value that is left of `value` >= 0; what is no finite number stays what it is."""
        if not math.isfinite(value):
            return value
        _, exponent = math.frexp(value)
        grain = max(math.ldexp(1.0, exponent - self.bits), self.step)
        return round(value / grain) * grain

    def bits_up_to(self, most: float) -> int:
        """What a value from 0 to `most` can tell: the bits of the count of values that are left."""
        doublings = math.frexp(most)[1] - math.frexp(self.step)[1] + 1 - self.bits
        values = (1 << self.bits) + (max(0, doublings) << self.bits - 1) + 1
        return (values - 1).bit_length()


FINE = Rounding(bits=12, step=2.0**-20)
"""Right to one part in 4096, and below 0.004 to a millionth."""

COARSE = Rounding(bits=8, step=2.0**-17)
"""Right to one part in 256, and below 0.002 to a hundred-thousandth: for a curve."""
