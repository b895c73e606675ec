"""Instance filters: the share they keep, what they cost, and that their state is all there is to them."""

import math
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load, save
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from fedge.errors import UserError
from fedge.models import build
from fedge.training.instance_filter.base import MiniBatch
from fedge.training.instance_filter.controllers import (
    PaperController,
    QuantileController,
    RunningShare,
    entropy,
)
from fedge.training.instance_filter.early import EarlyInstanceFilter
from fedge.training.instance_filter.filters import FILTERS, make_filter
from fedge.training.instance_filter.near_duplicates import NearDuplicates
from fedge.training.loop import train

KINDS = [
    kind for kind in FILTERS if kind not in ("none", "first_exit")
]  # that one is for networks with exits


def batches(count: int = 4, size: int = 16, pixels: int = 12, seed: int = 0) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    return [
        (
            torch.randn(size, 1, pixels, pixels, generator=generator),
            torch.randint(0, 3, (size,), generator=generator),
        )
        for _ in range(count)
    ]


def small_model(normed: bool = False) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        norm = nn.BatchNorm2d(4) if normed else nn.Identity()
        return nn.Sequential(
            nn.Conv2d(1, 4, 3), norm, nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 3)
        )


def make(kind: str, keep: float = 0.3, seed: int = 3, **options):
    return make_filter(kind, keep, in_channels=1, image_size=12, seed=seed, **options)


def run(kind_or_filter, data, model=None):
    model = model or small_model()
    instance_filter = make(kind_or_filter) if isinstance(kind_or_filter, str) else kind_or_filter
    optimizer = torch.optim.SGD(model.parameters(), 0.05)
    return train(model, data, optimizer=optimizer, instance_filter=instance_filter), model


@pytest.mark.parametrize("kind", KINDS)
def test_an_interrupted_filter_goes_on_as_if_it_were_not(kind):
    """If this fails, a device that is switched off between two rounds chooses other instances afterwards."""
    data = batches(6)
    whole, model = make(kind), small_model()
    run(whole, data, model)
    first, again = make(kind), small_model()
    run(first, data[:3], again)
    second = make(kind, seed=99)
    second.load_state_dict(load(save(first.state_dict())))
    run(second, data[3:], again)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))
    assert second.macs == whole.macs
    for name, tensor in whole.state_dict().items():
        torch.testing.assert_close(second.state_dict()[name], tensor, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [1, 2])
def test_tiny_batches_train(kind, size):
    """If this fails, a stream that comes one by one crashes a filter."""
    stats, model = run(kind, batches(30, size), small_model(normed=True))
    assert stats.samples_seen == 30 * size
    assert all(parameter.isfinite().all() for parameter in model.parameters())


@pytest.mark.parametrize("kind", KINDS)
def test_nan_in_pictures_is_refused_by_name(kind):
    """If this fails, broken pictures end a run with advice about its learning rate, or train the filter to nan."""
    data = batches(40)
    for x_BCHW, _ in data:
        x_BCHW[0, 0, 0, 0] = torch.nan
    with pytest.raises(UserError, match="hold nan"):
        run(kind, data)


def test_an_early_filter_of_other_pictures_is_refused():
    """If this fails, it fails inside its own network, in torch's words."""
    for channels, side in ((3, 12), (1, 8)):
        other = make_filter("early", 0.5, in_channels=channels, image_size=side)
        with pytest.raises(UserError, match=rf"made for instances \[{channels}, {side}, {side}\]"):
            run(other, batches(1))


@pytest.mark.parametrize("kind", KINDS)
def test_keep_one_is_plain_sgd_bit_for_bit(kind):
    """If this fails, a filter that should keep everything changes the training."""
    model, plain = small_model(), small_model()
    stats, _ = run(make(kind, keep=1.0), batches(), model)
    optimizer = torch.optim.SGD(plain.parameters(), 0.05)
    train(plain, batches(), optimizer=optimizer)
    assert stats.samples_kept == stats.samples_seen
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), plain.parameters(), strict=True))


