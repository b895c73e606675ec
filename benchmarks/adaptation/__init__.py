"""What adaptation without training a trunk brings, beside what costs nothing and what costs all."""
