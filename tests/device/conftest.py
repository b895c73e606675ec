"""A device opened without a run around it."""

from collections.abc import Callable
from pathlib import Path

import pytest

from fedge.coordinator.schedule import plan_round
from fedge.device.device import Device
from fedge.device.location import Location
from fedge.device.simulated import Simulated
from fedge.device.state import DeviceState
from fedge.prepare import prepare


@pytest.fixture(scope="session")
def opened(small) -> Callable[..., Device]:
    """Client 0 of `small(*changes)` in a round, fresh from the factory."""

    def open_device(*changes: str, round: int = 1) -> Device:
        scenario = small(*changes)
        folder = Path(prepare(scenario).folder)
        location = Location(0, 0, folder, folder / "nowhere", Simulated.of(scenario, 0))
        return Device(location, plan_round(scenario, round), DeviceState(0))

    return open_device
