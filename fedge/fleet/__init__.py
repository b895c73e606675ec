"""What happens to a fleet from outside: who is there, who is chosen, what goes wrong. Pure, by seed, no torch."""
