"""Where a policy runs: importing torch, or what of fedge knows data and networks, is refused.

The coordinator decides from reports. Under Ray its process never loads torch; inline it stands in the process of the
devices, so these modules are put out of sight while a policy runs.
"""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

REFUSED = (
    "torch", "torchvision", "fedge.data", "fedge.models", "fedge.training", "fedge.device",
    "fedge.prepare", "fedge.forecast",
)  # fmt: skip


def is_refused(name: str) -> bool:
    """Whether a module is one of those, or in one of them."""
    return any(name == refused or name.startswith(f"{refused}.") for refused in REFUSED)


class _Refuser(MetaPathFinder):
    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if is_refused(name):
            raise ImportError(
                f"importing {name} is refused: a policy runs in the coordinator, which knows reports alone"
            )
        return None


@contextmanager
def torch_free() -> Iterator[None]:
    """For the time of the block nothing of `REFUSED` can be imported, whether or not it is loaded already."""
    hidden = {name: sys.modules.pop(name) for name in list(sys.modules) if is_refused(name)}
    refuser = _Refuser()
    sys.meta_path.insert(0, refuser)
    try:
        yield
    finally:
        sys.meta_path.remove(refuser)
        sys.modules.update(hidden)
