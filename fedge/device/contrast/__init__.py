"""What a device does where there is `[training.contrast]`: it learns from what came, then probes on few labels."""
