"""The two papers, in PyTorch and nothing else."""
