"""ADaPT's experiment on CIFAR-100."""
