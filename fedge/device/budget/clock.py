"""Virtual time and energy of one device's round, from what was counted; nothing sleeps. No torch here.

Units: s, J, W, bytes, MACs (multiply-accumulates; 1 MAC = 2 FLOP), GFLOP/s and GB/s of 1e9, Mbit/s of 1e6.

    compute_s  = spread * (2 * macs / (train_gflops * 1e9)  +  moved_bytes / (memory_gbs * 1e9))
    moved_bytes = 10 * memory_bytes * steps        what is alive at the peak goes through memory 10 times per step:
                                                   layer by layer, forward and back, copies of layout included
    or           spread * learnt_s                 of a profile made from a fingerprint (device/time/pricing.py)
    link_s     = rtt_s + 8 * bytes / (mbps * 1e6)                               down for the plan, up for the report
    time_s     = link_s(down) + compute_s + link_s(up)
    energy_j   = load_w * compute_s + sum over both links of (idle_w + 0.133 + 0.137 * mbps) * link_s
    spread     = exp(device_sigma * z1 + round_sigma * z2)       z1 by (seed, client), z2 by (seed, client, round);
                                                                 z standard normal: lognormal, median 1

Sources: arithmetic and memory traffic are the two terms of the roofline model (Williams et al. 2009), added and not
the larger of them, because small devices overlap them little; 10 was fitted (below). The radio's power is Huang et
al. (MobiSys 2012) for Wi-Fi, recalled, not verified; lognormal speeds as in FedScale. `load_w` is of the
whole board, its memory included, so there is no term for memory. Idle time between rounds is the battery's matter.

Expected error: on one calibrated host, ten training steps (four networks, other batches and levels than the one
calibrated with) were predicted at 0.76 to 1.09 of the truth, median 0.90: `python -m benchmarks clock`; the 10 was
fitted there, to ResNet-20 and MobileNetV2 at batch 32. Where a profile's throughput is itself an assumption (its
`evidence` says so), count on a factor of 2 to 3, the same in all rounds: ratios between methods on one device are
worth more than seconds.

A cost that is missing is an error: every argument is required, and what is not finite or below 0 is refused.
"""

import math
import random
from dataclasses import dataclass, fields

from fedge.catalog.devices import DeviceProfile
from fedge.errors import RunError
from fedge.scenario.schema import Clock
from fedge.seeding import derive_seed

_PASSES_PER_STEP = 10
_RADIO_BASE_W = 0.13286
_RADIO_W_PER_MBPS = 0.13701


@dataclass(frozen=True, kw_only=True)
class Work:
    """What a device did in a round. All counts; none may be left out.

    learnt_s: seconds of its arithmetic by a fingerprint; None: by the two terms.
    """

    macs: int
    steps: int
    memory_bytes: int
    received_bytes: int
    sent_bytes: int
    learnt_s: float | None = None

    def __post_init__(self) -> None:
        for field in fields(self):
            count = getattr(self, field.name)
            if field.name == "learnt_s" and count is None:
                continue
            if not (isinstance(count, int | float) and 0 <= count < math.inf):
                raise RunError(
                    f"the cost {field.name} is {count!r}; it must be counted (a missing cost is an error)"
                )


@dataclass(frozen=True)
class Cost:
    """Virtual time and energy of a round on a device."""

    compute_s: float
    down_s: float
    up_s: float
    energy_j: float

    @property
    def time_s(self) -> float:
        return self.down_s + self.compute_s + self.up_s

    def until(self, share: float) -> "Cost":
        """What was spent by a device that went away after `share` (0..1) of its work: it sends nothing."""
        return Cost(self.compute_s * share, self.down_s, 0.0, self.energy_j * share)


def spread(settings: Clock, *, seed: int, client: int, round: int) -> float:
    """How much slower than its class's median `client` is in `round`: lognormal, 1 where both sigmas are 0."""
    device = random.Random(derive_seed(seed, client, "speed")).gauss(0, 1)
    moment = random.Random(derive_seed(seed, client, round, "speed")).gauss(0, 1)
    return math.exp(settings.device_sigma * device + settings.round_sigma * moment)


def own_spread(settings: Clock, *, seed: int, client: int) -> float:
    """The part of it that is the device's in all rounds: what it knows of itself."""
    return spread(settings.model_copy(update={"round_sigma": 0.0}), seed=seed, client=client, round=0)


def round_cost(profile: DeviceProfile, work: Work, settings: Clock, *, spread: float = 1.0) -> Cost:
    """The formula above. No MACs and no bytes take 2 rtt_s."""
    arithmetic_s = 2 * work.macs / (profile.train_gflops * 1e9)
    traffic_s = _PASSES_PER_STEP * work.memory_bytes * work.steps / (profile.memory_gbs * 1e9)
    compute_s = spread * (arithmetic_s + traffic_s if work.learnt_s is None else work.learnt_s)
    down_s = settings.rtt_s + 8 * work.received_bytes / (profile.down_mbps * 1e6)
    up_s = settings.rtt_s + 8 * work.sent_bytes / (profile.up_mbps * 1e6)
    energy_j = (
        profile.load_w * compute_s
        + _link_w(profile, profile.down_mbps) * down_s
        + _link_w(profile, profile.up_mbps) * up_s
    )
    return Cost(compute_s, down_s, up_s, energy_j)


def _link_w(profile: DeviceProfile, mbps: float) -> float:
    return profile.idle_w + _RADIO_BASE_W + _RADIO_W_PER_MBPS * mbps
