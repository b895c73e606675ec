"""A process that sees the paths it is given and nothing else. Read `room`, then `confine`, `zygote`, `process`."""
