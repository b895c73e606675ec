"""What the coordinator learns where it sees no report: sums over the clients of a round, by two servers' shares."""
