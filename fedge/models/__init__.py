"""The networks a device can hold, one file per family."""
