"""How a network's own function is called: with what the data say, where it takes that, and the scenario's args."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from fedge.catalog.names import did_you_mean
from fedge.errors import UserError

_BY_NAME = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


def arguments_of(
    function: Callable[..., Any],
    facts: Mapping[str, Any],
    args: Mapping[str, Any],
    *,
    own_file: bool,
    who: str,
) -> dict[str, Any]:
    """The keyword arguments: `facts` (num_classes, in_channels, image_size) that the function names, and `args`.

    What it takes as **kwargs is not known, so it gets all of `facts` where it is in a file of one's own, and
    num_classes alone where it is installed, as torchvision's builders are. UserError where an argument has no taker,
    one that the function needs has no value, or the number of classes cannot be told to it.
    """
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # written in C
        return {**facts, **args}
    named = {parameter.name: parameter for parameter in parameters if parameter.kind in _BY_NAME}
    takes_more = any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters)
    unnamed = set(facts) if own_file else {"num_classes"}
    passed = {key: value for key, value in facts.items() if key in named or (takes_more and key in unnamed)}
    if "num_classes" not in passed:
        raise UserError(
            f"{who} takes no num_classes (it takes {', '.join(named) or 'nothing'}): add that argument"
        )
    for key in args:
        if key not in named and not takes_more:
            others = [name for name in named if name not in facts]
            wanted = did_you_mean(key, others) if others else "it takes none"
            raise UserError(f"model.args has {key!r}, which {who} does not take; {wanted}")
    passed |= args
    for key, parameter in named.items():
        if parameter.default is inspect.Parameter.empty and key not in passed:
            raise UserError(f"{who} needs {key!r}: give it in model.args, or a default in the function")
    return passed
