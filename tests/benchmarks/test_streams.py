"""What reaches a camera at the edge, as the accuracy benchmark imitates it."""

import torch

from benchmarks.eif_emp.streams import LONGEST_STAY, _order


def test_a_parked_cameras_pictures_stay_by_the_law_it_states():
    """If this fails, the parked stream is not the heavy-tailed one that its results are for."""
    generator = torch.Generator().manual_seed(0)
    rows = _order("parked", torch.zeros(60_000, dtype=torch.int64), 10, 100_000, generator)
    assert len(rows) == 100_000
    _, stays = rows.unique_consecutive(return_counts=True)
    stays = stays[:-1].float()  # the last one is cut off
    assert stays.max() <= LONGEST_STAY
    for length in (1, 2, 4, 16):
        assert abs((stays >= length).float().mean() - 1 / length) < 0.02
    assert stays[stays > 50].sum() / stays.sum() > 0.35
