"""The Flower server's side: schedules, fleet selection, fleet metrics. Knows no data and no torch."""
