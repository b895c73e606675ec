"""The filters by name, for scenarios; base.py says what a filter is and how to add one."""

from collections.abc import Callable, Mapping

from fedge.catalog import names
from fedge.catalog.named import Named
from fedge.errors import UserError
from fedge.training.instance_filter.base import Filter, InstanceFilter, MiniBatch
from fedge.training.instance_filter.early import EarlyInstanceFilter

__all__ = ["FILTERS", "EarlyInstanceFilter", "InstanceFilter", "MiniBatch", "make_filter"]

FILTERS: Mapping[str, Callable[..., Filter] | None] = Named(names.FILTERS)


def make_filter(
    kind: str,
    keep: float,
    *,
    in_channels: int,
    image_size: int | tuple[int, int],
    seed: int = 0,
    **options: float | str,
) -> InstanceFilter | None:
    """A filter of that kind, None for "none". `options` are the class's own, beyond keep and seed."""
    if kind not in FILTERS:
        raise UserError(f"instance filter: kind is '{kind}'; take one of {', '.join(FILTERS)}")
    made_by = FILTERS[kind]
    if made_by is None:
        return None
    shape = (in_channels, image_size) if made_by is EarlyInstanceFilter else ()
    try:
        return made_by(*shape, keep=keep, seed=seed, **options)
    except TypeError as error:
        raise UserError(
            f"instance filter '{kind}': {error}; see docs/methods/instance_filter.md for its options"
        ) from error
