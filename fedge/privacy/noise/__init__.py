"""Noise on what is said of a fleet, and an account of what it has told of each client."""
