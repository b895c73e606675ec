"""EIF (arXiv 2007.03213, section III) and the filters it is held against: which instances to train on."""

from fedge.training.instance_filter.base import Filter, InstanceFilter, MiniBatch, Selection
from fedge.training.instance_filter.early import EarlyInstanceFilter
from fedge.training.instance_filter.filters import make_filter

__all__ = ["EarlyInstanceFilter", "Filter", "InstanceFilter", "MiniBatch", "Selection", "make_filter"]
