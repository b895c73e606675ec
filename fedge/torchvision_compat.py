"""Import torchvision also where its wheel was built for CUDA and torch's was not.

Such a torchvision has no binary that torch can load, and its import fails on a missing operator:
`RuntimeError: operator torchvision::nms does not exist`. Data sets, transforms and classifiers need none of its
operators, so we declare the schemas it looks for and import once more. Where the plain import works,
nothing is declared.
"""

import importlib
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any, TypeVar

_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
_library: Any = None  # the declarations last as long as this torch.library.Library
_Result = TypeVar("_Result")


def import_torchvision_datasets() -> ModuleType:
    """`torchvision.datasets`, imported on first use (it takes a second)."""
    return with_torchvision(lambda: importlib.import_module("torchvision.datasets"))


def with_torchvision(work: Callable[[], _Result]) -> _Result:
    """`work()`, which may import torchvision; where that fails for want of its operators, done once more with them."""
    try:
        return work()
    except RuntimeError as error:
        if "operator torchvision::" not in str(error):
            raise
    _declare_missing_operators()
    return work()


def _declare_missing_operators() -> None:
    global _library
    import torch

    for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
        del sys.modules[name]  # half-imported
    _library = torch.library.Library("torchvision", "DEF")
    for schema in _SCHEMAS:
        _library.define(schema)
