"""What a user writes: one frozen, validated model of a scenario. TOML in, TOML out.

Every section refuses unknown keys, wrong types and numbers out of range; `Scenario` then checks the
sections against one another, and `fedge.scenario.load` against what is known of data sets and devices. Every default
stands in this file or, for what happens to a fleet from outside, in `fedge.fleet`. Units are in the names. Both sides
of the wire read it, so it knows neither data nor torch.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from fedge.catalog.devices import PROFILES, DeviceProfile, profile
from fedge.catalog.program import Program
from fedge.scenario.beside import Beside
from fedge.scenario.changes import ChangesOfTraining, changed_training
from fedge.scenario.data import Data
from fedge.scenario.fleet import Availability, Faults, Selection
from fedge.scenario.hardware.device import OwnDevice
from fedge.scenario.model import Model
from fedge.scenario.privacy import Privacy, require_sums_suffice
from fedge.scenario.report import Report
from fedge.scenario.schedule import FinetunePruneRetrain, Schedule
from fedge.scenario.section import (
    Args,
    Count,
    Hour,
    NotNegative,
    Positive,
    Probability,
    Section,
)
from fedge.scenario.training import LevelSearch, Training

# --- [[fleet]] ------------------------------------------------------------------------------------------


class RayRequest(Section):
    """What one Ray host of the class asks for; what is left out comes from the device's profile."""

    num_cpus: Positive | None = None
    num_gpus: NotNegative = 0.0  # share of one, with engine.device = "cuda" and with it alone
    memory_mb: Positive | None = None
    resources: dict[str, Positive] = Field(default_factory=dict)


class DeviceClass(Section):
    """`count` clients on devices of one profile. `name` tells two classes of the same device apart.

    training: what is changed of `[training]` for this class.
    """

    device: str
    count: Count
    name: str = ""
    training: Annotated[dict[str, Any], ChangesOfTraining()] = Field(default_factory=dict)
    ray: RayRequest = RayRequest()

    @property
    def label(self) -> str:
        return self.name or self.device


class Limits(Section):
    """What happens where the plan needs more memory than the device has (docs/methods/devices.md).

    refuse: the device declines the round. shrink: a smaller batch, then a higher level. fail: the run ends.
    `overhead` times the tensors' peak is what the device must have. `hard` also fences the host's process, so that
    a client program that takes more than its device has fails alone.
    """

    memory: Literal["refuse", "shrink", "fail"] = "refuse"
    overhead: Annotated[float, Field(ge=1)] = 1.06
    hard: bool = False


class Clock(Section):
    """How much devices of one class differ in speed, and how far away the server is (docs/methods/devices.md)."""

    device_sigma: Annotated[float, Field(ge=0, le=2)] = 0.25  # one unit against its class; 0: all alike
    round_sigma: Annotated[float, Field(ge=0, le=2)] = 0.1  # one unit from round to round; 0: always alike
    rtt_s: Annotated[float, Field(ge=0, le=60)] = 0.05  # per link


class Energy(Section):
    """What devices with a battery do. Levels are shares of its capacity."""

    start: Probability = 0.8  # level before the first round
    admit: Probability = 0.3  # joins a round above this
    floor: Probability = 0.1  # aborts a round here
    charger_w: Annotated[float, Field(gt=0, le=500)] = 10.0
    plug_h: Hour = 22.0
    plugged_for_h: Hour = 8.0

    @model_validator(mode="after")
    def _floor_below_admission(self) -> "Energy":
        if self.floor > self.admit:
            raise ValueError(
                f"floor is {self.floor:g} and admit {self.admit:g}; a device would join only to abort"
            )
        return self


# --- client, [engine] -----------------------------------------------------------------------------------


class OwnClient(Section):
    """A client program with arguments of its own, which it reads as `device.args`."""

    program: Annotated[str, Beside(".py")] = "edge"
    args: Args = Field(default_factory=dict)


