"""What training takes of a device's memory, and what becomes of a plan that needs more than there is."""

from fedge.device.memory.peak import OPTIMIZERS, Optimizer, peak_training_memory

__all__ = ["OPTIMIZERS", "Optimizer", "peak_training_memory"]
