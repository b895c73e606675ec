"""What a person reads: progress, result files, tables."""
