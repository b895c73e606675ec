"""Virtual seconds of a device's arithmetic by the fingerprint of its profile.

A fingerprint knows what a training step takes. A round is steps and more (ranking, a search, a filter's own network),
of which multiply-accumulates are counted; each of them is charged what one of a typical step of this round takes:

    compute_s = macs * step_s / step_macs       a step of the network as it is, on the mean batch that was trained on,
                                                with the share of backward products that was made

so that plain training costs its steps, and a small batch behind a filter what small batches cost. Evaluation is free,
as in the clock's two terms.
"""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import nn

from fedge.catalog.devices import DeviceProfile
from fedge.catalog.fingerprint import parse_fingerprint
from fedge.device.budget.clock import Work, round_cost
from fedge.scenario.schema import Clock
from fedge.scenario.training import Training
from fedge.training.stats import TrainStats
from fedge.training.time.predictor import Predictor, predictor_of
from fedge.training.time.shape import StepShape, step_shape


@functools.lru_cache(maxsize=32)
def _predictor(fingerprint: str) -> Predictor:
    learnt = parse_fingerprint(fingerprint)
    return predictor_of(learnt.predictor, learnt.coefficients)


def predictor_for(profile: DeviceProfile) -> Predictor | None:
    """By the profile's fingerprint; None: it has none, and its time goes by the clock's two terms."""
    return None if profile.fingerprint is None else _predictor(profile.fingerprint)


def learnt_s(
    profile: DeviceProfile,
    model: nn.Module,
    input_shape: Sequence[int],
    *,
    macs: float,
    stats: TrainStats,
    batch_size: int,
    fill: float = 1.0,
) -> float | None:
    """Seconds that `macs` take on the device; None: its profile has no fingerprint.

    stats: of what was trained on in this round, which says what its steps were; nothing was: dense steps of
    `batch_size`. fill: how full the round's mini-batches are in the mean, where `stats` are of full ones.
    """
    predictor = predictor_for(profile)
    if predictor is None or not macs:
        return None if predictor is None else 0.0
    step = typical_step(model, input_shape, stats, batch_size).on(fill)
    return predictor.step_s(step) * macs / step.macs


def typical_step(
    model: nn.Module, input_shape: Sequence[int], stats: TrainStats, batch_size: int
) -> StepShape:
    """The mean step of a training that was counted."""
    if not (stats.steps and stats.samples_kept):
        return step_shape(model, input_shape, batch_size)
    step = step_shape(model, input_shape, stats.samples_kept / stats.steps)
    backward = stats.macs_error_propagation + stats.macs_weight_gradient
    return step.with_backward(backward / stats.steps)


@dataclass(frozen=True)
class StepTime:
    """Foresees a training step's virtual seconds on a device, whatever that device's time goes by.

    slowness: of this unit against its class. peak_bytes: of training a network, which the clock's two terms need.
    A filter's share of the batch and the mean share of error maps are the settings'; what a filter's own network takes,
    and steps that warm up, are left out.
    """

    profile: DeviceProfile
    clock: Clock
    training: Training
    input_shape: tuple[int, ...]
    batch_size: int
    slowness: float
    peak_bytes: Callable[[nn.Module], int]

    def __call__(self, model: nn.Module) -> float:
        step = step_shape(model, self.input_shape, self._kept, keep=self._keep)
        predictor = predictor_for(self.profile)
        if predictor is not None:
            return self.slowness * predictor.step_s(step)
        bytes_ = self.peak_bytes(model)
        work = Work(macs=round(step.macs), steps=1, memory_bytes=bytes_, received_bytes=0, sent_bytes=0)
        return round_cost(self.profile, work, self.clock, spread=self.slowness).compute_s

    @property
    def _kept(self) -> float:
        """Instances of a batch that are trained on, in the mean."""
        chosen = self.training.instance_filter
        return max(1.0, self.batch_size * (1.0 if chosen.kind == "none" else chosen.keep))

    @property
    def _keep(self) -> float:
        """Share of convolutions' backward products, in the mean over epochs."""
        maps = self.training.error_maps
        return (1 + maps.keep) / 2 if maps.alternate else maps.keep
