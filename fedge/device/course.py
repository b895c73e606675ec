"""Where a device stands in its schedule: what the plan asks is of the fleet's round, what is due is of this device.

A device whose classes changed, by the schedule or by its own detector, goes back to the factory model's channels and
begins the schedule anew: so many rounds with the whole network, a cut, retraining. With `retrain_rounds` a device that
has trained for so long since its last alarm or cut stands still until the next alarm.
"""

from dataclasses import dataclass, replace

from fedge.device.simulated import Simulated
from fedge.protocol import RoundPlan


@dataclass(frozen=True)
class Course:
    """Rounds, 0 for never: of the last cut; of the last regrowth; from which on the device trains."""

    cut: int = 0
    regrown: int = 0
    since: int = 0


@dataclass(frozen=True)
class Due:
    """What is due on this device in this round, by the course of before, its alarms, and whether it is pruned."""

    simulated: Simulated
    plan: RoundPlan
    before: Course
    alarms: int
    pruned: bool

    @property
    def regrow(self) -> bool:
        """Cut before the round in which all were to grow back, or alarmed, where that is what an alarm sets off."""
        choice = self.simulated.detector
        alarmed = choice is not None and choice.then == "regrow" and self.alarms > 0
        return self.pruned and (alarmed or self.before.cut < self.plan.regrow)

    @property
    def whole(self) -> bool:
        """The network is trained whole: the fleet's is, or this device has just grown back."""
        begun = self.plan.round if self.regrow else self.before.regrown
        own = begun > 0 and self.plan.round < begun + self.simulated.finetune_rounds
        return self.plan.phase == "finetune" or own

    @property
    def prune(self) -> bool:
        """It is to be cut to the plan's level."""
        return self.plan.prune and not self.whole

    @property
    def train(self) -> bool:
        """There is something to train for."""
        rounds = None if self.simulated.detector is None else self.simulated.detector.retrain_rounds
        return rounds is None or self.plan.round < self.after.since + rounds

    @property
    def after(self) -> Course:
        """As this round leaves it; a cut is noted where it is made."""
        round, regrown = self.plan.round, self.plan.round if self.regrow else self.before.regrown
        since = self.before.since or round
        if self.alarms or (self.prune and not (self.pruned and not self.regrow)):
            since = round
        if self.whole:
            since = round + 1
        return replace(self.before, regrown=regrown, since=since)
