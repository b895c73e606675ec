"""The papers' tables and the side-by-side measurements: `python -m benchmarks list` says which there are."""
