"""Weights from a file: read without running anything that is in it, held against the network, and put in."""

import hashlib
from collections.abc import Mapping, Sequence
from io import BufferedReader
from pathlib import Path
from pickle import UnpicklingError

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from fedge.catalog.names import did_you_mean
from fedge.errors import UserError

_WRAPPERS = (
    "state_dict",
    "model_state_dict",
    "model",
)  # keys under which training scripts keep a network's state
_PREFIXES = ("module.", "_orig_mod.")  # what DataParallel and torch.compile put before each name
_WHERE = "it is read where the data are prepared; on a cluster, each node that prepares them must have it at this path"

State = Mapping[str, Tensor]


def weights_digest(path: str) -> str:
    """Of the file's bytes. UserError where it cannot be read."""
    with _opened(path) as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def _opened(path: str) -> BufferedReader:
    try:
        return open(path, "rb")
    except OSError as error:
        raise UserError(f"model.weights is {path!r}: {error.strerror}; {_WHERE}") from None


def load_weights(model: nn.Module, path: str, reset: Sequence[str], *, who: str) -> None:
    """Put the file's tensors into `model`, all but those of the layers named in `reset`, which stay as they are.

    UserError where the file holds no plain state or it does not fit the network called `who`; nothing is put in then.
    """
    own, held = model.state_dict(), read_state(path)
    for name in reset:
        if not any(_below(key, [name]) for key in (*own, *held)):
            known = list(dict.fromkeys(key.partition(".")[0] for key in own))
            raise UserError(
                f"model.reset names {name!r}, which {who} does not have; {did_you_mean(name, known)}"
            )
    found = {key: value for key, value in held.items() if not _below(key, reset)}
    wanted = {key: value for key, value in own.items() if not _below(key, reset)}
    _require_fit(found, wanted, f"weights {Path(path).name!r} and {who} differ")
    for key, value in found.items():
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise UserError(f"weights {Path(path).name!r}: {key} holds numbers that are nan or infinite")
    model.load_state_dict({**own, **found})


def read_state(path: str) -> State:
    """Name -> tensor, of a .safetensors file or of what `torch.save(model.state_dict(), ...)` wrote."""
    name = Path(path).name
    with _opened(path):  # it can be read
        pass
    try:
        if path.endswith(".safetensors"):
            return dict(load_file(path))
        held = torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError:
        raise UserError(
            f"weights {name!r} hold more than tensors, and fedge runs no code from a file: save model.state_dict(), "
            "not the model"
        ) from None
    except (SafetensorError, RuntimeError, EOFError, ValueError, KeyError, OSError, AttributeError) as error:
        reason = " ".join(str(error).split())[:150]
        raise UserError(
            f"weights {name!r} cannot be read: {reason}; give a .safetensors or .pth file"
        ) from None
    return _unwrapped(held, name)


def _unwrapped(held: object, name: str) -> State:
    for key in _WRAPPERS:
        if isinstance(held, dict) and isinstance(held.get(key), dict):
            held = held[key]
    if (
        not isinstance(held, dict)
        or not held
        or not all(isinstance(value, Tensor) for value in held.values())
    ):
        raise UserError(f"weights {name!r} hold no table of tensors by name: save model.state_dict()")
    for prefix in _PREFIXES:
        if all(key.startswith(prefix) for key in held):
            held = {key.removeprefix(prefix): value for key, value in held.items()}
    return dict(held)


def _require_fit(found: State, wanted: State, differ: str) -> None:
    wanted = {key: value for key, value in wanted.items() if key in found or not _is_counter(key)}
    if odd := [key for key in wanted if key in found and found[key].shape != wanted[key].shape]:
        key = odd[0]
        shapes = f"{list(found[key].shape)} there and {list(wanted[key].shape)} here"
        raise UserError(f"{differ}: {key} is {shapes}{_more(odd)}: {_reset(odd)}, or fit the network")
    if missing := [key for key in wanted if key not in found]:
        raise UserError(
            f"{differ}: {missing[0]} is not there{_more(missing)}: {_reset(missing)}, or fit the network"
        )
    if extra := [key for key in found if key not in wanted]:
        raise UserError(
            f"{differ}: {extra[0]} is not here{_more(extra)}: fit the network, or leave it out of the file"
        )


def _below(key: str, layers: Sequence[str]) -> bool:
    return any(key == layer or key.startswith(f"{layer}.") for layer in layers)


def _is_counter(key: str) -> bool:
    """Batch norm's count of batches, which older files do not hold."""
    return key.endswith("num_batches_tracked")


def _more(keys: Sequence[str]) -> str:
    return f" (and {len(keys) - 1} more)" if len(keys) > 1 else ""


def _reset(keys: Sequence[str]) -> str:
    layers = list(dict.fromkeys(key.rpartition(".")[0] or key for key in keys))
    if len(layers) > 4:
        layers = list(dict.fromkeys(key.partition(".")[0] for key in keys))
    names = ", ".join(f'"{layer}"' for layer in layers[:4])
    return f"reset = [{names}{', ...' if len(layers) > 4 else ''}]"
