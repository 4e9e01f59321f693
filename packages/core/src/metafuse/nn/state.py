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

from ..dtypes import as_dtype, bfloat16
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
    if detach is None:
        return np.asarray(value)
    tensor = detach().cpu()
    return np.asarray((tensor.float() if str(tensor.dtype) == "torch.bfloat16" else tensor).numpy())


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

    tensors = {name: torch.from_numpy(value) for name, value in arrays.items()}
    return {name: t.bfloat16() if found[name].dtype is bfloat16 else t for name, t in tensors.items()}


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
    """Write arrays to ``path`` (exactly this name) as ``.npz``; the file appears complete or not at all.

    Vars of types that NumPy has not are stored as their bits, under ``name::type``."""
    sync(value for value in arrays.values() if isinstance(value, Var))
    target = os.path.abspath(os.fspath(path))
    handle, temporary = tempfile.mkstemp(dir=os.path.dirname(target), prefix=".saving-")
    try:
        with os.fdopen(handle, "wb") as file:
            entries: dict[str, Any] = dict(_entry(name, value) for name, value in arrays.items())
            np.savez(file, **entries)
        os.replace(temporary, target)
    except BaseException:
        os.unlink(temporary)
        raise


def _entry(name: str, value: Any) -> tuple[str, np.ndarray[Any, Any]]:
    dtype = value.dtype if isinstance(value, Var) else None
    if dtype is None or dtype.storage == dtype.numpy:
        return name, to_numpy(value)
    return f"{name}::{dtype}", dtype.encode(value.numpy())


def _value(name: str, stored: np.ndarray[Any, Any]) -> tuple[str, np.ndarray[Any, Any]]:
    name, _, dtype = name.partition("::")
    return name, as_dtype(dtype).decode(stored) if dtype else stored


def load(path: str | os.PathLike[str]) -> dict[str, np.ndarray[Any, Any]]:
    """Read what ``save`` wrote; bfloat16 comes as float32. Errors: ``ArgumentError`` if it is something else; ``FileNotFoundError``."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            return dict(_value(name, archive[name]) for name in archive.files)
    except (ValueError, OSError, AttributeError) as error:
        if isinstance(error, FileNotFoundError):
            raise
        raise ArgumentError(f"[load] {os.fspath(path)!r} is not a file written by save: {error}") from error
