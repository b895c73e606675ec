"""Which channels of which layers a tensor carries, followed through a network's forward pass."""