def test_nothing_kept_makes_no_step_and_costs_the_filter_alone():
    """If this fails, an empty selection crashes, moves the weights, or makes the loss 0 instead of unknown."""
    instance_filter = make("smb", keep=1e-9)
    stats, model = run(instance_filter, batches())
    assert (stats.samples_kept, stats.steps, stats.macs_done) == (0, 0, 0)
    assert math.isnan(stats.loss)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), small_model().parameters(), strict=True))


@pytest.mark.parametrize("kind", ["early", "random", "smb", "ohem"])
def test_the_kept_share_is_keep(kind):
    """If this fails, a plan's cost is not what was ordered."""
    stats, _ = run(kind, batches(250, 16))
    assert stats.kept_share == pytest.approx(0.3, abs=0.1 if kind == "smb" else 0.03)


@pytest.mark.parametrize("keep", [0.1, 0.25, 0.6])
def test_the_running_share_is_exact_whatever_the_scores_do(keep):
    """If this fails, the share drifts with the filter's outputs, as it does under the paper's rule."""
    generator = torch.Generator().manual_seed(0)
    share = RunningShare("test")
    scores = (torch.randn(16, generator=generator) * (1 + step % 7) + step / 3 for step in range(400))
    kept = torch.stack([share.choose(score_B, keep).sum() for score_B in scores])
    assert kept[100:].float().mean() / 16 == pytest.approx(keep, abs=0.01)


def test_the_papers_threshold_follows_equation_3():
    """If this fails, the paper's rule is not the paper's."""
    rule = PaperController(0.5, window=2, raise_by=2.0, lower_by=0.5, first=1.0)
    ones = torch.ones(2)
    rule.learn(torch.tensor([3.0, 2.0]), ones, torch.tensor([True, True]), 2)  # 2 of the first 2: R_TH = 1
    assert rule.loss_threshold() == 2
    rule.learn(torch.tensor([3.0, 1.0]), ones, torch.tensor([False, True]), 4)  # no new true H: 2 / 6 < 0.5
    assert rule.loss_threshold() == 1
    rule.learn(
        torch.tensor([3.0, 3.0]), ones, torch.tensor([True, True]), 2
    )  # the first batch has left: 2 / 6
    assert rule.loss_threshold() == 0.5


def test_the_paper_looks_at_the_uncertain_and_never_shuts_itself_in():
    """If this fails, equations 4 and 5 are wrong, or a filter that is sure of nothing's worth is dead for good."""
    margins = torch.tensor([2.0, -0.1, -9.0])
    assert entropy(torch.tensor([0.0])).item() == pytest.approx(math.log(2))
    assert entropy(torch.tensor([50.0])).item() == pytest.approx(0, abs=1e-12)
    choice = PaperController(0.5).choose(margins, torch.zeros(3), torch.Generator())
    assert choice.kept_B.tolist() == [True, False, False]
    assert choice.looked_B.tolist() == [False, True, False]
    sure = PaperController(0.5).choose(torch.full((4,), -20.0), torch.zeros(4), torch.Generator())
    assert not sure.kept_B.any()
    assert sure.looked_B.sum() == 1


def test_the_loss_threshold_is_the_populations_quantile_not_the_samples():
    """If this fails, T_l rises until nothing is labelled H: the hard instances chosen are taken for the population."""
    controller = QuantileController(0.25)
    hard, easy = torch.tensor([5.0, 6.0]), torch.tensor([1.0, 2.0])
    loss, weight = (
        torch.cat([hard, easy]),
        torch.tensor([1.0, 1.0, 3.0, 3.0]),
    )  # easy ones stand for three each
    controller.learn(loss, weight, torch.ones(4, dtype=torch.bool), 8)
    assert controller.loss_quantile(0.75) == 2
    assert controller.loss_quantile(0.76) == 5


