"""Stands in for your own colour pictures: scikit-learn's digits, 32 pixels wide, each in two random colours."""

import numpy as np
from sklearn.datasets import load_digits

import fedge


def main() -> None:
    x_NHW, y_N = (array[:600] for array in load_digits(return_X_y=True))
    ink_NHW = x_NHW.reshape(-1, 1, 8, 8).repeat(4, 2).repeat(4, 3) / 16
    paper_NC, pen_NC = np.random.default_rng(0).uniform([[[0]], [[128]]], [[[64]], [[255]]], (2, len(y_N), 3))
    x_NCHW = paper_NC[:, :, None, None] * (1 - ink_NHW) + pen_NC[:, :, None, None] * ink_NHW
    fedge.write_dataset("colours", x_NCHW.astype(np.uint8), y_N)


if __name__ == "__main__":
    main()
