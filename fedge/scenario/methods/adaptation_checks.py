"""What of low-cost adaptation cannot be together."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fedge.scenario.training import Training


def contradiction(training: "Training") -> str | None:
    """One line for the first thing that cannot be; None where all can."""
    source, moved = training.source, training.adaptation.moved
    if moved and (training.prior != "em" or source is None):
        return (
            f"adaptation.moved is {moved:g}, which goes by how far the label prior moves before a head is trained "
            "anew: set prior = 'em' and a source, or leave moved out"
        )
    if training.exits is not None and (source is not None or training.prior != "none"):
        return (
            "exits is given, with a prior and a teacher of its own (exits.prior): leave prior and source out"
        )
    if source is None:
        return None
    if training.what != "head":
        return f"source is {source!r}, features for a head, and what is {_shown(training.what)}: set what = 'head'"
    if said := _no_pictures(training):
        return f"source is {source!r}, and features are made once, by a trunk that stays as it is: {said}"
    if source != "own" and training.answers != "own" and training.prior != "em":
        return (
            f"source is {source!r} and nothing says which classes to draw: set answers = 'own', which are known by "
            "their labels, or prior = 'em', which are found without"
        )
    return None


def _no_pictures(training: "Training") -> str | None:
    """What works on samples, or on more of the network than its head."""
    if training.transform != "none":
        return "set transform = 'none'"
    if training.instance_filter.kind != "none":
        return "set instance_filter.kind = 'none'"
    if training.error_maps.prunes:
        return "no convolution has a backward pass to prune, set error_maps.keep = 1 and leave target out"
    if training.quantization is not None:
        return "leave quantization out"
    return None


def _shown(what: str | tuple[str, ...]) -> str:
    return repr(what) if isinstance(what, str) else str(list(what))
