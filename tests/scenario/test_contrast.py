"""What `[training.contrast]` may say, what does not go with it, and that it is nothing where it is left out."""

import pytest

from fedge.coordinator.schedule import plan_round
from fedge.errors import UserError
from fedge.forecast import plan_scenario

ALONE = (
    "data.stream.rate_per_h=60",
    "training.instance_filter.kind=none",
    "training.pruning.level=0",
)
ON = (*ALONE, "training.contrast.rule=contrast")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (ON[1:], "add [data.stream]"),
        ((*ON, "training.pruning.level=0.5"), "pruning.level is 0.5"),
        ((*ON, "fleet.0.training={pruning={level=0.5}}"), "pruning.level is 0.5"),
        ((*ON, "training.instance_filter.kind=random"), "instance_filter.kind is 'random'"),
        ((*ON, "training.quantization.bits=8"), "quantization is given"),
        ((*ON, "training.epochs=2"), "epochs is 2"),
        ((*ON, "training.prior=em"), "prior is 'em'"),
        ((*ON, "training.what=head"), "what is 'head'"),
        ((*ON, "training.transform=crop_flip"), "transform is 'crop_flip'"),
        ((*ON, "training.loss={kind='cross_entropy'}"), "loss is given"),
        ((*ALONE, "training.contrast.lazy=4"), "'reservoir', which scores nothing"),
        ((*ON, "training.contrast.buffer=1"), "buffer"),
        ((*ON, "training.contrast.rule=newest"), "'reservoir'"),
        ((*ON, "training.contrast.temperature=0"), "temperature"),
        ((*ALONE, "data.stream.order=stc"), "needs stc"),
        ((*ALONE, "data.stream.stc=20"), "needs stc"),
    ],
)
def test_what_does_not_go_together_is_refused(small, changes: tuple[str, ...], said: str) -> None:
    """Breaks if a key is taken that then does nothing."""
    with pytest.raises(UserError) as refused:
        small(*changes)
    assert said in str(refused.value) and "\n" not in str(refused.value)


def test_left_out_it_weighs_nothing(small) -> None:
    """Breaks if the plans of scenarios without it grow, and with them their virtual time."""
    said = str(plan_round(small(*ALONE), 1).content()["plan"]["json"])
    assert "contrast" not in said
    assert "contrast" in str(plan_round(small(*ON), 1).content()["plan"]["json"])


@pytest.mark.slow
def test_a_forecast_counts_views_and_scores(small) -> None:
    """Breaks if a plan says what supervised training costs."""
    random, scored, lazy = (
        plan_scenario(small(*ALONE, f"training.contrast.rule={rule}", *more))[0]
        for rule, *more in (("random",), ("contrast",), ("contrast", "training.contrast.lazy=8"))
    )
    assert random["macs_done"] < lazy["macs_done"] < scored["macs_done"]
    bigger = plan_scenario(small(*ALONE, "training.contrast.buffer=256"))[0]
    assert bigger["memory_need_bytes"] > 2 * random["memory_need_bytes"]
