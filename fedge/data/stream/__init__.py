"""Streams: which of a client's rows come when, what the device sees of them, and what it is told. Pure functions."""
