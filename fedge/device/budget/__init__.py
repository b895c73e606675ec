"""What a round costs a device: virtual time, energy, and whether it gets to the end. Arithmetic alone, no torch."""
