"""Make the data folder `scenes`: pictures of two handwritten digits, and which of the ten digits are on each."""

import numpy
from sklearn.datasets import load_digits

import fedge

WRITERS, SCENES = 6, 100

pictures, digit = load_digits(return_X_y=True)  # 1,797 digits of 8 x 8, which come with scikit-learn
pictures = (pictures.reshape(-1, 8, 8) * 15.9).astype(numpy.uint8).repeat(2, axis=1).repeat(2, axis=2)
generator = numpy.random.default_rng(0)
x, y, writer = [], [], []
for number in range(WRITERS):
    taste = generator.dirichlet([0.5] * 10)[digit]  # each writer has digits of their own
    for left, right in generator.choice(len(digit), (SCENES, 2), p=taste / taste.sum()):
        x.append(numpy.concatenate([pictures[left], pictures[right]], axis=1))
        y.append(numpy.isin(numpy.arange(10), [digit[left], digit[right]]))
        writer.append(number)
fedge.write_dataset(
    "scenes",
    numpy.stack(x),
    numpy.stack(y),
    owner=writer,
    classes=[f"has a {n}" for n in range(10)],
    task="labels",
)
