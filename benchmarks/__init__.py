"""The papers' tables and the side-by-side measurements; each module is run with `python -m`."""
