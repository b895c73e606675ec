"""One simulated device: profile, private state, limits, clock and energy."""
