"""Make pumps.csv: what six pumps felt, minute by minute, and how much power each took. Seconds, and no network."""

import csv
import math
import random

MINUTES = 1200


def pump(number, generator):
    """Rows of one pump: its load drifts, and what a load costs and how it shakes are its own."""
    load, losses, per_load, hum = (
        5.0,
        generator.uniform(1, 5),
        generator.uniform(0.8, 2),
        generator.uniform(0.5, 1.5),
    )
    for minute in range(MINUTES):
        load = min(9.0, max(1.0, load + generator.gauss(0, 0.4)))
        phase = minute * (1 + load / 10)
        yield {
            "pump": f"pump-{number}",
            "minute": minute,
            "shake_x": load * math.sin(phase) / 5 + generator.gauss(0, 0.1),
            "shake_y": load * math.cos(hum * phase) / 5 + generator.gauss(0, 0.1),
            "heat": 20 + 3 * load + generator.gauss(0, 1),
            "power_kw": losses + per_load * load,
        }


generator = random.Random(0)
rows = [row for number in range(6) for row in pump(number, generator)]
with open("pumps.csv", "w", newline="", encoding="utf-8") as file:
    writer = csv.DictWriter(file, rows[0])
    writer.writeheader()
    writer.writerows(rows)
