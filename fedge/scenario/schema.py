"""What a user writes: one frozen, validated model of a scenario. TOML in, TOML out.

Every section refuses unknown keys, wrong types and numbers out of range; `Scenario` then checks the
sections against one another, and `fedge.scenario.load` against what is known of data sets and devices. Every default
stands in this file or, for what happens to a fleet from outside, in `fedge.fleet`. Units are in the names. Both sides
of the wire read it, so it knows neither data nor torch.
"""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from fedge.scenario.beside import Beside
from fedge.scenario.fleet import Availability, Faults, Selection
from fedge.scenario.section import Count, Fraction, Hour, NotNegative, Positive, Probability, Section, Share

# --- [data] ---------------------------------------------------------------------------------------------


class Iid(Section):
    """Every client draws from the same distribution."""

    kind: Literal["iid"] = "iid"


class Dirichlet(Section):
    """Per class, the clients' shares are drawn from Dirichlet(alpha). alpha 0.1: very unlike; 100: nearly iid."""

    kind: Literal["dirichlet"]
    alpha: Positive = 0.3


class Pathological(Section):
    """Every client holds exactly `classes` classes."""

    kind: Literal["pathological"]
    classes: Count = 2


class Shards(Section):
    """Sorted by label, cut into equal shards, `per_client` shards each (McMahan et al. 2017)."""

    kind: Literal["shards"]
    per_client: Count = 2


class Natural(Section):
    """The data's own owners: one client per person (har)."""

    kind: Literal["natural"]


class Subsets(Section):
    """ADaPT's named subsets of CIFAR-100; the clients are divided into one group per name, in order."""

    kind: Literal["subsets"]
    names: Annotated[tuple[str, ...], Field(min_length=1)] = (
        "aquatic",
        "indoor",
        "outdoor",
        "natural",
        "random",
    )


Partition = Annotated[
    Iid | Dirichlet | Pathological | Shards | Natural | Subsets, Field(discriminator="kind")
]


class Split(Section):
    """How a client divides its own rows. `test` is only ever evaluated on.

    row: at random, row by row. run: whole runs, what one owner recorded under one label without a break. time: the
    first rows train, the last test. The latter two are for data in the order of recording (har), whose windows overlap.
    """

    by: Literal["row", "run", "time"] = "row"
    train: Share = 0.6
    validation: Fraction = 0.2
    test: Fraction = 0.2

    @model_validator(mode="after")
    def _sums_to_one(self) -> "Split":
        total = self.train + self.validation + self.test
        if abs(total - 1) > 1e-6:
            raise ValueError(f"the parts sum to {total:g}; they must sum to 1")
        return self


class Data(Section):
    dataset: str
    root: Annotated[str, Beside()] | None = (
        None  # folder of the files; None: FEDGE_DATA, else the user's cache folder
    )
    factory_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.3  # trains the factory model, never a client's
    partition: Partition = Iid()
    split: Split = Split()


# --- [model] --------------------------------------------------------------------------------------------


class Factory(Section):
    """How the factory model is trained on the factory split. epochs 0: it ships with its initial weights."""

    epochs: Annotated[int, Field(ge=0)] = 5
    batch_size: Count = 64
    learning_rate: Positive = 0.05
    momentum: Fraction = 0.9
    weight_decay: NotNegative = 5e-4
    augment: Literal["none", "crop_flip"] = "none"


ModelName = Literal[
    "lenet", "alexnet", "resnet8", "resnet20", "resnet32", "resnet56", "resnet74", "resnet110",
    "vgg11", "vgg16", "mobilenet_v2", "squeezenet", "har_cnn",
]  # fmt: skip  # the names in fedge.models, which needs torch to be asked


class Model(Section):
    name: ModelName
    factory: Factory = Factory()


# --- [[fleet]] ------------------------------------------------------------------------------------------


class RayRequest(Section):
    """What one Ray host of the class asks for; what is left out comes from the device's profile."""

    num_cpus: Positive | None = None
    num_gpus: NotNegative = 0.0
    memory_mb: Positive | None = None
    resources: dict[str, Positive] = Field(default_factory=dict)


