"""Flower Grids: `inline` runs every device in this process, `ray` runs pools of hosts, one pool per device
class.

Read `roster` (what the grids are told), `program` (what runs on a host), then `inline`, then `ray`.
"""
