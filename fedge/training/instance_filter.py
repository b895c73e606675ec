"""The filters by name, for scenarios; selection.py says what a filter is."""

from collections.abc import Callable

from fedge.errors import UserError
from fedge.training.chance_filters import MiniBatchFilter, RandomFilter
from fedge.training.early_filter import EarlyInstanceFilter
from fedge.training.selection import InstanceFilter, MiniBatch

__all__ = ["FILTERS", "EarlyInstanceFilter", "InstanceFilter", "MiniBatch", "make_filter"]

KINDS: dict[str, type[RandomFilter] | type[MiniBatchFilter]] = {
    "random": RandomFilter,
    "smb": MiniBatchFilter,
}
FILTERS = ("none", "early", *KINDS)


def make_filter(
    kind: str,
    keep: float,
    *,
    in_channels: int,
    image_size: int | tuple[int, int],
    seed: int = 0,
    **options: float | str,
) -> InstanceFilter | None:
    """The filter of that kind, or None for "none" (and for keep = 1, which is the same). `options` are the class's own."""
    if kind not in FILTERS:
        raise UserError(f"instance filter: kind is '{kind}'; take one of {', '.join(FILTERS)}")
    if kind == "none":
        return None
    if kind == "early":
        return EarlyInstanceFilter(in_channels, image_size, keep, seed, **options)
    return KINDS[kind](keep, seed, **options)
