"""What a training step changes: which parameters, by which rule, at which rate."""