class DeviceClass(Section):
    """`count` clients on devices of one profile. `name` tells two classes of the same device apart."""

    device: str
    count: Count
    name: str = ""
    ray: RayRequest = RayRequest()

    @property
    def label(self) -> str:
        return self.name or self.device


# --- [training] -----------------------------------------------------------------------------------------


class LevelSearch(Section):
    """Each device finds its own level, on a grid of 5%: the highest that keeps its accuracy, or the lowest that fits.

    accuracy: on its validation data, after `training.epochs` of retraining, not more than `slack` below the unpruned
    network's. memory: peak training memory at most `share` of the device's. macs: a training step at most `share` of
    the unpruned network's multiply-accumulates.
    """

    search: Literal["accuracy", "memory", "macs"]
    share: Share = 1.0
    slack: Fraction = 0.0


class Pruning(Section):
    """Data-aware structured pruning (ADaPT). level: the share of parameters removed; 0: no pruning.

    criterion: "l1" is ADaPT's, which hardly sees the data; "taylor" ranks by them and won (docs/methods/pruning.md).
    """

    level: Fraction | LevelSearch = 0.0
    criterion: Literal["l1", "taylor", "activation", "random"] = "taylor"
    ranking_samples: Count = 128  # training instances that taylor and activation rank by, at most
    accounting: Literal["exact", "adapt"] = "exact"
    round_to: Count = 1  # layers end with multiples of so many channels, which processors like; 8 or 16

    @property
    def cut(self) -> dict[str, Any]:
        """How a network is cut, whatever the level and the ranking: keyword arguments of `prune`."""
        return {"accounting": self.accounting, "round_to": self.round_to}


class EarlyFilter(Section):
    """EIF: a small network, trained on the device, keeps the instances it predicts to have the highest losses."""

    kind: Literal["early"]
    keep: Share = 0.4  # share of instances trained on
    controller: Literal["quantile", "paper"] = (
        "quantile"  # what holds the share (docs/methods/instance_filter.md)
    )
    explore: Share = 0.5  # least share of the kept that is drawn by lot
    distrust: Fraction = 0.0  # share of highest losses taken for wrong labels
    learning_rate: Positive = 0.1  # of the filter's own SGD
    network: Literal["auto", "slim_lenet", "resnet8"] = (
        "auto"  # the filter's; auto: slim_lenet for one channel
    )
    downsample: Count = 2  # the filter sees the picture averaged over so many pixels squared

    @model_validator(mode="after")
    def _some_high_losses_are_trusted(self) -> "EarlyFilter":
        if self.distrust >= self.keep:
            raise ValueError(
                f"distrust is {self.distrust:g} and keep {self.keep:g}; distrust must be the smaller, "
                "or everything worth keeping is taken for mislabelled"
            )
        return self


class OtherFilter(Section):
    """No filter, or a plain one: random, smb (whole mini-batches), ohem, selective_backprop, infobatch."""

    kind: Literal["none", "random", "smb", "ohem", "selective_backprop", "infobatch"] = "none"
    keep: Share = 0.4


InstanceFilter = Annotated[EarlyFilter | OtherFilter, Field(discriminator="kind")]


class ErrorMaps(Section):
    """Error-map pruning in the backward pass. keep: the share of channels kept; 1: the exact gradient."""

    keep: Share = 1.0
    score: Literal["error", "paper", "product", "random"] = "error"
    dense_first: Annotated[int, Field(ge=0)] = 0  # so many first convolutions stay exact
    warmup_steps: Annotated[int, Field(ge=0)] = 0  # so many steps of each round stay exact
    alternate: bool = False  # every other local epoch stays exact


