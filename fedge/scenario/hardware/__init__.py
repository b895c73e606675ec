"""Devices of one's own, and the GPUs that hosts ask for."""
