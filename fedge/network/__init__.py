"""The network that a scenario names: found and built where it runs, given weights, checked before its training."""

from fedge.network.source import NetworkSource

__all__ = ["NetworkSource"]
