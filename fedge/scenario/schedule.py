"""`[schedule]`: what is asked in which round; and a policy, which changes that per client by what it has reported.

A schedule is a class here, with its keys, its phases, and a line in `Schedule`.
"""

from typing import Annotated, Any, Literal, Self

from pydantic import Discriminator, Field, Tag, model_validator

from fedge.scenario.beside import Beside
from fedge.scenario.section import Args, Fraction, Section

Phase = Literal["hello", "finetune", "retrain", "train"]  # hello: say which client you are and do nothing


class _Schedule(Section):
    """program: a policy of one's own, a Python file. policy: one of fedge's, in policies/. args: what it is given.
    unseen: share of the clients that take part in one round alone, after all others."""

    program: Annotated[str, Beside(".py")] | None = None
    policy: str | None = None
    args: Args = Field(default_factory=dict)
    unseen: Fraction = 0.0

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


class FinetunePruneRetrain(_Schedule):
    """ADaPT's order: fine-tune the whole network, prune it once, retrain what is left."""

    kind: Literal["finetune_prune_retrain"] = "finetune_prune_retrain"
    finetune_rounds: Annotated[int, Field(ge=0)] = 1

    def phase(self, round: int) -> Phase:
        return "finetune" if round <= self.finetune_rounds else "retrain"

    def require_rounds(self, rounds: int) -> None:
        if self.finetune_rounds >= rounds:
            raise ValueError(
                f"schedule.finetune_rounds is {self.finetune_rounds} of {rounds} rounds; "
                "at least one must be left to prune and retrain: raise rounds"
            )


class TrainOnly(_Schedule):
    """Local training in every round, no pruning."""

    kind: Literal["train_only"]

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
