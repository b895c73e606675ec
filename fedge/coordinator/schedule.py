"""What the devices are asked to do in each round: a pure function of (scenario, round, device class).

A policy (fedge.coordinator.policy) changes it for one client, by what that client has reported.
"""

from fedge.protocol import RoundPlan
from fedge.scenario.schema import Scenario
from fedge.scenario.training import Training


def plan_round(scenario: Scenario, round: int, training: Training | None = None) -> RoundPlan:
    """The plan for `round` (1-based); `training`: a device class's, where it is not the scenario's own.

    finetune_prune_retrain is ADaPT's: rounds 1 .. finetune_rounds train the whole network, the next one prunes it
    and retrains, the others retrain. `prune` stays set in those: a device that missed the round in which the others
    were pruned catches up. Level 0 is never pruned. `regrow` stays set from the round of a regrowth on, for the same
    reason: a device that was cut since is not concerned.
    """
    phase = scenario.schedule.phase(round)
    training = training or scenario.training
    return RoundPlan(
        round=round,
        phase=phase,
        prune=phase == "retrain" and training.pruning.level != 0,
        regrow=scenario.schedule.regrow(round),
        training=training,
        limits=scenario.limits,
    )
