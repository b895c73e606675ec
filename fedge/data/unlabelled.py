"""A client's rows without their labels, which are not read."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from fedge.data.shard import Shard, scaled


def pictures(
    shard: Shard,
    splits: Sequence[str],
    batch_size: int,
    *,
    seed: int | None = None,
    most: int | None = None,
    order: torch.memory_format = torch.contiguous_format,
    device: torch.device | None = None,
) -> Iterator[torch.Tensor]:
    """Yield x_BCHW of these parts of the shard, as `shard.batches` gives it.

    seed None: stored order, part by part. A seed mixes all of them. most: so many rows; None: all. `order` and `device`
    as in `Shard.batches`.
    """
    counts = [shard.count(split) for split in splits]
    part_N = np.repeat(np.arange(len(splits)), counts)
    row_N = np.concatenate([np.arange(count) for count in counts])
    if seed is not None:
        mixed_N = torch.randperm(len(row_N), generator=torch.Generator().manual_seed(seed)).numpy()
        part_N, row_N = part_N[mixed_N], row_N[mixed_N]
    count = len(row_N) if most is None else min(most, len(row_N))
    for start in range(0, count, batch_size):
        chosen = slice(start, min(start + batch_size, count))
        x = np.empty((chosen.stop - start, *shard.shape), shard.rows(splits[0], row_N[:0]).dtype)
        for part, split in enumerate(splits):
            here_B = part_N[chosen] == part
            x[here_B] = shard.rows(split, row_N[chosen][here_B])
        yield shard.normalised(scaled(torch.from_numpy(x).to(device)), order)
