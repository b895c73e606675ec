"""Folders outside the project: where data files lie, and what can be made again."""

import os
from pathlib import Path


def data_root(root: str | None) -> Path:
    """Where data files lie: the scenario's `data.root`, else FEDGE_DATA, else the user's cache folder."""
    return Path(root or os.environ.get("FEDGE_DATA") or cache_folder() / "data").expanduser()


def cache_folder() -> Path:
    """What can be made again: prepared data and factory models. FEDGE_CACHE, else the user's cache folder."""
    if own := os.environ.get("FEDGE_CACHE"):
        return Path(own).expanduser()
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base).expanduser() / "fedge"
