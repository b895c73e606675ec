"""What a reader of `known/` gives: a data set's rows as they lie in its files."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Rows:
    """N rows, and `who`: the set and where it lies, as a line for a person names it.

    order_N: the rows in their order as a data set, official training rows first; None: they lie so. Checks come
    before it, so that a row's number in a refusal is the file's. coarse_of_class: class -> superclass, where there are.
    """

    x_NCHW: np.ndarray
    y_N: np.ndarray
    who: str
    subject_N: np.ndarray | None = None
    order_N: np.ndarray | None = None
    coarse_of_class: np.ndarray | None = None