class Engine(Section):
    """Where the devices run. The numbers of a run do not depend on it, but for `threads` and `device`."""

    kind: Literal["ray", "inline"] = "ray"
    address: str = "local"  # "local": a Ray of our own; else a running cluster's address
    state: Literal["shared", "sticky"] = "shared"  # device folders: on common storage, or each on one node
    hosts: Count | None = None  # per device class; None: one, and more while CPUs are left
    threads: Count = 1  # torch threads per host; part of the numbers, so it is fixed here
    deadline_s: Positive = 600.0  # wall-clock seconds for one message; then its host is replaced
    retries: Annotated[int, Field(ge=0)] = 2  # times a message is sent again after its host died
    device: Literal["cpu", "cuda"] = "cpu"  # what the networks compute on; part of the numbers, by rounding
    kernels: Literal["torch", "compiled"] = "torch"  # what computes; "compiled" cannot be had and is refused

    @model_validator(mode="after")
    def _kernels_can_be_had(self) -> "Engine":
        if self.kernels == "compiled":
            raise ValueError(
                "kernels is 'compiled' and this version of fedge has none (they brought 3 % end to end and made "
                "numbers depend on the host's compiler); take 'torch'"
            )
        return self


# --- the scenario ---------------------------------------------------------------------------------------


class Scenario(Section):
    """All that a run needs."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
    seed: Annotated[int, Field(ge=0)] = 0
    rounds: Count = 5
    # a program in clients/; or a path: a file, or a package's folder; or { program, args }
    client: Annotated[str, Beside(".py")] | OwnClient = "edge"
    data: Data
    model: Model
    device: tuple[OwnDevice, ...] = ()
    fleet: Annotated[tuple[DeviceClass, ...], Field(min_length=1)]
    training: Training = Training()
    limits: Limits = Limits()
    clock: Clock = Clock()
    energy: Energy = Energy()
    availability: Availability = Availability()
    selection: Selection = Selection()
    faults: Faults = Faults()
    schedule: Schedule = FinetunePruneRetrain()
    report: Report = Report()
    privacy: Privacy = Privacy()
    engine: Engine = Engine()
    programs: dict[str, Program] = Field(
        default_factory=dict
    )  # the texts of `file.py:name` references and of devices' fingerprints, by path

    @property
    def client_program(self) -> str:
        """The client program's name or path."""
        return self.client.program if isinstance(self.client, OwnClient) else self.client

    @property
    def client_args(self) -> Mapping[str, Any]:
        """What the client program is given."""
        return self.client.args if isinstance(self.client, OwnClient) else {}

    @property
    def world(self) -> int:
        """The seed of who holds what and of the factory model."""
        return self.seed if self.data.seed is None else self.data.seed

    @property
    def clients(self) -> int:
        """Number of simulated devices."""
        return sum(device_class.count for device_class in self.fleet)

    @property
    def unseen(self) -> int:
        """Number of clients that take part in one round alone, after all others."""
        share = self.schedule.unseen
        return max(1, round(share * self.clients)) if share else 0

    @property
    def all_rounds(self) -> int:
        """The rounds of the run, with the one of the unseen clients."""
        return self.rounds + bool(self.unseen)

    @property
    def stream_frames(self) -> int | None:
        """The most frames that a stream brings to one device in the run, held-out ones included; None: no stream."""
        stream = self.data.stream
        if stream is None:
            return None
        interval_h = self.availability.round_every_h
        return stream.frames_at_most((self.all_rounds + 1 + stream.horizon(interval_h)) * interval_h)

    def is_for_unseen(self, round: int) -> bool:
        """Whether `round` (from 1) is the one of the unseen clients."""
        return self.rounds < round <= self.all_rounds

    def device_class_of(self, client: int) -> DeviceClass:
        """Clients are numbered class by class, in the order of `[[fleet]]`."""
        for device_class in self.fleet:
            if client < device_class.count:
                return device_class
            client -= device_class.count
        raise IndexError(client)

    def profile_of(self, device_class: DeviceClass) -> DeviceProfile:
        """The hardware of a class: of the table, or a `[[device]]` of the scenario's. UserError where it is neither."""
        return profile(device_class.device, (own.profile(self.programs) for own in self.device))

    def training_of(self, device_class: DeviceClass) -> Training:
        """`[training]` with the class's changes."""
        place = ("fleet", self.fleet.index(device_class), "training")
        return changed_training(self.training, device_class.training, place)

    @model_validator(mode="after")
    def _class_labels_differ(self) -> "Scenario":
        labels = [device_class.label for device_class in self.fleet]
        for label in labels:
            if labels.count(label) > 1:
                raise ValueError(
                    f"fleet holds {labels.count(label)} classes called {label!r}; give each its own `name`"
                )
        return self

    @model_validator(mode="after")
    def _own_devices_have_names_of_their_own(self) -> "Scenario":
        names = [own.name for own in self.device]
        for index, name in enumerate(names):
            if name in PROFILES:
                raise ValueError(
                    f"device.{index}.name is {name!r}, which is a known device (fedge list devices): take another name"
                )
            if name in names[:index]:
                raise ValueError(
                    f"device.{index}.name is {name!r}, as is device.{names.index(name)}'s: give each its own"
                )
        return self

    @model_validator(mode="after")
    def _isolation_can_be(self) -> "Scenario":
        if self.privacy.isolation == "client" and self.engine.device == "cuda":
            raise ValueError(
                "privacy.isolation is 'client' and engine.device 'cuda'; a confined process has no GPU: take 'cpu', or "
                "isolation 'none'"
            )
        return self

    @model_validator(mode="after")
    def _sums_suffice(self) -> "Scenario":
        require_sums_suffice(
            self.privacy,
            rounds=self.rounds,
            clients=self.clients,
            unseen=self.unseen,
            wanted=self.selection.clients_per_round,
            over_selection=self.selection.over_selection,
            policy=self.schedule.named,
            stream=self.data.stream is not None,
            detector=self.schedule.detector is not None,
        )
        return self

    @model_validator(mode="after")
    def _schedule_fits_rounds(self) -> "Scenario":
        self.schedule.require_rounds(self.rounds)
        return self

    @model_validator(mode="after")
    def _schedule_finds_what_it_needs(self) -> "Scenario":
        if self.schedule.detector is not None and self.data.stream is None:
            raise ValueError(
                "schedule.detector looks for drift in a stream and there is none: add [data.stream], or leave the "
                "detector out"
            )
        levels = [self.training_of(device_class).pruning.level for device_class in self.fleet]
        if self.schedule.regrows and self.schedule.named is None and all(level == 0 for level in levels):
            raise ValueError(
                "schedule regrows and training.pruning.level is 0: nothing is cut that could come back; raise the "
                "level, or leave regrow_at and detector.then = 'regrow' out"
            )
        return self

    @model_validator(mode="after")
    def _somebody_is_seen(self) -> "Scenario":
        if self.unseen >= self.clients:
            raise ValueError(
                f"schedule.unseen is {self.schedule.unseen:g}, which leaves none of {self.clients} clients to take "
                "part: lower it, or raise the fleet's counts"
            )
        return self

    @model_validator(mode="after")
    def _every_training_can_be(self) -> "Scenario":
        self.require_possible(self.training)
        for index, device_class in enumerate(self.fleet):
            self.require_possible(self.training_of(device_class), f"fleet.{index}.")
        return self

    def require_possible(self, training: Training, whose: str = "") -> None:
        """ValueError where `training` needs what the scenario's data do not have."""
        level = training.pruning.level
        if isinstance(level, LevelSearch) and level.search == "accuracy" and not self.data.split.validation:
            raise ValueError(
                f"{whose}training.pruning.level searches by accuracy and data.split.validation is 0; "
                "it needs validation data: raise data.split.validation, or search by memory or macs"
            )
        self._require_exits_possible(training, whose)
        if training.contrast is not None and self.data.stream is None:
            raise ValueError(
                f"{whose}training.contrast learns from what comes in a stream and there is none: add [data.stream], or "
                "leave contrast out"
            )
        if training.serve != "last" and not self.data.split.validation:
            raise ValueError(
                f"{whose}training.serve is {training.serve!r}, which goes by validation data, and "
                "data.split.validation is 0: raise that, or take 'last'"
            )

    def _require_exits_possible(self, training: Training, whose: str) -> None:
        exits, of_all = training.exits, self.training.exits
        if (exits and exits.shape) != (of_all and of_all.shape):
            raise ValueError(
                f"{whose}training.exits has another where, channels or factory_epochs than training.exits: one factory "
                "model is shipped to all; change teach, labelled or thresholds alone"
            )
        if exits is None:
            return
        others = {
            "data.stream is given": self.data.stream is not None,
            "privacy keeps reports from the coordinator": not self.privacy.whole_reports,
            "privacy.least_count is above 1": self.privacy.least_count > 1,
        }
        if refused := [said for said, holds in others.items() if holds]:
            raise ValueError(
                f"{whose}training.exits is given and {refused[0]}, which does not go with it: leave one out"
            )
        if exits.threshold is None and not self.data.split.validation:
            raise ValueError(
                f"{whose}training.exits chooses thresholds by validation samples and data.split.validation is 0: raise "
                "that, or give exits.threshold"
            )
