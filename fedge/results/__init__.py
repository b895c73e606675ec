"""The folder of a run's results, and its checkpoint."""
