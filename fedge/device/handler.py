"""From a plan that arrives to a report that leaves: what happens around a client program's step.

    locate -> answer a repeated plan from memory -> is the device there, has it power -> step -> price it -> commit

A round is a function of (plan, shard, state, seed) alone: the state of before is read from the device's folder, the
state after is written there, keyed by round, before the report leaves.
"""

import functools
from collections.abc import Callable

from flwr.app import Context, Message

from fedge.device.answers.reporting import require_report
from fedge.device.budget.clock import Work, round_cost, spread
from fedge.device.budget.fate import Power, corrupted, is_online, strike
from fedge.device.device import Device
from fedge.device.location import Location, locate
from fedge.device.memory.limit import memory_limit
from fedge.device.state import StateFolder
from fedge.privacy.egress import checked_report
from fedge.privacy.vouching import vouch
from fedge.protocol import DeviceFailure, RoundPlan, RoundReport, Status, content_bytes
from fedge.scenario.fleet import Fault
from fedge.training.heap import kept_heap
from fedge.training.torch_device import drawing_from

Step = Callable[[Device, RoundPlan], RoundReport]
Handler = Callable[[Message, Context], Message]


def on_device(step: Step) -> Handler:
    """Make a Flower message handler of `step`, which gets the opened device and its plan."""

    @functools.wraps(step)
    def handler(message: Message, context: Context) -> Message:
        plan = RoundPlan.from_message(message)
        location = locate(context)
        if plan.phase == "hello":
            return vouch(RoundReport(round=plan.round, client=location.client)).reply_to(message)
        folder = StateFolder(location.device_folder)
        done = folder.at(plan.round)
        report = RoundReport.from_json(done.report) if done else None
        if report is None:
            report = _execute(step, plan, location, folder, message)
        return vouch(corrupted(report) if plan.fault is Fault.CORRUPT_REPORT else report).reply_to(message)

    return handler


def _execute(
    step: Step, plan: RoundPlan, location: Location, folder: StateFolder, message: Message
) -> RoundReport:
    """Run the step on the device's state and keep what came of it; DeviceFailure where nothing is to be sent."""
    before = folder.before(plan.round, after=plan.after)
    device, simulated = Device(location, plan, before), location.simulated
    if not is_online(simulated, plan.round, device.data_tie):
        raise DeviceFailure(Status.OFFLINE)
    power = Power(simulated, plan.round)
    battery = power.at_start(before.charge)
    report = _priced(_run(step, device, message), device, message)
    strike(plan.fault)
    charge, finished = power.after(battery, report, plan)
    if not finished:
        folder.write(before.aged(plan.round, charge))
        raise DeviceFailure(Status.DROPPED_OUT)
    checked_report(report.reply_to(message), message, simulated.figures)  # what could not leave is not kept
    folder.write(device.state_after(report, charge))
    return report


def _run(step: Step, device: Device, message: Message) -> RoundReport:
    """The device's own report on what the step did; the one that the program returns must be fit to leave, no more. A
    device that stands still takes no step.

    What torch draws for itself (dropout) is of this round alone, whatever the host did before. Freed memory is not kept
    under a hard limit, which counts the gaps between what is in use.
    """
    draws = drawing_from(device.seed("torch"), device.torch_device)
    with draws, memory_limit(device.profile.memory_bytes) if device.plan.limits.hard else kept_heap():
        if device.begin():
            require_report(step(device, device.plan), message, device.location.simulated.figures)
        return device.last_report()


def _priced(report: RoundReport, device: Device, message: Message) -> RoundReport:
    """The report with its virtual time and energy."""
    simulated = device.location.simulated
    instead_bytes = simulated.reply_bytes(report.round)
    work = Work(
        macs=report.macs_done,
        steps=device.steps,
        memory_bytes=report.memory_bytes,
        received_bytes=content_bytes(message.content),
        sent_bytes=content_bytes(report.content()) if instead_bytes is None else instead_bytes,
        learnt_s=device.learnt_s(report.macs_done),
    )
    slowness = spread(simulated.clock, seed=simulated.seed, client=device.client, round=report.round)
    cost = round_cost(simulated.profile, work, simulated.clock, spread=slowness)
    spent = {"time_s": cost.time_s, "down_s": cost.down_s, "up_s": cost.up_s, "energy_j": cost.energy_j}
    return report.model_copy(update=spent)
