"""RoundPlan: what goes down to a device, one JSON string in a ConfigRecord."""

from typing import Annotated, Any, Self, cast

from flwr.app import ConfigRecord, Message, MessageType, RecordDict
from pydantic import BaseModel, ConfigDict, Field

from fedge.scenario.fleet import Fault
from fedge.scenario.schedule import Phase
from fedge.scenario.schema import Limits
from fedge.scenario.training import Training

PLAN = "plan"  # the record's name in a message's content
_UNSET = (
    "serve",
    "prior",
    "source",
    "adaptation",
    "exits",
    "contrast",
)  # options of training that are not sent where they are not used


class RoundPlan(BaseModel):
    """What one client is to do in one round. What is simulated about it (seed, profile, …) it has from the scenario."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    round: Annotated[int, Field(ge=0)]  # 1-based; 0 for hello
    phase: Phase
    after: Annotated[int, Field(ge=0)] = (
        0  # the device must hold a state of this round or of a later one; 0: of none
    )
    prune: bool  # be pruned to training.pruning.level: cut before training, unless cut already
    regrow: Annotated[int, Field(ge=0)] = 0  # a network that was cut before this round grows back; 0: none
    training: Training
    limits: Limits = Limits()
    fault: Fault | None = None  # what goes wrong on purpose on this device in this round
    dropout: Annotated[float, Field(ge=0, le=1)] | None = None  # it goes away after this share of its work

    def content(self) -> RecordDict:
        """What a message of it holds. `after` stands beside the rest, so that a message weighs the same whatever the
        coordinator has heard; what changes nothing (an option of _UNSET, a `regrow`, a `kind` of
        error maps) weighs nothing."""
        plain = Training()
        unset: dict[str, Any] = {
            name: True for name in _UNSET if getattr(self.training, name) == getattr(plain, name)
        }
        if self.training.error_maps.kind == "channel":
            unset["error_maps"] = {"kind", "target", "threshold"}
        usual: dict[str, Any] = {"training": unset} if unset else {}
        if not self.regrow:
            usual["regrow"] = True
        record = ConfigRecord(
            {"json": self.model_dump_json(exclude={"after": True, **usual}), "after": self.after}
        )
        return RecordDict({PLAN: record})

    def to_message(self, node_id: int) -> Message:
        return Message(self.content(), node_id, MessageType.TRAIN, group_id=str(self.round))

    @classmethod
    def from_message(cls, message: Message) -> Self:
        record = cast(ConfigRecord, message.content[PLAN])
        return cls.model_validate_json(str(record["json"])).model_copy(update={"after": record["after"]})
