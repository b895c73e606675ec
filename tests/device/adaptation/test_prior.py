"""`training.prior = "em"` on a device: from which rows, at what price, and what goes by it."""

from pathlib import Path

import numpy as np
import pytest
import torch

from fedge.data.shard import Shard
from fedge.device.adaptation.prior import LabelPrior
from fedge.device.state import DeviceState
from fedge.network.shipped import factory_prior
from fedge.training.label_prior import em_prior
from fedge.training.label_prior.em import shift_of
from fedge.training.label_prior.look import logits
from fedge.training.macs import count_forward

EM = "training.prior=em"
PLAIN = (
    'training.instance_filter={kind="none"}',
    "training.error_maps.keep=1.0",
    "schedule={kind='train_only'}",
)


def prior_of(device) -> LabelPrior:
    found = device._round.label_prior
    assert found is not None
    return found


def test_it_is_the_estimate_from_training_and_validation_pictures(opened):
    """Would break if it were of other rows, of another network, or of another factory prior."""
    device = opened(EM)
    shard, prepared = device._round.own_shard, device.prepared
    x_NCHW = torch.cat([x for split in ("train", "validation") for x, _ in shard.batches(split, 1000)])
    factory_C, temperature = factory_prior(Path(prepared.folder))
    logits_NC = logits(prepared.factory_model(), [x_NCHW], prepared.asked, 10)
    p_NC = (logits_NC / temperature).softmax(1)
    labels = Shard.open(Path(prepared.folder) / "factory-shard", 0).labels("train")
    assert factory_C.tolist() == (np.bincount(labels, minlength=10) / len(labels)).tolist()
    wanted_C = em_prior(p_NC, factory_C, 1.0)
    assert shift_of(wanted_C, factory_C) >= 0.3  # it is believed
    assert prior_of(device).estimate_C.tolist() == pytest.approx(wanted_C.tolist(), abs=1e-5)
    forward = count_forward(prepared.factory_model(), prepared.input_shape).forward
    assert device._round.prior_macs == len(x_NCHW) * forward


def test_no_label_and_no_test_row_is_read(opened, monkeypatch):
    """Would break if estimating opened a label, or a row of the test part."""
    device = opened(EM)
    with monkeypatch.context() as watched:
        looked: list[str] = []
        rows = Shard.rows
        watched.setattr(
            Shard, "rows", lambda self, split, which: looked.append(split) or rows(self, split, which)
        )
        for name in ("labels", "batches", "arrays"):
            watched.setattr(Shard, name, lambda *args, **how: pytest.fail("labels were read"))
        prior_of(device)
    assert set(looked) == {"train", "validation"}


def test_as_many_pictures_as_are_asked_for(opened):
    """Would break if `samples` were ignored, or taken from one part in stored order."""
    device = opened(EM, "training.adaptation.samples=20")
    forward = count_forward(device.prepared.factory_model(), device.prepared.input_shape).forward
    prior_of(device)
    assert device._round.prior_macs == 20 * forward


def test_a_heavy_pseudo_count_changes_no_answer(opened):
    """Would break if correction did more than the two priors say."""
    plain, heavy = opened(), opened(EM, "training.adaptation.pseudo_count=1e9")
    for split in ("validation", "test"):
        assert torch.equal(plain.evaluate(split).right_N, heavy.evaluate(split).right_N)


def test_the_report_is_corrected_and_the_factory_model_is_not(opened):
    """Would break if `factory_correct` or `told_correct` moved with the option, or the served answers did not."""
    plain, em = opened(*PLAIN).report(), opened(EM, *PLAIN).report()
    assert (em.factory_correct, em.told_correct) == (plain.factory_correct, plain.told_correct)
    assert plain.test_correct == plain.factory_correct
    device = opened(EM, *PLAIN)
    factory_C, temperature = prior_of(device).factory
    shift_C = temperature * (prior_of(device).estimate_C / factory_C).log().float()
    right = 0
    for x_BCHW, y_B in device._round.own_shard.batches("test", 500):
        with torch.no_grad():
            right += int(((device.model.eval()(x_BCHW) + shift_C).argmax(1) == y_B).sum())
    assert em.test_correct == right
    assert em.macs_done == device._round.prior_macs and plain.macs_done == 0
    assert em.bit_operations == 1024 * em.macs_done and em.macs_filter == 0


def test_training_goes_by_it(opened):
    """Would break if the loss were of uncorrected logits: then what is served would be corrected twice."""
    device = opened(EM, "training.learning_rate=1e-12", *PLAIN)
    factory_C, temperature = prior_of(device).factory
    shift_C = temperature * (prior_of(device).estimate_C / factory_C).log().float()
    loss_sum = 0.0
    for x_BCHW, y_B in device._round.own_shard.batches("train", 500):
        with torch.no_grad():
            out_BC = device.model.eval()(x_BCHW) + shift_C
        loss_sum += float(torch.nn.functional.cross_entropy(out_BC, y_B, reduction="sum"))
    device.train()
    assert device.report().train_loss == pytest.approx(loss_sum / len(device.shard), rel=1e-3)  # rounded


def test_it_is_estimated_once_and_kept(opened):
    """Would break if a resumed device looked again, and paid again, or forgot."""
    device = opened(EM, *PLAIN)
    device.train()
    report = device.report()
    state = device.state_after(report, None)
    assert set(state.prior) == {"estimate"}
    later = opened(EM, *PLAIN, round=2)
    again = type(later)(later.location, later.plan, DeviceState(1, model=state.model, prior=state.prior))
    assert torch.equal(prior_of(again).estimate_C, state.prior["estimate"])
    assert again._round.prior_macs == 0
    assert again.evaluate("test").correct == report.test_correct


def test_without_the_option_nothing_is_kept_or_sent(opened):
    """Would break if unset options cost a byte of state or plan."""
    device = opened(*PLAIN)
    assert device.state_after(device.report(), None).prior == {}
    text = str(device.plan.content()["plan"]["json"])
    assert not any(name in text for name in ("prior", "source", "adaptation"))
    asked = str(opened(EM).plan.content()["plan"]["json"])
    assert '"prior":"em"' in asked and "source" not in asked
