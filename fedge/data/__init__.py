"""Data sets, partitions, and one client's shard of them."""
