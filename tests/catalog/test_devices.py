"""The table of devices."""

import subprocess
import sys
from pathlib import Path

import pytest

from fedge.catalog.devices import PROFILES, DeviceProfile, profile
from fedge.errors import UserError

ROW = {
    "name": "toy",
    "kind": "board",
    "train_gflops": "1.5",
    "memory_mb": "200",
    "memory_gbs": "3",
    "down_mbps": "20",
    "up_mbps": "10",
    "idle_w": "1",
    "load_w": "4",
    "battery_wh": "none",
    "ray_num_cpus": "0.5",
    "ray_memory_mb": "600",
    "evidence": "train=A",
    "train_basis": "assumed",
    "source": "none",
}


def test_the_table_is_complete_and_has_devices_that_can_train():
    """A scenario would meet a device without a cost, or a table of microcontrollers."""
    assert {"jetson-nano", "raspberry-pi-4"} <= set(PROFILES)
    assert sum(device.memory_bytes >= 500e6 for device in PROFILES.values()) >= 10
    for device in PROFILES.values():
        assert device.idle_w < device.load_w
        for number in ("train", "memory", "bandwidth", "network", "idle", "load"):
            assert f"{number}=" in device.evidence, device.name
        assert (device.battery_wh is None) != ("battery=" in device.evidence), device.name


@pytest.mark.parametrize("text", ["", "0", "-1", "fast", "nan", "inf"])
def test_a_missing_cost_is_an_error(text):
    """A blank would count as 0 seconds or 0 joules."""
    with pytest.raises(UserError, match="'toy': load_w"):
        DeviceProfile.from_row(ROW | {"load_w": text})
    with pytest.raises(UserError, match="battery_wh"):
        DeviceProfile.from_row({**ROW, "battery_wh": ""})


def test_units():
    """Memory would be off by a factor."""
    assert DeviceProfile.from_row(ROW).memory_bytes == 200_000_000


def test_an_unknown_device_gets_the_nearest_name():
    """A typing error would cost the user a search."""
    with pytest.raises(UserError, match="did you mean 'raspberry-pi-4'"):
        profile("raspberrypi4")


def test_profiles_need_no_torch():
    """The process that checks scenarios would import torch."""
    code = "import sys, fedge.catalog.devices; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_documentation_shows_the_table_as_it_is():
    """docs/methods/devices.md would promise other numbers than a run uses."""
    text = (Path(__file__).parents[2] / "docs" / "methods" / "devices.md").read_text()
    for device in PROFILES.values():
        (row,) = [line for line in text.splitlines() if line.startswith(f"| {device.name} |")]
        shown = [cell.split()[0] for cell in row.strip("| ").split(" | ")[1:8]]
        numbers = (device.train_gflops, device.memory_mb, device.memory_gbs, device.down_mbps)
        powers = (device.idle_w, device.load_w)
        battery = "mains" if device.battery_wh is None else f"{device.battery_wh:g}"
        assert shown == [f"{number:g}" for number in (*numbers, *powers)] + [battery]
