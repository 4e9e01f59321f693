"""State of a module: names to values, to and from memory and files.

What it is: ``state_dict``, ``load_state_dict`` and what stands behind ``Module.save`` and ``Module.load``.
What it is not: any file format (``metafuse.io``).
Who calls it: ``nn.module``, and ``metafuse_models`` for weights.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import io
from ..dtypes import bfloat16, check_unmasked
from ..errors import ArgumentError, brief
from ..ops.creation import array
from ..var import Var, sync

if TYPE_CHECKING:
    from .module import Module

__all__ = ["collect", "load", "restore", "save", "to_numpy"]

#: names that other frameworks store and that mean nothing here
_IGNORED = "num_batches_tracked"


def to_numpy(value: Any) -> np.ndarray[Any, Any]:
    """The value of a Var, array or torch tensor as an ndarray, which may share its memory."""
    if isinstance(value, Var):
        return value.data
    detach = getattr(value, "detach", None)
    if detach is None:
        check_unmasked("[load_state_dict] a value", value)
        return np.asarray(value)
    tensor = detach().cpu()
    return np.asarray((tensor.float() if str(tensor.dtype) == "torch.bfloat16" else tensor).numpy())


def collect(module: Module, to: str | None, recurse: bool) -> dict[str, Any]:
    """Dotted name -> Var, array or tensor."""
    if to not in (None, "numpy", "torch"):
        raise ArgumentError(f"[state_dict] to must be None, 'numpy' or 'torch', got {brief(to)}")
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
    given = {name: value for name, value in params.items() if str(name).rpartition(".")[2] != _IGNORED}
    if own and given and not own.keys() & given.keys():
        raise ArgumentError(f"[load_state_dict] no name is one of this network's: {_hint(own, params)}")
    arrays = {name: _shaped(to_numpy(value), own[name]) for name, value in given.items() if name in own}
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
    unknown = [str(name) for name in given if name not in own]
    if missing or unknown:
        parts = [f"not given and left as they are: {', '.join(missing)}"] if missing else []
        parts += [f"given but unknown: {', '.join(unknown)}"] if unknown else []
        warnings.warn(f"[load_state_dict] names {'; '.join(parts)}", stacklevel=3)


def _shaped(value: np.ndarray[Any, Any], var: Var) -> np.ndarray[Any, Any]:
    """A number without dimensions stands for one element."""
    return value.reshape(1) if value.ndim == 0 and var.shape == (1,) else value


def _hint(own: Mapping[str, Any], params: Mapping[str, Any]) -> str:
    """What may have been meant by names none of which is known."""
    for key, value in params.items():
        if isinstance(value, Mapping) and own.keys() & value.keys():
            return f"they are below {key!r}; give params[{key!r}]"
    for name in params:
        begin, _, rest = str(name).partition(".")
        if rest in own:
            return f"they begin with {begin + '.'!r}; give {{name.partition('.')[2]: value for name, value in params.items()}}"
    return f"it has {_some(own)}, given are {_some(params)}"


def _some(names: Mapping[str, Any]) -> str:
    shown = ", ".join(map(str, list(names)[:3]))
    return f"{shown} and {len(names) - 3} more" if len(names) > 3 else shown


def save(arrays: Mapping[str, Any], path: str | os.PathLike[str]) -> None:
    """Write arrays to ``path`` (exactly this name), which appears complete or not at all.

    A name that ends in what ``io.save`` knows gets that format; every other one NumPy's ``.npz``, which keeps all types.
    """
    if isinstance(path, (str, os.PathLike)) and os.path.splitext(os.fspath(path))[1].lower() in io.ENDINGS:
        io.save(dict(arrays), path)
    else:
        io.save_numpy(dict(arrays), path)


def load(path: str | os.PathLike[str]) -> dict[str, np.ndarray[Any, Any]]:
    """Name to array of a file of any format that ``io.load`` reads; bfloat16 comes as float32.

    Errors: ``ArgumentError`` if it is something else; ``FileNotFoundError``.
    """
    found = io.load(path, to="numpy")
    if not isinstance(found, Mapping):
        raise ArgumentError(f"[load] {os.fspath(path)!r} holds a {type(found).__name__}, not arrays by names")
    return dict(found)
