"""A study: one question, asked of many runs, paired client by client.

The package is the function too: `fedge.study("what-pays", out="studies/what-pays", jobs=2)`.
"""

import sys
from types import ModuleType
from typing import Any


class _Callable(ModuleType):
    def __call__(self, *args: Any, **options: Any) -> Any:
        from fedge.study.run import study

        return study(*args, **options)


sys.modules[__name__].__class__ = _Callable
