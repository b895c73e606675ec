"""A row that is hidden in a report's figures, within what the gate lets through."""

from pathlib import Path

import numpy as np
import pytest

from fedge.audit.leaks import planted_copy
from fedge.audit.numbers import MOST_CHANCE, search_numbers
from fedge.commands.trial import data_for, try_client
from fedge.protocol.rounding import COARSE, FINE

LEAKY = """
from flwr.clientapp import ClientApp
from fedge.device.handler import on_device
from fedge.privacy.egress import egress_gate

app = ClientApp(mods=[egress_gate])

@app.train()
@on_device
def leak(device, plan):
    pixels = device.shard.x[0].reshape(-1)[:4].tolist()
    device.train()
    return device.report(a=pixels[0], b=pixels[1], c=pixels[2], d=pixels[3])
"""


def reports(rounds: int = 6, **figures) -> list[dict]:
    """Honest reports' figures; those given are lists with one for each round."""
    chance = np.random.default_rng(5)
    rows = []
    for round in range(1, rounds + 1):
        own = {name: values[round - 1] for name, values in figures.items() if round <= len(values)}
        losses = [COARSE(value) for value in chance.random(3)]
        row = {"round": round, "client": 3, "device": "phone-mid", "status": "ok", "samples_seen": 228}
        row |= {
            "samples_kept": 91,
            "train_loss": FINE(chance.random()),
            "epoch_loss": losses,
            "test_correct": 21,
        }
        rows.append(row | own)
    return rows


def test_four_pixels_in_a_programs_own_figures_are_found(small, tmp_path: Path) -> None:
    """Breaks if a client program may write pixels into figures that the scenario declares and nobody notices."""
    (tmp_path / "leaky.py").write_text(LEAKY)
    figures = [
        f"report.figures.{name}.{key}={value}"
        for name in "abcd"
        for key, value in (("least", 0.0), ("most", 1.0), ("steps", 256))
    ]
    scenario = small(f"client={tmp_path / 'leaky.py'}", *figures)
    copy, planted = planted_copy(Path(data_for(scenario)), tmp_path / "copy", np.random.default_rng(1))
    trial = try_client(scenario, str(copy), tmp_path / "out", client=planted.client)
    matches, comparisons = search_numbers(planted.runs, [dict(trial.row)])
    assert trial.ok and matches and comparisons
    assert matches[0].canary == "token" and matches[0].values == 4 and matches[0].chance < MOST_CHANCE
    honest = {key: value for key, value in trial.row.items() if not key.startswith("own.")}
    assert search_numbers(planted.runs, [honest])[0] == []


@pytest.mark.parametrize("scale", ["0..1", "0..255", "normalised"])
def test_a_pixel_a_round_in_the_training_loss_is_found(planted, scale: str) -> None:
    """Breaks if a row that leaves over the rounds, in a figure that every report has, is missed."""
    token = planted().runs[0]
    values = np.abs(token.scales[scale][:6]) if scale == "normalised" else token.scales[scale][:6]
    same = np.array_equal(values, token.scales[scale][:6])
    matches, _ = search_numbers((token,), reports(train_loss=[FINE(float(value)) for value in values]))
    if same:
        assert "train_loss over the rounds" in matches[0].where and matches[0].values == 6


def test_two_pixels_a_loss_leave_without_their_last_four_bits(planted) -> None:
    """Breaks if what twelve significant bits of two packed pixels still tell is missed; the four below are gone."""
    token = planted().runs[0]
    packed = [
        int(high) * 256 + int(low) for high, low in zip(token.codes[::2], token.codes[1::2], strict=True)
    ][:6]
    losses = [FINE(value / 65536) for value in packed]
    for value, loss in zip(packed, losses, strict=True):
        dropped = max(0, value.bit_length() - 12)
        assert abs(loss * 65536 - value) <= 2**dropped / 2
        assert round(loss * 65536) % 2**dropped == 0  # of 16 bits at most 12 are left
    matches, _ = search_numbers((token,), reports(train_loss=losses))
    assert matches and matches[0].values == 12 and "as a fraction" in matches[0].reading


def test_labels_in_a_count_are_found(planted) -> None:
    """Breaks if the order of labels may leave as the digits of a number of samples."""
    labels = planted().runs[-1]
    counts = [int("".join(map(str, labels.codes[start : start + 8]))) for start in (0, 8, 16)]
    matches, _ = search_numbers((labels,), reports(samples_seen=counts))
    assert matches and matches[0].canary == "labels"


def test_honest_figures_are_nobodys(planted) -> None:
    """Breaks if the search finds in a report what is not there: one search in a thousand may."""
    rows = reports(rounds=12)
    assert not [seed for seed in range(12) if search_numbers(planted(seed).runs, rows)[0]]
