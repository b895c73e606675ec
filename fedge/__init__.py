"""fedge: simulated edge devices that improve their own networks; nothing private moves."""
