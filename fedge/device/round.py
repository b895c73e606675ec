"""What the parts of a device share in one round: whose it is, what is asked, the data, the network."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property

import numpy as np
from torch import Tensor, nn

from fedge.cache import hold
from fedge.data.shard import Batch, Shard
from fedge.device.adaptation.prior import LabelPrior, estimated_prior, kept_prior
from fedge.device.early_exits.labels import known_labels
from fedge.device.local import EVALUATION_BATCH, Drawn, Local
from fedge.device.location import Location
from fedge.device.methods import Methods
from fedge.device.network import Network
from fedge.device.own.loop import Count
from fedge.device.state import DeviceState, Served
from fedge.device.storage.intake import Intake
from fedge.device.storage.opening import opened_intake
from fedge.prepare import Prepared
from fedge.protocol import DeviceFailure, RoundPlan, RoundReport, Status
from fedge.seeding import derive_seed
from fedge.training.memory_format import fast_order
from fedge.training.stats import Evaluation
from fedge.training.task import Task
from fedge.training.torch_device import opened


class Round:
    """One client's round. `training` is the plan's, with a smaller batch where the device could not hold it."""

    def __init__(self, location: Location, plan: RoundPlan, before: DeviceState) -> None:
        self.client = location.client
        self.simulated = location.simulated
        self.plan = plan
        self.training = plan.training
        self.before = before
        self.last_report = RoundReport.from_json(before.report)
        hold(location.data_folder)
        self.prepared = Prepared.open(location.data_folder)
        shard = Shard.open(location.data_folder / "shards", location.shard)
        self.own_shard = shard.in_multiples_of(self.simulated.least_count)
        self.torch_device = opened(self.simulated.torch_device)
        self.network = Network(self.prepared, before, self.torch_device)
        self.network.freeze(self.training.what, self.prepared.input_shape)
        self.factory = before.factory  # what is kept of the factory model's answers
        self.served: Served | None = None  # what the report says of, and the state keeps
        self.course = before.course
        self.prior_macs = 0  # of looking at unlabelled rows in this round
        self._known_prior = kept_prior(self)
        self.count: Count | None = None  # of a program's own loop, while it is in one
        self._location = location

    @cached_property
    def intake(self) -> Intake | None:
        """The stream, all that came taken in when it is first asked for; None: all rows are there from the start."""
        choice = self.simulated.stream
        if choice is None:
            return None
        intake = opened_intake(self, self._location, choice, self._judged)
        intake.take_in()
        return intake

    @cached_property
    def label_prior(self) -> LabelPrior | None:
        """Of the rows that are there in this round, estimated when it is first asked for; None: as in the factory."""
        if self.training.prior == "none":
            return None
        with self.uncounted():
            self._known_prior, self.prior_macs = estimated_prior(self, self._known_prior)
        return self._known_prior

    def head_was_trained(self) -> None:
        """On features, by the label prior as it is."""
        if self.label_prior is not None:
            self.__dict__["label_prior"] = self._known_prior = self.label_prior.trained()

    @property
    def prior_state(self) -> dict[str, Tensor]:
        """For the device's state."""
        return self.before.prior if self._known_prior is None else self._known_prior.tensors()

    @property
    def shard(self) -> Shard:
        """The client's rows; of a stream, its training part is what is stored and may be trained on."""
        return self.own_shard if self.intake is None else self.intake.shard

    @property
    def idle(self) -> bool:
        """Whether there is nothing to train on yet, of a stream that has brought nothing with a label."""
        return self.intake is not None and not self.shard.count("train")

    @property
    def methods(self) -> Methods:
        """The maker of what the plan's settings name."""
        return Methods(
            self.training,
            self.prepared.input_shape,
            seed=self.seed,
            filter_seed=derive_seed(self.simulated.seed, self.client, "instance_filter"),
            programs=self.simulated.programs,
        )

    def seed(self, purpose: str, *parts: int) -> int:
        """The seed of one purpose in this (run, client, round)."""
        return derive_seed(self.simulated.seed, self.client, self.plan.round, purpose, *parts)

    @property
    def samples(self) -> int:
        """Number of training samples; a device without any has nothing to do in a round."""
        if not self.shard.count("train"):
            raise DeviceFailure(Status.NO_TRAINING_DATA)
        return self.shard.count("train")

    @property
    def batch_size(self) -> int:
        """Of the largest mini-batch in training."""
        return min(self.training.batch_size, self.samples)

    @property
    def local(self) -> Local:
        """Training and judging as the plan's settings say."""
        drawn = None if self.intake is None else self.intake.drawn
        return self._local(self.shard, self.label_prior, drawn)

    def _local(self, shard: Shard, prior: LabelPrior | None, drawn: Drawn | None = None) -> Local:
        return Local(
            self.training,
            self.prepared,
            shard,
            self.simulated.programs,
            self.torch_device,
            seed=self.seed,
            round=self.plan.round,
            rounds=self.simulated.rounds,
            drawn=drawn,
            prior=prior,
            known_N=self._known(shard),
        )

    def _known(self, shard: Shard) -> np.ndarray | None:
        """Which training rows have a label that the device knows; None: all."""
        exits = self.training.exits
        if exits is None or exits.known == 1:
            return None
        seed = derive_seed(self.simulated.seed, self.client, "labelled", "train")
        return known_labels(shard.count("train"), exits.known, seed)

    @property
    def task(self) -> Task:
        """What the network is asked for, with the loss that the plan's settings name."""
        return self.local.task

    @property
    def answers(self) -> tuple[int, ...] | None:
        """The classes that are answers here, where the settings leave those of others out; None: all are."""
        return self.local.answers

    def batches(self, model: nn.Module, purpose: str, *parts: int) -> Iterator[Batch]:
        """The training rows once, shuffled by the purpose's seed, in the order in memory in which `model` is fast."""
        with self.uncounted():
            order = fast_order(model, self.batch_size, self.prepared.input_shape)
        return self.local.batches(purpose, *parts, order=order)

    def evaluate(self, split: str, model: nn.Module) -> Evaluation:
        """Count the device's right answers on one part of the shard: train, validation or test."""
        return self.evaluated(split, model, self.answers, corrected=True)

    def evaluated(
        self, split: str, model: nn.Module, classes: Sequence[int] | None, *, corrected: bool = False
    ) -> Evaluation:
        """The same of any model, among these classes alone; None: among all. corrected: by the label prior, where the
        settings ask for one."""
        with self.uncounted():
            order = fast_order(model, EVALUATION_BATCH, self.prepared.input_shape)
        return self.local.evaluated(split, model, classes, order, corrected=corrected)

    def _judged(self, shard: Shard) -> Evaluation:
        """The device's network as it is, on the training part of a shard."""
        with self.uncounted():
            order = fast_order(self.network.model, EVALUATION_BATCH, self.prepared.input_shape)
        local = self._local(shard, self._known_prior)
        return local.evaluated("train", self.network.model, None, order, corrected=True)

    def require_counted(self) -> None:
        """UserError where the network changed and nobody counted; a counted loop is asked when it ends."""
        if self.count is None:
            self.network.require_counted()

    @contextmanager
    def uncounted(self) -> Iterator[None]:
        """In a counted loop: passes of the network that the device counts elsewhere, or would not make."""
        if self.count is None:
            yield
            return
        with self.count.paused():
            yield
