"""How long the present scene has been seen: frames of a camera come in runs of near-duplicates.

A filter that predicts an image's loss predicts the same for every frame of a run, and would fill a mini-batch with one
scene. So each instance is compared with the few before it. A camera shakes, and the amplitudes of a picture's lowest
spatial frequencies do not change when it shifts; they are the print t of the picture x:

    t_uv    = | sum_hw x_hw exp(-2 pi i (u h / H + v w / W)) |,   0 <= v <= 4,  -4 <= u <= 4,  t_00 = 0
    d_ij    = ||t_i - t_j||^2 / (||t_i||^2 + ||t_j||^2)          0: equal; 0.3 and more: unrelated
    seen_i  = 1 + max of seen_j over the 4 instances j before i with d_ij < 0.05;   0 if there is none
    repeats = max(0, 1 - 2 P(d_ij < 0.05: j long ago) / P(d_ij < 0.05: j just before))

`seen` counts a scene's frames without remembering them, however long a camera stands still. Some things look alike
without being the same (one handwritten 1 and the next, in one of eight cases), and a filter that took those for repeats
would hardly train on them. In a shuffled stream such likeness is as frequent with what came long ago as with what came
just before. So `seen` counts for as much as `repeats`: 0 unless the second is at least twice as frequent as the first,
near 1 in a stream of runs.

Shapes: B instances on offer, R = reach, L from long ago, T amplitudes of a print, K waves (cosines, then sines).
"""

import math

import torch
from torch import Tensor

HIGHEST_FREQUENCY = 4
"""In waves per picture; shapes are told apart by it, noise is above it."""
REACH = 4
"""Instances back within which a scene goes on."""
CLOSENESS = 0.05
"""d below which two pictures show one scene; 0 finds none."""
RATE_HORIZON = 2048
"""Instances over which the two probabilities are averaged."""
REFERENCES, REFERENCE_EVERY = 16, 64
"""Prints kept from long ago, every 64th instance's; so they go back a thousand instances."""


class NearDuplicates:
    """Follows the scene through the stream of pictures [channels, *size]; `tensors` is its state."""

    def __init__(self, channels: int, size: tuple[int, int]) -> None:
        self._waves_HK, self._waves_WK = _waves(size[0]), _waves(size[1])
        amplitudes = channels * self._waves_HK.shape[1] * self._waves_WK.shape[1] // 2
        self.tensors = {
            "recent": torch.zeros(REACH, amplitudes),
            "recent_seen": torch.zeros(REACH),
            "long_ago": torch.zeros(REFERENCES, amplitudes),
            "instances": torch.tensor(0),
            "close_rates": torch.zeros(2),  # of pairs with those just before, and with those long ago
        }
        compared = REACH + REFERENCES
        printed = (
            self._waves_HK.shape[0] * self._waves_WK.numel()
            + self._waves_HK.numel() * self._waves_WK.shape[1]
        )
        self.macs_per_instance = channels * printed + compared * amplitudes
        """Of taking its print, and comparing that with those just before and those long ago."""

    @property
    def repeats(self) -> float:
        """How far likeness means the same scene, in 0 .. 1."""
        before, long_ago = self.tensors["close_rates"].tolist()
        return max(0.0, 1 - 2 * long_ago / before) if before else 0.0

    def count(self, x_BCHW: Tensor) -> Tensor:
        """`repeats * seen` [B]: how many frames of its scene came before each instance. Remembers the instances."""
        print_BT = self._print(x_BCHW)
        recent_RT, long_ago_LT = self.tensors["recent"], self.tensors["long_ago"]
        # windows of the R instances before each, and those from long ago behind them
        before_BTR = torch.cat([recent_RT, print_BT])[:-1].unfold(0, len(recent_RT), 1)
        close_BR = self._close(print_BT, before_BTR)
        close_BL = self._close(print_BT, long_ago_LT.T.expand(len(x_BCHW), -1, -1))
        self._learn(print_BT, close_BR, close_BL)
        return self.repeats * self._follow(close_BR)

    def _print(self, x_BCHW: Tensor) -> Tensor:
        """Amplitudes t; cc, cs, sc, ss are the picture's products with cosines and sines down and across it."""
        product_BCKK = self._waves_HK.T @ (x_BCHW @ self._waves_WK)
        (cc, cs), (sc, ss) = (rows.chunk(2, 3) for rows in product_BCKK.chunk(2, 2))
        forward, backward = torch.hypot(cc - ss, cs + sc), torch.hypot(cc + ss, cs - sc)
        forward[..., 0, 0] = backward[..., 0, 0] = 0  # brightness says nothing about the scene
        return torch.cat([forward.flatten(1), backward.flatten(1)], 1)

    def _close(self, print_BT: Tensor, other_BTN: Tensor) -> Tensor:
        product_BN = torch.einsum("bt,btn->bn", print_BT, other_BTN)
        size_BN = print_BT.square().sum(1, keepdim=True) + other_BTN.square().sum(1)
        return size_BN - 2 * product_BN < CLOSENESS * size_BN

    def _follow(self, close_BR: Tensor) -> Tensor:
        """`seen` [B] by going through the instances in order."""
        reach = close_BR.shape[1]
        seen = self.tensors["recent_seen"].tolist()
        for close_R in close_BR.tolist():
            scene = [count for count, close in zip(seen[-reach:], close_R, strict=True) if close]
            seen.append(1.0 + max(scene) if scene else 0.0)
        self.tensors["recent_seen"] = torch.tensor(seen[-reach:])
        return torch.tensor(seen[reach:])

    def _learn(self, print_BT: Tensor, close_BR: Tensor, close_BL: Tensor) -> None:
        instances, references = int(self.tensors["instances"]), close_BL.shape[1]
        known = min(-(-instances // REFERENCE_EVERY), references)
        if known:
            latest = torch.stack([close_BR.float().mean(), close_BL[:, :known].float().mean()])
            rates, weight = self.tensors["close_rates"], min(1.0, len(close_BR) / RATE_HORIZON)
            self.tensors["close_rates"] = rates.lerp(latest, weight)
        self.tensors["recent"] = torch.cat([self.tensors["recent"], print_BT])[-close_BR.shape[1] :].clone()
        long_ago_LT = self.tensors["long_ago"].clone()
        for index in range(-instances % REFERENCE_EVERY, len(print_BT), REFERENCE_EVERY):
            long_ago_LT[(instances + index) // REFERENCE_EVERY % references] = print_BT[index]
        self.tensors["long_ago"] = long_ago_LT
        self.tensors["instances"] = torch.tensor(instances + len(print_BT))


def _waves(length: int) -> Tensor:
    """Cosines, then sines, of frequency 0 .. 4 [length, K]."""
    frequencies = torch.arange(min(HIGHEST_FREQUENCY, length // 2) + 1)
    angle_LF = 2 * math.pi / length * torch.arange(length)[:, None] * frequencies
    return torch.cat([angle_LF.cos(), angle_LF.sin()], 1)
