"""A prepared folder's data divided once more: for each client a folder with its own rows and nobody else's.

    own/<client>/   the folder's other files (the factory model, its facts), and shards/ with one shard, number 0

For clients that are kept apart from one another by the file system. It doubles the space that the rows take.
"""

import os
import shutil
import tempfile
from itertools import product
from pathlib import Path

from fedge.data.digests import damage, write_digests
from fedge.data.shard import export_shard

OWN = "own"


def write_apart(folder: Path, clients: int) -> None:
    """Make folder/own, or leave it where it is whole. Call it while nobody else prepares the folder."""
    own = folder / OWN
    if own.is_dir() and damage(own) is None:
        for client, file in product(range(clients), filter(Path.is_file, folder.iterdir())):
            if not (own / str(client) / file.name).exists():  # came since
                _same(file, own / str(client) / file.name)
        return
    partial = Path(tempfile.mkdtemp(dir=folder, prefix=f".{OWN}-"))
    try:
        for client in range(clients):
            export_node(folder, client, partial / str(client))
        write_digests(partial)
        shutil.rmtree(own, ignore_errors=True)
        partial.rename(own)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def export_node(folder: Path | str, client: int, place: Path | str) -> None:
    """Make `place`, which must not be there, the data folder of one client alone: what a SuperNode is given.

    folder: prepared data (`prepare(scenario).folder`). Files are linked where the file system can, else copied.
    """
    Path(place).mkdir(parents=True)
    for file in Path(folder).iterdir():
        if file.is_file():
            _same(file, Path(place) / file.name)
    export_shard(Path(folder) / "shards", client, Path(place) / "shards")


def _same(file: Path, place: Path) -> None:
    """One file at two places, where the file system can; else a copy."""
    try:
        os.link(file, place)
    except OSError:
        shutil.copyfile(file, place)
