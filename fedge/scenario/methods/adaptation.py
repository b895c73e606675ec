"""`[training.adaptation]`: how a device finds its label prior, and what its head is trained on.

exits.prior goes by it as training.prior does.
"""

from fedge.scenario.section import Count, Fraction, Positive, Section


class Adaptation(Section):
    """Of `training.prior`, `exits.prior` and `training.source`; without them it does nothing."""

    samples: Count | None = (
        None  # unlabelled ones that the prior is estimated from, at most; None: all there are
    )
    pseudo_count: Positive = 1.0  # per class: what the factory's prior weighs, in samples
    least_shift: Fraction = (
        0.3  # of the estimate from the factory's prior (total variation): below, answers stay as they are
    )
    replayed: Count = 20  # features of each class that are shipped, of source "replay"
    moved: Fraction = 0.0  # the head is trained anew where the prior has moved further; 0: in every round
