"""Small data of one's own, for the tests of what is made of them."""

from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

ACTIVITIES = ("sit", "walk", "run")


def pictures(folder: Path, classes: tuple[str, ...] = ("cat", "dog", "owl"), count: int = 20) -> Path:
    """A folder of `count` pictures [16, 16, 3] per class, each class brighter than the one before."""
    generator = np.random.default_rng(0)
    for number, name in enumerate(classes):
        (folder / name).mkdir(parents=True)
        for index in range(count):
            pixels = generator.integers(0, 40, (16, 16, 3)) + 70 * number
            Image.fromarray(pixels.astype(np.uint8)).save(folder / name / f"{index:03}.png")
    return folder


def recordings(path: Path, people: str = "abc", moments: int = 60) -> Path:
    """A table of two signals: each person does each activity twice, so many moments; rows in no order."""
    generator = np.random.default_rng(1)
    rows = []
    for person in people:
        for turn, activity in enumerate(ACTIVITIES * 2):
            for moment in range(moments):
                phase = moment * (1 + ACTIVITIES.index(activity)) / 3
                noise = generator.normal(0, 0.1, 2)
                rows.append(
                    (
                        person,
                        activity,
                        turn * moments + moment,
                        np.sin(phase) + noise[0],
                        np.cos(phase) + noise[1],
                    )
                )
    table = pd.DataFrame(rows, columns=["person", "activity", "t", "ax", "ay"])
    table.iloc[generator.permutation(len(table))].to_csv(path, index=False)
    return path


def scenario(path: Path, dataset: str, data: str = "", *, model: str = "lenet", clients: int = 3) -> Path:
    """A scenario file of two short rounds on `dataset`; `data`: more lines of its section."""
    path.write_text(
        f"""
name = "own"
rounds = 2
[data]
dataset = "{dataset}"
{data}
[model]
name = "{model}"
factory = {{ epochs = 1, batch_size = 8 }}
[training]
epochs = 1
[[fleet]]
device = "raspberry-pi-4"
count = {clients}
[engine]
kind = "inline"
""",
        encoding="utf-8",
    )
    return path
