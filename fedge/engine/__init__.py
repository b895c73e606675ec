"""Flower Grids: `inline` runs every device in this process, `ray` runs pools of hosts, one per device class.

Read `roster` (what the grids are told), `program` (what runs on a host), then `inline`, then `ray`.

Importing the engine makes sure that nothing phones home, unless the user's own environment says otherwise: it
is done here because Flower and Ray read parts of their environment while they are imported.
"""

import os

_QUIET = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}
for _name, _value in _QUIET.items():
    os.environ.setdefault(_name, _value)
