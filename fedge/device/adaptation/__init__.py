"""What a device adapts without training its trunk: the label prior of its answers, and a head on features."""
