"""What is simulated about one device, in one object; what is asked of it in a round stands in its RoundPlan."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Self

from fedge.catalog.devices import DeviceProfile
from fedge.privacy.leaving import sent_bytes
from fedge.references import Programs
from fedge.scenario.fleet import Availability
from fedge.scenario.report import Figure
from fedge.scenario.schedule import Detector
from fedge.scenario.schema import Clock, Energy, Scenario
from fedge.scenario.stream.section import Stream


@dataclass(frozen=True)
class Simulated:
    """A device's hardware, its owner's habits and the world's dice. Units are those of the sections."""

    client: int
    seed: int  # of the run: generators come from (seed, client, round, purpose)
    rounds: int  # of the run, without the one of the unseen clients
    unseen_round: int | None  # that one; None: there are no such clients
    threads: int  # of torch; part of the numbers
    torch_device: str  # "cpu" or "cuda": what the network computes on
    profile: DeviceProfile
    clock: Clock
    energy: Energy
    availability: Availability
    programs: Programs  # the texts of what the scenario names by reference
    args: Mapping[str, Any] = field(default_factory=dict)  # of the client program
    figures: Mapping[str, Figure] = field(default_factory=dict)  # of one's own, that a report holds
    least_count: int = 1  # of samples that a figure in a report is of; part sizes are multiples of it
    has_policy: bool = False  # settings may change from round to round
    world: int = 0  # the seed of who holds what, and of what comes when
    reply_bytes: Callable[[int], int | None] = lambda round: (
        None
    )  # of what leaves in a report's place in that round
    stream: Stream | None = None  # how the data come; None: they are there from the first round
    detector: Detector | None = None  # of drift in them
    finetune_rounds: int = 0  # with the whole network before a cut, and so after each regrowth
    keeps_weights: bool = (
        True  # of the channels that a device still has when it grows back; else the factory's
    )

    @classmethod
    def of(cls, scenario: Scenario, client: int) -> Self:
        """The simulation of the scenario's client of that number."""
        return cls(
            client=client,
            seed=scenario.seed,
            rounds=scenario.rounds,
            unseen_round=scenario.all_rounds if scenario.unseen else None,
            threads=scenario.engine.threads,
            torch_device=scenario.engine.device,
            profile=scenario.profile_of(scenario.device_class_of(client)),
            clock=scenario.clock,
            energy=scenario.energy,
            availability=scenario.availability,
            programs=scenario.programs,
            args=scenario.client_args,
            figures=scenario.report.figures,
            least_count=scenario.privacy.least_count,
            has_policy=scenario.schedule.named is not None,
            world=scenario.world,
            reply_bytes=partial(sent_bytes, scenario),
            stream=scenario.data.stream,
            detector=scenario.schedule.detector,
            finetune_rounds=scenario.schedule.whole_rounds,
            keeps_weights=scenario.schedule.keeps_weights,
        )
