"""`training.prior`, `training.source` and `[training.adaptation]`: what cannot be together is said in one line."""

import pytest

from fedge.errors import UserError
from fedge.scenario.load import load_scenario

NONE = ['training.instance_filter={kind="none"}', "training.error_maps.keep=1.0"]
HEAD = [*NONE, "training.what=head", "training.source=generated", "training.prior=em"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ([*HEAD, "training.what=all"], "set what = 'head'"),
        ([*HEAD, "training.transform=crop_flip"], "set transform = 'none'"),
        ([*HEAD, "training.error_maps.keep=0.5"], "error_maps.keep = 1"),
        ([*HEAD, 'training.error_maps={kind="element", target=0.9}'], "leave target out"),
        ([*HEAD, 'training.instance_filter={kind="random"}'], "instance_filter.kind = 'none'"),
        ([*HEAD, "training.quantization={bits=8}"], "leave quantization out"),
        ([*HEAD, "training.prior=none"], "which classes to draw"),
        ([*NONE, "training.adaptation.moved=0.1"], "how far the label prior moves"),
        ([*HEAD, "training.prior=none", "training.answers=own", "training.adaptation.moved=0.1"], "how far"),
        ([*NONE, "training.prior=bbse"], "prior"),
        ([*HEAD, "training.adaptation.pseudo_count=0"], "pseudo_count"),
    ],
)
def test_contradictions_are_one_line(changes, said):
    """Would break if an option were quietly ignored beside another."""
    with pytest.raises(UserError, match=said) as caught:
        load_scenario("quickstart", changes)
    assert "\n" not in str(caught.value)


def test_what_can_be_is_read():
    """Would break if a device class could not have a source of its own."""
    scenario = load_scenario("quickstart", [*HEAD, "fleet.0.training={source='own'}"])
    assert [scenario.training_of(each).source for each in scenario.fleet] == ["own", "generated", "generated"]


def test_a_prior_is_of_classes(tmp_path):
    """Would break if numbers were corrected by a label prior."""
    import numpy as np

    import fedge

    x = np.zeros((40, 1, 8), np.float32)
    fedge.write_dataset(tmp_path / "data", x, np.arange(40, dtype=np.float32)[:, None], task="numbers")
    own = [f"data.dataset={tmp_path}/data/", "data.partition={kind='iid'}", "model.name=har_cnn"]
    with pytest.raises(UserError, match="for task 'classes'"):
        load_scenario("quickstart", [*own, "training.prior=em"])
