"""What a scenario can name: data sets, devices, scenarios and client programs. No torch, no data."""

from fedge.catalog.files import client_names, client_path, scenario_names, scenario_path

__all__ = ["client_names", "client_path", "scenario_names", "scenario_path"]