def test_it_explores_until_something_is_learnt():
    """If this fails, the filter prefers odd instances before the network knows the ordinary ones."""
    controller = QuantileController(0.2, least_explore=0.1)
    all_kept = torch.ones(1024, dtype=torch.bool)
    assert controller.explore == 1
    controller.learn(torch.full((1024,), 2.0), torch.ones(1024), all_kept, 1024)
    assert controller.explore == 1
    mostly_easy = torch.where(torch.arange(1024) % 4 == 0, 2.0, 0.01)
    controller.learn(mostly_easy, torch.ones(1024), all_kept, 1024)
    assert controller.explore == pytest.approx(1 - 0.25 / 0.3)
    controller.learn(torch.full((1024,), 0.01), torch.ones(1024), all_kept, 1024)
    assert controller.explore == 0.1


def scenes(lengths: list[int], seed: int = 1) -> Tensor:
    pictures = torch.randn(len(lengths), 1, 14, 14, generator=torch.Generator().manual_seed(seed))
    return pictures.repeat_interleave(torch.tensor(lengths), 0)


def test_the_frames_of_a_scene_are_counted_across_mini_batches():
    """If this fails, a run of equal frames fills the mini-batch, or a long stay is forgotten."""
    counter = NearDuplicates(1, (14, 14))
    counter.count(scenes([4] * 64, seed=2))
    frames = scenes([3, 40, 1])
    seen = torch.cat([counter.count(part) for part in frames.split(5)]) / counter.repeats
    assert counter.repeats > 0.9
    expected = [*range(3), *range(40), 0]
    # `repeats` moves a little from one call to the next
    assert seen.tolist() == pytest.approx(expected, rel=0.05)


def test_an_early_filters_step_is_as_long_as_its_share():
    """If this fails, a few frames of one scene move the network as far as a mini-batch of new ones."""
    early = make("early", keep=0.2)
    assert [early.step_length(kept, 50) for kept in (1, 10, 50)] == [0.1, 1.0, 2.0]
    early.largest_batch = torch.tensor(50)
    assert early.step_length(1, 1) == 0.1  # an epoch's last mini-batch of one
    assert make("early", keep=0.2).step_length(1, 1) == 1.0  # mini-batches of one: SGD's own steps
    assert make("early", keep=0.2, controller="paper").step_length(1, 50) == 1
    kept_K = torch.arange(2)
    data, weights = batches(1)[0], []
    for length in (1.0, 0.5):
        half, model = make("random"), small_model()
        half.select = lambda batch: (kept_K, None)
        half.step_length = lambda kept, offered, length=length: length
        run(half, [data], model)
        weights.append(model[-1].weight)
    torch.testing.assert_close(
        2 * (weights[1] - small_model()[-1].weight), weights[0] - small_model()[-1].weight
    )


def test_a_batch_of_one_puts_repeats_back_too():
    """If this fails, a device that trains on one frame at a time keeps the frames of a parked camera."""
    controller, generator = QuantileController(0.2, least_explore=0.5), torch.Generator().manual_seed(0)
    controller.learn(torch.zeros(384), torch.ones(384), torch.ones(384, dtype=torch.bool), 384)  # all is easy
    kept = {0.0: 0, 9.0: 0}
    for number in range(2000):
        margin, seen = torch.randn(1, generator=generator), 9.0 * (number % 2)
        kept[seen] += int(controller.choose(margin, torch.tensor([seen]), generator).kept_B)
    assert sum(kept.values()) == pytest.approx(400, abs=20) and kept[9.0] < 20


def test_a_shift_does_not_change_the_scene():
    """If this fails, a camera that shakes shows a new scene in every frame."""
    counter = NearDuplicates(1, (14, 14))
    counter.count(scenes([8] * 32, seed=2))
    picture = scenes([1])
    frames = torch.cat([picture.roll(shift, (2, 3)) for shift in ((0, 0), (1, 0), (-2, 1))])
    assert counter.count(frames).round().tolist() == [0, 1, 2]


def test_likeness_in_a_shuffled_stream_is_not_a_repeat():
    """If this fails, a class that always looks alike is taken for a camera that stands still, and never learnt."""
    counter = NearDuplicates(1, (14, 14))
    pictures = scenes([1] * 3)
    generator = torch.Generator().manual_seed(0)
    for _ in range(40):
        seen_B = counter.count(pictures[torch.randint(0, 3, (64,), generator=generator)])
    assert seen_B.max() == 0


