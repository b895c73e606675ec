"""scikit-learn's handwritten digits, which come with the package."""

from pathlib import Path

import numpy as np

from fedge.catalog.facts import DatasetFacts
from fedge.data.known.rows import Rows


def read(facts: DatasetFacts, root: Path) -> Rows:
    """8 x 8 digits of 0..16 ink, scaled to 0..1, each pixel 2 x 2. No official split: the first 80 %."""
    from sklearn.datasets import load_digits

    x_NHW, y_N = load_digits(return_X_y=True)
    x_NHW = (x_NHW.reshape(-1, 8, 8) / 16).astype(np.float32)
    return Rows(x_NHW.repeat(2, axis=1).repeat(2, axis=2)[:, None], y_N, who=f"data set '{facts.name}'")
