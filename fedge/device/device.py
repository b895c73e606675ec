"""A simulated device during one round, as a client program sees it: its data, its network, what it can do with both."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import nn

from fedge.catalog.devices import DeviceProfile
from fedge.data.shard import Batch, Shard, data_tie
from fedge.data.transform import Transform
from fedge.device.answers.reporting import report_of
from fedge.device.budget.battery import Charge
from fedge.device.course import Due
from fedge.device.location import Location
from fedge.device.methods import MakeOptimizer
from fedge.device.own.loop import Count
from fedge.device.pruning import Cutter
from fedge.device.round import Round
from fedge.device.state import DeviceState
from fedge.device.trainer import Trainer
from fedge.errors import UserError
from fedge.prepare import Prepared
from fedge.protocol import DeviceFailure, RoundPlan, RoundReport, Status
from fedge.protocol.figures import as_declared
from fedge.scenario.section import read_only
from fedge.scenario.training import Training
from fedge.training.error_map.pruner import ErrorMapPruner
from fedge.training.instance_filter.filters import InstanceFilter
from fedge.training.outputs import finite_weights
from fedge.training.pruning.criteria import Criterion
from fedge.training.pruning.level_search import Found
from fedge.training.pruning.topology import Topology
from fedge.training.quantization import Quantization
from fedge.training.stats import Evaluation
from fedge.training.task import OwnLoss
from fedge.training.torch_device import on_cpu


class Device:
    """One client's device in one round, made by `on_device`: `client` is its number, `plan` what the round asks."""

    def __init__(self, location: Location, plan: RoundPlan, state: DeviceState) -> None:
        self._started = time.perf_counter()
        torch.set_num_threads(location.simulated.threads)
        self.location = location
        self.client = location.client
        self.plan = plan
        self._round = Round(location, plan, state)
        self._cutter = Cutter(self._round)
        self._trainer = Trainer(self._round, self._cutter)
        self._said: RoundReport | None = None
        self._figures: dict[str, float] = {}

    @property
    def args(self) -> Mapping[str, Any]:
        """The program's own arguments, `client = { program = "mine.py", args = { ... } }`: read-only, empty without."""
        return read_only(self._round.simulated.args)

    @property
    def model(self) -> nn.Module:
        """The network: a plain torch module, to be trained here."""
        return self._round.network.model

    @model.setter
    def model(self, model: nn.Module) -> None:
        self._round.network.model = model

    @property
    def torch_device(self) -> torch.device:
        """Where `model` computes and the mini-batches of `batches` are: `engine.device`."""
        return self._round.torch_device

    @property
    def shard(self) -> Shard:
        """This client's rows and nobody else's; what is read without naming a part is the training part.

        Of a stream that is what the device has stored and knows the labels of.
        """
        return self._round.shard

    @property
    def training(self) -> Training:
        """The plan's settings, with a smaller batch where the device could not hold the planned one."""
        return self._round.training

    @property
    def prepared(self) -> Prepared:
        """The factory model and its facts."""
        return self._round.prepared

    @property
    def profile(self) -> DeviceProfile:
        """The simulated hardware."""
        return self._round.simulated.profile

    @property
    def topology(self) -> Topology | None:
        """What was cut of the factory model's channels; None: nothing."""
        return self._round.network.topology

    @property
    def pruned(self) -> bool:
        """Whether channels have been cut, in this round or before."""
        return self.topology is not None

    @property
    def steps(self) -> int:
        """Optimizer steps so far in this round."""
        return self._trainer.total.steps

    def learnt_s(self, macs: int) -> float | None:
        """Seconds that this round's arithmetic, `macs` in all, takes by the fingerprint of the profile; None: it has
        none."""
        return self._trainer.learnt_s(macs)

    @property
    def data_tie(self) -> float:
        """0..1 from the targets of the training data: where availability is tied to data, this is the tie."""
        return data_tie(self._round.own_shard)

    def seed(self, purpose: str, *parts: int) -> int:
        """The seed of one purpose in this (run, client, round)."""
        return self._round.seed(purpose, *parts)

    @property
    def alarms(self) -> int:
        """How often the drift detector found that what came in this round changed for the worse; 0 without one."""
        intake = self._round.intake
        return intake.detecting.alarms if intake is not None and intake.detecting is not None else 0

    def begin(self) -> bool:
        """Take in what has come of a stream since the device's last round, and grow back where that is due.

        Returns whether there is something to do: a device that nothing has changed for may stand still. `plan` is then
        what is due on this device: it does not ask for pruning as long as the network is to be trained whole.
        """
        round, due = self._round, self._due()
        if due.regrow:
            self.regrow()
        round.course = due.after
        self.plan = round.plan = self.plan.model_copy(update={"prune": due.prune})
        return due.train

    def _due(self) -> Due:
        round = self._round
        return Due(round.simulated, self.plan, round.before.course, self.alarms, self.pruned)

    def regrow(self) -> None:
        """Go back to the factory model's channels: those that were cut away come back as they were shipped, the others
        keep what they have learnt (`schedule.regrow_weights`). Nothing where nothing was cut; the drift detector
        begins anew. UserError inside `counted`."""
        round = self._round
        if round.count is not None:
            raise UserError("device.regrow() inside device.counted(): leave that first, then regrow")
        if not self.pruned:
            return
        round.require_counted()
        self._said = None
        round.network.regrow(round.prepared.factory_model(), keeps_weights=round.simulated.keeps_weights)
        round.network.freeze(round.training.what, round.prepared.input_shape)
        if round.intake is not None and round.intake.detecting is not None:
            round.intake.detecting.reset()

    def prune(self, criterion: Criterion | None = None) -> Found:
        """Cut the network to `training.pruning.level`, or to the level it finds, with this client's own data in view.

        `criterion` is one of your own (docs/guide/own_client.md) in place of the scenario's; looking at a sample is
        charged for it as for taylor. Returns the level and, where it was searched for, the levels tried. Where a stream
        has brought nothing to train on yet, nothing is cut (level 0).
        """
        self._said = None
        return self._cutter.prune(criterion, self._trainer.retrained_accuracy)

    def instance_filter(self) -> InstanceFilter | None:
        """The filter that `training.instance_filter` names, with what it learnt in earlier rounds; None: none."""
        return self._trainer.adopted(self._round.methods.instance_filter())

    def error_maps(self) -> ErrorMapPruner | None:
        """The error-map pruner that `training.error_maps` describes; None where it keeps everything."""
        epochs_before = (self.plan.round - 1) * self.training.epochs
        return self._round.methods.error_maps(self.model, epochs_before)

    def quantization(self) -> Quantization | None:
        """The quantised training that `training.quantization` describes; None: 32-bit floats."""
        return self._round.methods.quantization(self.model)

    def train(
        self,
        *,
        optimizer: MakeOptimizer | None = None,
        instance_filter: InstanceFilter | None = None,
        error_maps: ErrorMapPruner | None = None,
        quantization: Quantization | None = None,
        loss: OwnLoss | None = None,
        transform: Transform | None = None,
    ) -> None:
        """`training.epochs` local epochs over the training part of the shard, as far as memory allows.

        optimizer: makes one from the network's parameters (`lambda parameters: torch.optim.Adam(parameters)`); None:
        the settings' own. Its rate falls as `training.decay` says. A filter may be one of your own; what it learns is
        kept from round to round. loss: a function of (out_BK, y_B) that gives each sample's loss [B], never negative;
        None: the settings'. transform: a function of (x_BCHW, generator) that changes training batches
        (fedge.data.transform); None: the settings'.
        Raises DeviceFailure where the plan does not fit and may not be shrunk, or where the loss diverges.
        """
        self._said = None
        self._trainer.train(optimizer, instance_filter, error_maps, quantization, loss, transform)

    def batches(self, epoch: int = 0) -> Iterator[Batch]:
        """Mini-batches (x_BCHW, y_B) of this client's training rows, normalised: those of `train` in that epoch.

        Shuffled by the seed of (run, client, round, epoch), so that a round is the same wherever it runs.
        """
        return self._trainer.batches(epoch)

    def counted(
        self, optimizer: torch.optim.Optimizer | MakeOptimizer | None = None
    ) -> AbstractContextManager[Count]:
        """Count a loop of your own on `model`; the device sees its passes, `count.step` tells of samples and losses.

            with device.counted() as count:
                for x_BCHW, y_B in device.batches(epoch):
                    ...
                    count.step(seen=len(y_B), kept=len(y_B), loss=loss)

        Memory is asked on entry, for the settings' optimizer unless the `optimizer` is given, and again where its first
        step shows another kind. Raises DeviceFailure where that does not fit the device.
        """
        self._said = None
        return self._trainer.counted(optimizer)

    def evaluate(
        self, split: str, model: nn.Module | None = None, classes: Sequence[int] | None = None
    ) -> Evaluation:
        """Count right answers on one part of the shard: train, validation or test.

        classes: among these alone; None: as `training.answers` says. Answers are corrected as `training.prior` says.
        """
        classes = self._round.answers if classes is None else tuple(classes)
        return self._round.evaluated(split, model or self.model, classes, corrected=True)

    def report(self, **figures: Any) -> RoundReport:
        """Evaluate on the client's validation and test data and say what the round brought and cost.

        figures: numbers of your own, all that the scenario declares in `[report.figures]` and no others; each is
        rounded to its steps. DeviceFailure for one that is undeclared, missing, no number or out of its range,
        UserError where `model` changed and nothing was counted, or is no longer of the shapes that were loaded.
        """
        if self._round.count is not None:
            raise UserError("device.report() inside device.counted(): leave that first, then report")
        self._round.require_counted()
        if not finite_weights(self.model):  # the loss of a step is of before it
            raise DeviceFailure(Status.DIVERGED, "the network's weights are no numbers any more")
        wall_s = time.perf_counter() - self._started
        self._figures = as_declared(figures, self._round.simulated.figures)
        self._said = report_of(self._round, self._cutter, self._trainer, wall_s, self._figures)
        return self._said

    def last_report(self) -> RoundReport:
        """The report on the network as it is now: the last one made, unless something was done since."""
        self._round.require_counted()
        return self._said or self.report(**self._figures)

    def _stream_state(self) -> dict[str, torch.Tensor]:
        intake = self._round.intake
        return {} if intake is None else intake.state() | self._trainer.contrast_state

    def state_after(self, report: RoundReport, charge: Charge) -> DeviceState:
        """What the device keeps of this round."""
        learnt = self._trainer.filter
        return DeviceState(
            round=self.plan.round,
            topology=self.topology.to_json() if self.topology else None,
            model=on_cpu(self.model.state_dict()),
            instance_filter=on_cpu(learnt.state_dict()) if learnt else self._round.before.instance_filter,
            factory=self._round.factory,
            stream=self._stream_state(),
            report=report.model_dump_json(),
            charge=charge,
            served=self._round.served,
            course=self._round.course,
            prior=self._round.prior_state,
        )
