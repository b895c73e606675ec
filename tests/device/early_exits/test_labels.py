"""Which labels a device knows."""

import numpy as np
import torch

from fedge.device.early_exits.labels import known_labels, withheld


def test_a_share_of_the_labels_is_known() -> None:
    """Would break if the share were rounded away, or a smaller one were of other samples than a larger one."""
    few_N, more_N = known_labels(10, 0.24, seed=3), known_labels(10, 0.76, seed=3)
    assert few_N.sum() == 2 and more_N.sum() == 8 and not (few_N & ~more_N).any()
    assert not known_labels(10, 0.0, seed=3).any() and known_labels(10, 1.0, seed=3).all()
    assert not np.array_equal(known_labels(10, 0.5, seed=3), known_labels(10, 0.5, seed=4))


def test_labels_are_withheld_row_by_row() -> None:
    """Would break if the labels of other rows were withheld than of those in the batch, in whatever order they come."""
    known_N, y_N = np.array([True, False, True, False]), torch.tensor([5, 6, 7, 8], dtype=torch.uint8)
    told = []

    def batches(drawn):
        for rows_B in (np.array([3, 0]), np.array([2, 1])):
            drawn(rows_B)
            yield torch.zeros(2, 1), y_N[torch.from_numpy(rows_B)]

    y = [y_B.tolist() for _, y_B in withheld(batches, known_N, told.append)]
    assert y == [[-1, 5], [7, -1]]
    assert [rows_B.tolist() for rows_B in told] == [[3, 0], [2, 1]]
