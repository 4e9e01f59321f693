"""State of a module: names to values, to and from memory and files.

What it is: ``state_dict``, ``load_state_dict`` and the file format, NumPy's ``.npz`` without pickled objects.
What it is not: readers of other frameworks' files.
Who calls it: ``nn.module``, ``optim``.
"""

from __future__ import annotations

import os
import tempfile
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import ArgumentError
from ..ops.creation import array
from ..var import Var, sync

if TYPE_CHECKING:
    from .module import Module

__all__ = ["collect", "load", "restore", "save", "to_numpy"]

#: names that other frameworks store and that mean nothing here
_IGNORED = "num_batches_tracked"


def to_numpy(value: Any) -> np.ndarray[Any, Any]:
    """The value of a Var, array or torch tensor as an ndarray."""
    if isinstance(value, Var):
        return value.numpy()
    detach = getattr(value, "detach", None)
    return np.asarray(detach().cpu().numpy() if detach else value)


def collect(module: Module, to: str | None, recurse: bool) -> dict[str, Any]:
    """Dotted name -> Var, array or tensor."""
    if to not in (None, "numpy", "torch"):
        raise ArgumentError(f"[state_dict] to must be None, 'numpy' or 'torch', got {to!r}")
    hidden = set()
    for path, part in module.named_modules() if recurse else [("", module)]:
        for key, persistent in part.__dict__.get("_buffers", {}).items():
            if not persistent:
                hidden.add(f"{path}.{key}" if path else key)
    found = {name: var for name, var in module.named_parameters(recurse) if name not in hidden}
    if to is None:
        return found
    sync(found.values())
    arrays = {name: var.numpy() for name, var in found.items()}
    if to == "numpy":
        return arrays
    import torch  # type: ignore[import-not-found,unused-ignore]

    return {name: torch.from_numpy(value) for name, value in arrays.items()}


def restore(module: Module, params: Mapping[str, Any]) -> None:
    """Copy ``params`` into the module's Vars of the same names."""
    if not isinstance(params, Mapping):
        raise ArgumentError(f"[load_state_dict] params must map names to values, got {type(params).__name__}")
    own = collect(module, None, True)
    given = {name: value for name, value in params.items() if name.rpartition(".")[2] != _IGNORED}
    arrays = {name: to_numpy(value) for name, value in given.items() if name in own}
    wrong = [
        f"{name}: {tuple(own[name].shape)} here, {value.shape} given"
        for name, value in arrays.items()
        if own[name].shape != value.shape
    ]
    if wrong:
        raise ArgumentError(
            f"[load_state_dict] shapes differ: {'; '.join(wrong)}; load weights of the same network"
        )
    for name, value in arrays.items():
        var = own[name]
        wanted = var.requires_grad
        var.update(array(value, var.dtype))
        var.requires_grad = wanted
    missing = [name for name in own if name not in given]
    unknown = [name for name in given if name not in own]
    if missing or unknown:
        parts = [f"not given and left as they are: {', '.join(missing)}"] if missing else []
        parts += [f"given but unknown: {', '.join(unknown)}"] if unknown else []
        warnings.warn(f"[load_state_dict] names {'; '.join(parts)}", stacklevel=3)


def save(arrays: Mapping[str, Any], path: str | os.PathLike[str]) -> None:
    """Write arrays to ``path`` (exactly this name) as ``.npz``; the file appears complete or not at all."""
    target = os.path.abspath(os.fspath(path))
    handle, temporary = tempfile.mkstemp(dir=os.path.dirname(target), prefix=".saving-")
    try:
        with os.fdopen(handle, "wb") as file:
            entries: dict[str, Any] = {name: to_numpy(value) for name, value in arrays.items()}
            np.savez(file, **entries)
        os.replace(temporary, target)
    except BaseException:
        os.unlink(temporary)
        raise


def load(path: str | os.PathLike[str]) -> dict[str, np.ndarray[Any, Any]]:
    """Read what ``save`` wrote. Errors: ``ArgumentError`` if it is something else; ``FileNotFoundError``."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except (ValueError, OSError, AttributeError) as error:
        if isinstance(error, FileNotFoundError):
            raise
        raise ArgumentError(f"[load] {os.fspath(path)!r} is not a file written by save: {error}") from error
