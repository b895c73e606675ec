"""Stands in for your photos and your trained network: writes pictures/CLASS/*.png and pretrained.safetensors.

The pictures are scikit-learn's digits. The network is trained on a third of them, which are not among the pictures.
"""

from pathlib import Path

import numpy as np
import torch
from net import build
from PIL import Image
from safetensors.torch import save_file
from sklearn.datasets import load_digits
from torch.nn.functional import cross_entropy

NAMES = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]


def main() -> None:
    x_NHW, y_N = load_digits(return_X_y=True)
    x_NHW = (x_NHW.reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8).repeat(2, 1).repeat(2, 2)
    known = len(y_N) // 3
    for row in range(known, len(y_N)):
        folder = Path("pictures", NAMES[y_N[row]])
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(x_NHW[row]).save(folder / f"{row:04}.png")
    # Class numbers as the import gives them: the folders' names in alphabetical order.
    number = torch.tensor([sorted(NAMES).index(name) for name in NAMES])
    pretrain(torch.tensor(x_NHW[:known, None]) / 255, number[torch.tensor(y_N[:known])])


def pretrain(x_NCHW: torch.Tensor, y_N: torch.Tensor) -> None:
    torch.manual_seed(0)
    model = build(num_classes=10, in_channels=1, image_size=(16, 16))
    x_NCHW = (x_NCHW - x_NCHW.mean()) / x_NCHW.std()  # devices see data of mean 0 and spread 1
    adam = torch.optim.Adam(model.parameters(), lr=0.003)
    for _ in range(8):
        for rows in torch.randperm(len(y_N)).split(32):
            adam.zero_grad()
            cross_entropy(model(x_NCHW[rows]), y_N[rows]).backward()
            adam.step()
    save_file(model.state_dict(), "pretrained.safetensors")


if __name__ == "__main__":
    main()
