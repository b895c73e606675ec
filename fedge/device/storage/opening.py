"""A device's stream is opened: from the scenario, from what was prepared, and from what the device remembers."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from fedge.catalog.names import is_reference
from fedge.data.shard import Shard
from fedge.data.stream.arrivals import Arrivals, PoissonArrivals, TracedArrivals, own_times
from fedge.data.stream.prepared import TRACE
from fedge.data.stream.stream import Stream
from fedge.device.storage.detecting import Detecting
from fedge.device.storage.intake import DETECTOR, Intake, Watch
from fedge.device.storage.keep import RULES, Rule
from fedge.device.storage.stored import Stored
from fedge.device.storage.watching import Scenes, Scores
from fedge.references import Programs, resolve_callable
from fedge.scenario.stream.section import Stream as Choice
from fedge.seeding import derive_seed
from fedge.training.drift_detector import Adwin
from fedge.training.stats import Evaluation

if TYPE_CHECKING:
    from fedge.device.location import Location
    from fedge.device.round import Round


def opened_stream(location: "Location", shard: Shard, choice: Choice, overlap: int) -> Stream:
    """The stream of one client, whose rows `shard` holds. overlap: windows that share samples with the one before."""
    simulated = location.simulated
    interval_h = simulated.availability.round_every_h
    arrivals: Arrivals
    if choice.rate_per_h is None:
        times_h = own_times(Path(location.data_folder) / TRACE, location.shard)
        arrivals = TracedArrivals(times_h, interval_h)
    else:
        seed = derive_seed(simulated.world, location.client, "arrivals")
        arrivals = PoissonArrivals(choice.rate_per_h, interval_h, seed)
    return Stream(shard, choice, arrivals, interval_h, simulated.world, location.client, overlap)


def opened_intake(
    round: "Round", location: "Location", choice: Choice, judge: Callable[[Shard], Evaluation]
) -> Intake:
    """With what the device remembers; nothing is taken in yet."""
    shard = round.own_shard
    stored = Stored.of(round.before.stream, shard.count("train"))
    keep, shape = choice.keep, round.prepared.input_shape
    scores = None
    if keep == "filter":
        scores = Scores(round.methods.instance_filter(), round.before.instance_filter)
    return Intake(
        opened_stream(location, shard, choice, round.prepared.overlap),
        stored,
        Watch(
            rule_named(keep, location.simulated.programs),
            choice.memory,
            scenes=Scenes(shape, stored.rule) if keep == "scenes" else None,
            scores=scores,
        ),
        round=round.plan.round,
        horizon=choice.horizon(location.simulated.availability.round_every_h),
        judge=judge,
        seed=lambda *parts: derive_seed(location.simulated.seed, round.client, "stream", *parts),
        detecting=_detecting(round),
    )


def _detecting(round: "Round") -> Detecting | None:
    """With what the detector has seen; None where the scenario asks for none."""
    choice = round.simulated.detector
    if choice is None:
        return None
    learnt = {
        name.removeprefix(DETECTOR): tensor
        for name, tensor in round.before.stream.items()
        if name.startswith(DETECTOR)
    }
    return Detecting(Adwin(choice.delta), learnt)


def rule_named(name: str, programs: Programs) -> Rule:
    """What `data.stream.keep` names. UserError where a reference does not resolve."""
    if not is_reference(name):
        return RULES[name]
    own: Rule = resolve_callable(name, programs, key="data.stream.keep")
    return own