class Quantization(Section):
    """Training in few bits, simulated in float: it is counted (bit_operations), and saves no time here."""

    bits: Annotated[int, Field(ge=2, le=16)] = 8  # weights, activations, propagated errors
    weight_gradient_bits: Annotated[int, Field(ge=2, le=24)] = 16  # the errors that make weight gradients
    range_norm: bool = False  # Range-BN in place of batch norm

    @model_validator(mode="after")
    def _weight_gradient_is_the_finer(self) -> "Quantization":
        if self.weight_gradient_bits < self.bits:
            raise ValueError(
                f"weight_gradient_bits is {self.weight_gradient_bits} and bits {self.bits}; "
                "the errors that make weight gradients need at least as many"
            )
        return self


class Training(Section):
    """A device's local training: SGD, afresh each round."""

    epochs: Count = 1  # local epochs per round
    batch_size: Count = 32
    learning_rate: Positive = 0.01
    momentum: Fraction = 0.9
    weight_decay: NotNegative = 0.0
    augment: Literal["none", "crop_flip"] = "none"
    pruning: Pruning = Pruning()
    instance_filter: InstanceFilter = OtherFilter()
    error_maps: ErrorMaps = ErrorMaps()
    quantization: Quantization | None = None


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


# --- [schedule], [engine] -------------------------------------------------------------------------------


class FinetunePruneRetrain(Section):
    """ADaPT's order: fine-tune the whole network, prune it once, retrain what is left."""

    kind: Literal["finetune_prune_retrain"] = "finetune_prune_retrain"
    finetune_rounds: Annotated[int, Field(ge=0)] = 1


class TrainOnly(Section):
    """Local training in every round, no pruning."""

    kind: Literal["train_only"]


Schedule = Annotated[FinetunePruneRetrain | TrainOnly, Field(discriminator="kind")]


class Engine(Section):
    """Where the devices run. The numbers of a run do not depend on it."""

    kind: Literal["ray", "inline"] = "ray"
    address: str = "local"  # "local": a Ray of our own; else a running cluster's address
    state: Literal["shared", "sticky"] = "shared"  # device folders: on common storage, or each on one node
    hosts: Count | None = None  # per device class; None: one, and more while CPUs are left
    threads: Count = 1  # torch threads per host; part of the numbers, so it is fixed here
    deadline_s: Positive = 600.0  # wall-clock seconds for one message; then its host is replaced
    retries: Annotated[int, Field(ge=0)] = 2  # times a message is sent again after its host died
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
    client: Annotated[str, Beside(".py")] = (
        "edge"  # a program in clients/; or a path: a file, or a package's folder
    )
    data: Data
    model: Model
    fleet: Annotated[tuple[DeviceClass, ...], Field(min_length=1)]
    training: Training = Training()
    limits: Limits = Limits()
    clock: Clock = Clock()
    energy: Energy = Energy()
    availability: Availability = Availability()
    selection: Selection = Selection()
    faults: Faults = Faults()
    schedule: Schedule = FinetunePruneRetrain()
    engine: Engine = Engine()

    @property
    def clients(self) -> int:
        """Number of simulated devices."""
        return sum(device_class.count for device_class in self.fleet)

    def device_class_of(self, client: int) -> DeviceClass:
        """Clients are numbered class by class, in the order of `[[fleet]]`."""
        for device_class in self.fleet:
            if client < device_class.count:
                return device_class
            client -= device_class.count
        raise IndexError(client)

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
    def _schedule_fits_rounds(self) -> "Scenario":
        if self.schedule.kind == "finetune_prune_retrain" and self.schedule.finetune_rounds >= self.rounds:
            raise ValueError(
                f"schedule.finetune_rounds is {self.schedule.finetune_rounds} of {self.rounds} rounds; "
                "at least one must be left to prune and retrain: raise rounds"
            )
        return self

    @model_validator(mode="after")
    def _accuracy_is_searched_on_validation_data(self) -> "Scenario":
        level = self.training.pruning.level
        if isinstance(level, LevelSearch) and level.search == "accuracy" and not self.data.split.validation:
            raise ValueError(
                "training.pruning.level searches by accuracy and data.split.validation is 0; "
                "it needs validation data: raise data.split.validation, or search by memory or macs"
            )
        return self
