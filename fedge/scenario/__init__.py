"""What a user writes: the scenario's sections, and how a scenario is read. pydantic alone; no torch, no data."""
