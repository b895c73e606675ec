"""`[schedule]`: what is asked in which round; and a policy, which changes that per client by what it has reported.

A schedule is a class here, with its keys, its phases, and a line in `Schedule`. What a device's drift detector sets off
stands here too, since it is the schedule that it changes.
"""

from typing import Annotated, Any, Literal, Self

from pydantic import Discriminator, Field, Tag, model_validator

from fedge.scenario.beside import Beside
from fedge.scenario.section import Args, Count, Fraction, Inner, Section

Phase = Literal["hello", "finetune", "retrain", "train"]  # hello: say which client you are and do nothing


class Detector(Section):
    """Of drift in a stream, on the device: it takes in the errors of test-then-train whose labels have come.

    kind: river's ADWIN. delta: its significance; the lower, the rarer are alarms, false and true. then: what an alarm
    sets off in that round, on that device alone: regrow, and the schedule begins anew with the whole network; or
    retrain. retrain_rounds: rounds of training from an alarm or a cut on, after which the device stands still until the
    next; None: it trains in every round.
    """

    kind: Literal["adwin"] = "adwin"
    delta: Inner = 0.002
    then: Literal["regrow", "retrain"]
    retrain_rounds: Count | None = None

    @model_validator(mode="after")
    def _an_alarm_changes_something(self) -> Self:
        if self.then == "retrain" and self.retrain_rounds is None:
            raise ValueError(
                "then is 'retrain' and retrain_rounds is left out: no alarm changes a device that trains in every "
                "round; give retrain_rounds, or take 'regrow'"
            )
        return self


class _Schedule(Section):
    """program: a policy of one's own, a Python file. policy: one of fedge's, in policies/. args: what it is given.
    unseen: share of the clients that take part in one round alone, after all others. detector: of drift in a stream,
    by which a device decides for itself; None: none."""

    program: Annotated[str, Beside(".py")] | None = None
    policy: str | None = None
    args: Args = Field(default_factory=dict)
    unseen: Fraction = 0.0
    detector: Detector | None = None

    @model_validator(mode="after")
    def _one_policy(self) -> Self:
        if self.program is not None and self.policy is not None:
            raise ValueError(
                f"program is {self.program!r} and policy is {self.policy!r}; give one: program is a file of your "
                "own, policy one of fedge's"
            )
        if self.args and self.named is None:
            raise ValueError("args are for a policy: give a program or a policy, or leave them out")
        return self

    @property
    def named(self) -> str | None:
        """The policy, by name or path; None: the schedule's kind alone decides."""
        return self.program or self.policy

    def phase(self, round: int) -> Phase:
        """What `round` (1-based) is for; networks are pruned in the first that retrains."""
        raise NotImplementedError

    def require_rounds(self, rounds: int) -> None:
        """ValueError where that number of rounds is too small."""

    @property
    def whole_rounds(self) -> int:
        """Rounds with the whole network before it is cut."""
        return 0

    @property
    def keeps_weights(self) -> bool:
        """Whether the channels that a device still has when it grows back stay as it has trained them."""
        return True

    def regrow(self, round: int) -> int:
        """The last round so far in which every device was to grow back; 0: none."""
        return 0

    @property
    def regrows(self) -> bool:
        """Whether a device may grow back, by the round or by its detector."""
        return self.detector is not None and self.detector.then == "regrow"


class FinetunePruneRetrain(_Schedule):
    """ADaPT's order: fine-tune the whole network, prune it once, retrain what is left.

    regrow_at: rounds in which every device goes back to the factory model's channels and the order begins anew.
    regrow_weights: of the channels that it still has then: as it has trained them, or the factory's, as all others are.
    """

    kind: Literal["finetune_prune_retrain"] = "finetune_prune_retrain"
    finetune_rounds: Annotated[int, Field(ge=0)] = 1
    regrow_at: tuple[Count, ...] = ()
    regrow_weights: Literal["trained", "factory"] = "trained"

    def phase(self, round: int) -> Phase:
        begun = self.regrow(round) or 1
        return "finetune" if round < begun + self.finetune_rounds else "retrain"

    @property
    def whole_rounds(self) -> int:
        return self.finetune_rounds

    @property
    def keeps_weights(self) -> bool:
        return self.regrow_weights == "trained"

    def regrow(self, round: int) -> int:
        return max((at for at in self.regrow_at if at <= round), default=0)

    @property
    def regrows(self) -> bool:
        return bool(self.regrow_at) or super().regrows

    def require_rounds(self, rounds: int) -> None:
        if self.finetune_rounds >= rounds:
            raise ValueError(
                f"schedule.finetune_rounds is {self.finetune_rounds} of {rounds} rounds; "
                "at least one must be left to prune and retrain: raise rounds"
            )
        ends = [self.finetune_rounds + 1, *(at + self.finetune_rounds for at in self.regrow_at)]
        for at, ready in zip(self.regrow_at, ends, strict=False):
            if at <= ready:
                raise ValueError(
                    f"schedule.regrow_at is {list(self.regrow_at)}; in round {at} nothing has been cut that could come "
                    f"back (networks are pruned in round {ready}): give rounds above {ready}, in rising order"
                )
        if ends[-1] > rounds:
            raise ValueError(
                f"schedule.regrow_at is {list(self.regrow_at)} of {rounds} rounds; after round {self.regrow_at[-1]} "
                f"networks are pruned again in round {ends[-1]}: raise rounds, or regrow earlier"
            )


class TrainOnly(_Schedule):
    """Local training in every round, no pruning."""

    kind: Literal["train_only"]

    @model_validator(mode="after")
    def _cuts_nothing(self) -> Self:
        if self.regrows:
            raise ValueError(
                "detector.then is 'regrow' and kind is 'train_only', which prunes nothing that could come back: take "
                "'retrain', or kind 'finetune_prune_retrain'"
            )
        return self

    def phase(self, round: int) -> Phase:
        return "train"


def _kind(value: Any) -> str | None:
    """The tag of the kind; without one, that of the default."""
    if not isinstance(value, dict | Section):
        return None
    default = "finetune_prune_retrain"
    kind = value.get("kind", default) if isinstance(value, dict) else getattr(value, "kind", default)
    return kind if isinstance(kind, str) else None


Schedule = Annotated[
    Annotated[FinetunePruneRetrain, Tag("finetune_prune_retrain")] | Annotated[TrainOnly, Tag("train_only")],
    Discriminator(_kind),
]
