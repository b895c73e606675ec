"""The words that a scenario can use for what computes, and the code that each stands for; known without torch.

A name is one of these words, or a reference to code of one's own:

    file.py:attribute              beside the scenario; its text travels to where it runs
    package.module:attribute       of what is installed where the devices run

Words are checked when a scenario is read; references are resolved where they run (fedge.references). A line here is
all that a new word needs, beside the file with its code.
"""

import difflib
from collections.abc import Iterable

MODELS = {
    "lenet": "fedge.models.lenet:LeNet",
    "alexnet": "fedge.models.alexnet:AlexNet",
    "resnet8": "fedge.models.resnet:resnet8",
    "resnet20": "fedge.models.resnet:resnet20",
    "resnet32": "fedge.models.resnet:resnet32",
    "resnet56": "fedge.models.resnet:resnet56",
    "resnet74": "fedge.models.resnet:resnet74",
    "resnet110": "fedge.models.resnet:resnet110",
    "vgg11": "fedge.models.vgg:vgg11",
    "vgg16": "fedge.models.vgg:vgg16",
    "mobilenet_v2": "fedge.models.mobilenet_v2:MobileNetV2",
    "squeezenet": "fedge.models.squeezenet:SqueezeNet",
    "har_cnn": "fedge.models.har_cnn:HarCNN",
}
CRITERIA = {
    "l1": "fedge.training.pruning.criteria:l1",
    "taylor": "fedge.training.pruning.criteria:taylor",
    "activation": "fedge.training.pruning.criteria:activation",
    "random": "fedge.training.pruning.criteria:random",
}
FILTERS = {
    "none": None,
    "early": "fedge.training.instance_filter.early:EarlyInstanceFilter",
    "random": "fedge.training.instance_filter.by_chance:RandomFilter",
    "smb": "fedge.training.instance_filter.by_chance:MiniBatchFilter",
    "ohem": "fedge.training.instance_filter.by_loss:HardestFilter",
    "selective_backprop": "fedge.training.instance_filter.by_loss:SelectiveBackpropFilter",
    "infobatch": "fedge.training.instance_filter.by_loss:InfoBatchFilter",
    "first_exit": "fedge.training.instance_filter.first_exit:FirstExitFilter",
}
SCORES = {
    "error": "fedge.training.error_map.scores:error",
    "paper": "fedge.training.error_map.scores:paper",
    "product": "fedge.training.error_map.scores:product",
    "random": "fedge.training.error_map.scores:random",
}
KEEPS = {
    "fifo": "fedge.device.storage.keep:fifo",
    "reservoir": "fedge.device.storage.keep:reservoir",
    "balanced": "fedge.device.storage.keep:balanced",
    "scenes": "fedge.device.storage.keep:scenes",
    "filter": "fedge.device.storage.keep:by_filter",
}
"""What a device keeps of a stream."""
TRANSFORMS = {"none": None, "crop_flip": "fedge.data.augment:crop_flip"}
LOSSES = {"classes": ("cross_entropy",), "labels": ("binary",), "numbers": ("squared", "huber")}
"""Kinds of loss by the task that they fit, each task's own first."""

WHAT = ("all", "head", "norm", "shift", "last")
"""Which parameters are trained, beside layers by name: fedge.training.update.what says what each is."""

_MOST_WORDS = 24  # that a line lists


def is_reference(name: str) -> bool:
    """Whether a name points to code: `file.py:attribute` or `package.module:attribute`."""
    where, colon, attribute = name.rpartition(":")
    return bool(colon and where) and attribute.isidentifier()


def nearest(name: str, known: Iterable[str], *, cutoff: float = 0.6) -> str | None:
    """The known word that `name` was likely meant for."""
    return next(iter(difflib.get_close_matches(name, list(known), n=1, cutoff=cutoff)), None)


def did_you_mean(name: str, known: Iterable[str], *, cutoff: float = 0.6) -> str:
    """The end of a refusal: the nearest of the known words, and all of them; of very many, the first."""
    words = list(known)
    near = nearest(name, words, cutoff=cutoff)
    rest = f" and {len(words) - _MOST_WORDS} more" if len(words) > _MOST_WORDS else ""
    return (f"did you mean {near!r}? " if near else "") + f"there are {', '.join(words[:_MOST_WORDS])}{rest}"


def word_or_reference(name: str, known: Iterable[str]) -> str:
    """`name`, if it is one of the known words or a reference; ValueError with the nearest word if not."""
    words = tuple(known)
    if name not in words and not is_reference(name):
        raise ValueError(
            f"{name!r} is unknown; {did_you_mean(name, words)}, or give code of your own as file.py:name"
        )
    return name
