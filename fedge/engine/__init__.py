"""Flower Grids that deliver messages to devices: in this process, or on Ray."""
