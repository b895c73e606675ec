"""What leaks, measured: `fedge audit`. Read `audit`, then the four parts: canaries, one_run, mixes, membership."""
