"""What befalls a device in a round from outside: it is offline, its battery is low, it goes away, a fault strikes.

A fault is simulated where it strikes, so that it gives the same numbers on every engine: a crash or a hang keeps
nothing of the round and is reported as the engine would report it. (Real kills are tested with real kills.)
"""

from fedge.device.budget.battery import Battery, Charge, is_plugged, plugged_seconds
from fedge.device.simulated import Simulated
from fedge.fleet.availability import Presence
from fedge.protocol import DeviceFailure, RoundPlan, RoundReport, Status
from fedge.scenario.fleet import Fault

_ENDED_BY = {
    Fault.CRASH: Status.HOST_DIED,
    Fault.HANG: Status.DEADLINE,
    Fault.NAN: Status.DIVERGED,
    Fault.OUT_OF_MEMORY: Status.OUT_OF_MEMORY,
}


def strike(fault: Fault | None) -> None:
    """End the round where the plan's fault does; raises DeviceFailure."""
    if fault in _ENDED_BY:
        raise DeviceFailure(_ENDED_BY[fault], f"fault on purpose: {fault}")


def corrupted(report: RoundReport) -> RoundReport:
    """A report that is well formed and cannot be true: more right answers than questions."""
    return report.model_copy(update={"test_correct": report.test_count + 1})


class Power:
    """One device's energy in one round: may it join, and does it last?"""

    def __init__(self, simulated: Simulated, round: int) -> None:
        self._simulated = simulated
        self.now_s = simulated.availability.time_s(round)
        self._plugged = is_plugged(
            simulated.energy, seed=simulated.seed, client=simulated.client, time_s=self.now_s
        )

    def at_start(self, last: Charge | None) -> Battery:
        """The battery after the rest since `last` (None: as shipped). DeviceFailure where it is too low to join."""
        simulated, settings = self._simulated, self._simulated.energy
        if last is None:
            battery = Battery.of(simulated.profile, settings)
        else:
            end_s = max(self.now_s, last.time_s)
            plugged_s = plugged_seconds(
                settings, seed=simulated.seed, client=simulated.client, start_s=last.time_s, end_s=end_s
            )
            unplugged_s = end_s - last.time_s - plugged_s
            battery = last.battery.rest(
                simulated.profile.idle_w, settings, plugged_s=plugged_s, unplugged_s=unplugged_s
            )
        if battery.capacity_j is not None and not battery.joins(settings, plugged=self._plugged):
            raise DeviceFailure(Status.BATTERY_LOW, f"battery at {battery.share:.0%}")
        return battery

    def after(self, battery: Battery, report: RoundReport, plan: RoundPlan) -> tuple[Charge, bool]:
        """The battery after the round, and whether the device got to its end."""
        lasts = battery.lasts(report.energy_j, self._simulated.energy, plugged=self._plugged)
        share = min(lasts, 1.0 if plan.dropout is None else plan.dropout)
        charge = Charge(battery.spend(share * report.energy_j), self.now_s + share * report.time_s)
        return charge, share == 1.0


def is_online(simulated: Simulated, round: int, tie: float) -> bool:
    """Whether the device is there, where that depends on its own data; `tie` is in 0..1. It is in the round of
    the unseen clients, which waits for them."""
    availability = simulated.availability
    if availability.tied_to != "data" or round == simulated.unseen_round:
        return True
    return Presence(availability, simulated.seed).is_online(simulated.client, round, tie)
