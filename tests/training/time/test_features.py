"""Features of one convolution, by hand."""

import math
from dataclasses import replace

import numpy as np
import pytest

from fedge.training.time.features import BY_WIDTH, PAPER, by_width, of_paper
from fedge.training.time.shape import LayerShape, StepShape

B, CI, CO, K, P, Q = 2, 4, 6, 3, 8, 8
FORWARD = CO * Q * Q * K * K * CI


def step(**changed: float) -> StepShape:
    """A step of one 3 x 3 convolution from 4 to 6 channels of 8 x 8, behind something that wants its error."""
    layer = LayerShape(
        in_channels=CI,
        out_channels=CO,
        groups=1,
        kernel=K * K,
        read=P * P,
        written=Q * Q,
        calls=1,
        convolution=True,
        forward=FORWARD,
        error_propagation=FORWARD,
        weight_gradient=FORWARD,
    )
    whole = StepShape(
        batch=B,
        keep=1.0,
        layers=(layer,),
        loose=0,
        operators=3,
        elements=100,
        parameters=CO * CI * K * K,
        trained=CO * CI * K * K,
    )
    return replace(whole, **changed)


def test_the_paper_s_features_of_one_convolution() -> None:
    """Breaks if a feature is another than the published one, or out of its place."""
    features = of_paper(step())
    weights, products = CO * CI * K**2, B * FORWARD
    assert features.shape == (PAPER,)
    tensors = [weights, B * weights, 2 * B * CI * P**2, 2 * B * CO * Q**2]
    assert features[:5] == pytest.approx([*tensors, sum(tensors)])
    columns = [B * Q**2, B * Q**2 * K**2 * CI, B * P**2, B * P**2 * K**2 * CI, B * Q**2 * K**2 * CI]
    assert features[5:12] == pytest.approx(
        [*columns, columns[1] + columns[3] + columns[4], 2 * B * Q**2 + B * P**2]
    )
    assert features[12:15] == pytest.approx([products, products, 3 * products])
    side = P * (1 + P)
    assert features[15:20] == pytest.approx(
        [side * CO * CI, side * B * CI, side * B * CO, side * CO * CI, side * B * CO]
    )
    transformed = P**2 * 3 * (B * CI + B * CO + CO * CI) + B * CO * CI * P**2
    assert features[24] == features[25] == pytest.approx(transformed)
    tiles = 2**2  # of 4 x 4 in 8 x 8; t = 4 + 3 - 1
    assert features[28:31] == pytest.approx(
        [3 * B * CO * 36 * tiles, 3 * B * CI * 36 * tiles, 3 * B * CO * CI * 36 * tiles]
    )
    assert features[35] == pytest.approx(B * CO * CI * tiles * 1 * 36)
    assert features[37] == pytest.approx(B * CO * CI * tiles * math.ceil(Q / 3) ** 2 * 36)


def test_a_product_that_is_not_made_is_not_counted() -> None:
    """Breaks if pruned error maps or a frozen layer cost what they do not."""
    pruned = of_paper(step(keep=0.25))
    assert pruned[12:15] == pytest.approx([B * FORWARD, 0.25 * B * FORWARD, 1.5 * B * FORWARD])
    frozen = step()
    layer = replace(frozen.layers[0], weight_gradient=0, error_propagation=0)
    assert of_paper(replace(frozen, layers=(layer,)))[14] == B * FORWARD


def test_the_width_features_of_one_convolution() -> None:
    """Breaks if one of the counts is another: a machine's coefficients would be of something else."""
    found = dict(zip(BY_WIDTH, by_width(step()), strict=True))
    macs = 3 * B * FORWARD
    assert found["step"] == 1 and found["operator"] == 3 and found["trained parameter"] == CO * CI * K * K
    assert found["element written"] == 100 * B
    assert found["map number of a layer"] == B * (CI * P * P + CO * Q * Q)
    assert (found["product"], found["product over width"]) == (macs, macs / CI)
    assert found["product in full vectors"] == pytest.approx(macs * 16 / CI * 16 / CO)
    assert (
        found["product of a grouped layer"] == found["convolution ranked"] == found["map number ranked"] == 0
    )
    ranked = dict(zip(BY_WIDTH, by_width(step(keep=0.5)), strict=True))
    assert (ranked["convolution ranked"], ranked["map number ranked"]) == (1, B * CO * Q * Q)
    assert ranked["product"] == 2 * B * FORWARD


def test_more_of_a_batch_is_never_less_of_anything() -> None:
    """Breaks if a larger batch could be predicted to take less time."""
    small, large = (step(batch=batch) for batch in (2, 5))
    assert np.all(by_width(large) >= by_width(small)) and np.all(of_paper(large) >= of_paper(small))
