"""What each device is asked to do in each round: a pure function of (scenario, round, device class)."""

from fedge.protocol import RoundPlan
from fedge.scenario import DeviceClass, Scenario


def plan_round(scenario: Scenario, round: int, device_class: DeviceClass) -> RoundPlan:
    """The plan of one device class for `round` (1-based).

    finetune_prune_retrain is ADaPT's: rounds 1 .. finetune_rounds train the whole network, the next one prunes it
    and retrains, the others retrain. `prune` stays set in those: a device that missed the round in which the others
    were pruned catches up. Level 0 is never pruned.
    """
    schedule = scenario.schedule
    training = scenario.training
    if schedule.kind == "train_only":
        return RoundPlan(round=round, phase="train", prune=False, seed=scenario.seed, training=training)
    finetune = round <= schedule.finetune_rounds
    return RoundPlan(
        round=round,
        phase="finetune" if finetune else "retrain",
        prune=not finetune and training.pruning.level != 0,
        seed=scenario.seed,
        training=training,
    )
