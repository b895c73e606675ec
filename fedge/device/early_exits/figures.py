"""What a report says of exits: how many samples leave at each, how many of them are right, and what leaving costs.

exit_left    test samples answered at each exit, the last one last; together all of them
exit_right   right answers among them; together the report's test_correct
exit_alone   right answers of each exit on all test samples, whether or not they would leave there
exit_macs    MACs of one sample that leaves there; the last is the worst case
trunk_macs   of one sample in the factory's network without exits
    answer_s, answer_worst_s    virtual seconds of a sample, mean and worst: of the arithmetic alone
"""

from typing import Any

from fedge.device.budget.clock import Work, round_cost, spread
from fedge.device.early_exits.personal import personal_of
from fedge.device.round import Round
from fedge.training.exits.leaving import macs_to_leave
from fedge.training.macs import count_forward


def exit_figures(round: Round) -> dict[str, Any]:
    """Report fields; none where the settings give the network no exits."""
    personal = personal_of(round)
    if personal is None:
        return {}
    left, right, alone = personal.judged("test").tallies(personal.model.rule.thresholds_K.cpu())
    shape = round.prepared.input_shape
    macs = macs_to_leave(personal.model, shape)
    trunk = round.prepared.network.trunk.build(round.prepared.num_classes, shape)
    spent = sum(count * each for count, each in zip(left, macs, strict=True))
    return {
        "exit_left": left,
        "exit_right": right,
        "exit_alone": alone,
        "exit_macs": macs,
        "trunk_macs": count_forward(trunk, shape).forward,
        "answer_s": _seconds(round, spent) / max(1, sum(left)),
        "answer_worst_s": _seconds(round, macs[-1]),
    }


def _seconds(round: Round, macs: int) -> float:
    simulated = round.simulated
    slowness = spread(simulated.clock, seed=simulated.seed, client=round.client, round=round.plan.round)
    work = Work(macs=macs, steps=0, memory_bytes=0, received_bytes=0, sent_bytes=0)
    return round_cost(simulated.profile, work, simulated.clock, spread=slowness).compute_s
