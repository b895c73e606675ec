"""Fingerprints of machines that do not exist."""

import json
from pathlib import Path

from fedge.catalog.fingerprint import FORMAT
from fedge.training.time.features import BY_WIDTH


def fingerprint_of(**seconds_of: float) -> str:
    """The text of a machine that takes so many seconds for each of BY_WIDTH's counts, and none for the others.

    Keywords have underscores for spaces.
    """
    numbers = {name: seconds_of.get(name.replace(" ", "_").replace(",", ""), 0.0) for name in BY_WIDTH}
    machine = {"processor": "Toy 1", "vector_instructions": "none", "torch": "2", "threads": 1}
    return json.dumps(
        {
            "format": FORMAT,
            "machine": machine,
            "predictor": "width",
            "coefficients": {"seconds_of": numbers},
            "train_gflops": 1.0,
            "memory_gbs": 1.0,
        }
    )


def written(folder: Path, **seconds_of: float) -> Path:
    """The same in a file."""
    path = folder / "toy.json"
    path.write_text(fingerprint_of(**seconds_of))
    return path
