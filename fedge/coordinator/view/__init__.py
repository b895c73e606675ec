"""What the coordinator makes of a round's replies: whole reports (each), or sums over the clients (sums)."""
