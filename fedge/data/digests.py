"""Whether the files of a folder are still those that were written there.

The digests lie in `digests.json` beside the files and are written last: a folder without them is not finished.
"""

import hashlib
import json
from pathlib import Path

NAME = "digests.json"
_PIECE_BYTES = 1 << 22


def write_digests(folder: Path) -> None:
    """Note the digest of every file below `folder`."""
    digests = {str(path.relative_to(folder)): _digest(path) for path in _files(folder)}
    (folder / NAME).write_text(json.dumps(digests, indent=1))


def damage(folder: Path) -> str | None:
    """What is wrong with the folder, in a few words; None where every file is as it was written."""
    try:
        digests = json.loads((folder / NAME).read_text())
        if not digests:
            return f"{NAME} is empty"
        for name, digest in digests.items():
            if not (folder / name).is_file():
                return f"{name} is missing"
            if _digest(folder / name) != digest:
                return f"{name} has changed"
    except (OSError, ValueError, AttributeError):
        return f"{NAME} cannot be read"
    return None


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.name != NAME)


def _digest(path: Path) -> str:
    digest = hashlib.blake2b(digest_size=16)
    with open(path, "rb") as file:
        while piece := file.read(_PIECE_BYTES):
            digest.update(piece)
    return digest.hexdigest()
