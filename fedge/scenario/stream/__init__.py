"""`[data.stream]` and what must hold of it."""