def test_the_filter_finds_the_hard_instances():
    """If this fails, the early filter is a coin."""
    generator = torch.Generator().manual_seed(0)
    hard_kept = easy_kept = 0
    instance_filter = EarlyInstanceFilter(1, 12, keep=0.2, seed=0, explore=0.1)
    model = small_model()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    for step in range(200):
        y = torch.randint(0, 2, (32,), generator=generator)
        x = 0.3 * torch.randn(32, 1, 12, 12, generator=generator)
        x[:28] += y[:28, None, None, None] * 2.0 - 1.0  # these say their label, the last four do not
        x[28:] += 2 * torch.eye(12)
        batch = MiniBatch(x, y, model)
        kept_K, _ = instance_filter.select(batch)
        loss_K = F.cross_entropy(model(x[kept_K]), y[kept_K], reduction="none")
        optimizer.zero_grad()
        loss_K.sum().div(len(kept_K) + 1e-9).backward()
        optimizer.step()
        instance_filter.learn(batch, kept_K, loss_K.detach())
        if step >= 150:
            hard_kept += int((kept_K >= 28).sum())
            easy_kept += int((kept_K < 28).sum())
    assert hard_kept / 4 > 4 * easy_kept / 28  # as shares of what there was


@pytest.mark.parametrize("kind", KINDS)
def test_counted_macs_are_flop_counter_modes(kind):
    """If this fails, the cost of filtering is not what ran."""
    model = build("lenet", num_classes=3, in_channels=1, image_size=28)
    data = batches(5, 16, pixels=28)
    instance_filter = make_filter(kind, 0.3, in_channels=1, image_size=28, seed=1)
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    train(model, data[:1], optimizer=optimizer, instance_filter=instance_filter)
    before = instance_filter.macs
    with FlopCounterMode(display=False) as judge:
        stats = train(model, data[1:], optimizer=optimizer, instance_filter=instance_filter)
    assert instance_filter.macs - before <= stats.macs_filter
    assert stats.macs_done == pytest.approx(judge.get_total_flops() / 2, rel=0.01)


def test_infobatch_weighs_up_the_easy_ones_it_keeps():
    """If this fails, InfoBatch's gradient is biased towards hard instances."""
    instance_filter = make("infobatch", keep=0.5)
    data = batches(1, 64)
    model = small_model()
    optimizer = torch.optim.SGD(model.parameters(), 0.0)
    losses = F.cross_entropy(model(data[0][0]), data[0][1], reduction="none")
    first = train(model, data, optimizer=optimizer, instance_filter=instance_filter)
    assert first.samples_kept == 64
    kept, weights = instance_filter.select(MiniBatch(*data[0], model))
    easy = losses[kept] < losses.mean()
    assert 20 <= len(kept) <= 44
    assert weights[~easy].eq(1).all()
    assert weights[easy].unique().numel() == 1
    assert weights[easy][0] > 1


@pytest.mark.parametrize(
    "make_wrong",
    [
        lambda: make("oracle"),
        lambda: make("random", keep=0),
        lambda: make("random", keep=1.2),
        lambda: make("random", explore=0.1),
        lambda: make("early", controller="none"),
        lambda: make("early", explore=0),
        lambda: make("early", distrust=0.5),
        lambda: make("early", network="vgg"),
        lambda: make("early", downsample=0),
        lambda: make("early").load_state_dict(make("random").state_dict()),
    ],
)
def test_wrong_options_are_refused_in_one_line(make_wrong):
    """If this fails, a wrong scenario trains silently or ends in a traceback."""
    with pytest.raises(UserError) as error:
        make_wrong()
    assert "\n" not in str(error.value)


def test_equal_seeds_choose_equally_and_others_do_not():
    """If this fails, a round is not a function of its seed."""
    kept = [run(make("random", seed=seed), batches(20))[0].samples_kept for seed in (1, 1, 2, 3)]
    assert kept[0] == kept[1]
    assert any(a != b for a, b in pairwise(kept))
