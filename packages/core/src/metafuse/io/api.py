"""``load`` and ``save``: any of the formats, found by a file's first bytes or chosen by its name.

What it is: the two functions of the public API.
What it is not: a format.
Who calls it: users as ``metafuse.load`` and ``metafuse.save``; ``nn.state``.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, BinaryIO

from ..arguments import checked
from .files import Source, reading
from .hashed_pickle import SIGNATURE, save_pickle, unpickle
from .numpy_files import read_npy, read_npz, save_numpy
from .pytorch_read import LEGACY_MAGIC, read_legacy, read_zip
from .pytorch_write import save_pytorch
from .safetensors import read_safetensors, save_safetensors
from .tensors import check_target

__all__ = ["ENDINGS", "load", "save"]

_PYTORCH = (".pth", ".pt", ".bin")
#: endings of names for which ``save`` has a format of their own
ENDINGS = (*_PYTORCH, ".safetensors", ".npz", ".npy", ".pkl")


@checked
def load(path: str | os.PathLike[str] | BinaryIO, to: str | None = None) -> Any:
    """Read a file of PyTorch (``torch.save``, both formats), safetensors, NumPy (``.npy``, ``.npz``) or the reference API
    (``.pkl``).

    The kind is found by the content, whatever the name. Nothing in the file is executed, and no other package is needed.

    Args:
        path: the file, or a binary file that is open.
        to: ``None``: tensors of PyTorch and safetensors come as Vars of the same type and shape (``[1]`` for none), arrays of
            NumPy's and the reference API's files as ndarrays. ``"numpy"``: ndarrays always, in which bfloat16 is float32.

    Returns:
        What was saved: mostly a dictionary from names to arrays.

    Errors:
        FileFormatError (an ``ArgumentError``): damaged or incomplete files, objects of other classes, types that no Var can have.
        FileNotFoundError

    Example:
        >>> import metafuse as mf, tempfile, os
        >>> path = os.path.join(tempfile.mkdtemp(), "net.safetensors")
        >>> mf.save({"weight": mf.ones([2, 3], "bfloat16")}, path)
        >>> mf.load(path)["weight"].dtype, mf.load(path, to="numpy")["weight"].shape
        (metafuse.bfloat16, (2, 3))
    """
    check_target(to)
    with reading(path) as source:
        return _read(source, to)


def _read(source: Source, to: str | None) -> Any:
    head = source.read(min(16, source.size))
    source.seek(0)
    if head.startswith(LEGACY_MAGIC):
        return read_legacy(source, to)
    if head.startswith(b"PK\x03\x04"):
        return read_zip(source, to) if _is_pytorch(source) else read_npz(source)
    if head.startswith(b"\x93NUMPY"):
        return read_npy(source)
    if head[8:9] == b"{":
        return read_safetensors(source, to)
    if head[:1] == b"\x80" or _signed(source):
        return unpickle(source)
    if head.startswith(b"PK\x05\x06"):
        return read_npz(source)  # an archive without entries
    raise source.problem(
        f"it begins with {head.hex(' ') or 'nothing'} and is of no kind that is read: .pth of torch.save, safetensors, .npz, "
        ".npy, .pkl"
    )


def _signed(source: Source) -> bool:
    if source.size < len(SIGNATURE):
        return False
    source.seek(source.size - len(SIGNATURE))
    found = source.read(len(SIGNATURE)) == SIGNATURE
    source.seek(0)
    return found


def _is_pytorch(source: Source) -> bool:
    """Whether the first entry of a zip archive is one of ``torch.save``'s: in a folder; arrays of ``.npz`` end in ``.npy``."""
    header = source.read(min(30, source.size))
    length = int.from_bytes(header[26:28], "little")
    name = source.read(min(length, source.left))
    source.seek(0)
    return not name.endswith(b".npy")


@checked
def save(params_dict: Any, path: str | os.PathLike[str]) -> None:
    """Write Vars, arrays, numbers, texts and containers of them. The name's ending chooses the format.

    * ``.pth``, ``.pt``, ``.bin``: what ``torch.load(path, weights_only=True)`` reads.
    * ``.safetensors``: a flat mapping from names to arrays.
    * ``.npz``: the same for NumPy; ``.npy``: one array.
    * everything else, ``.pkl`` for one: the reference API's format, in which Vars become ndarrays (bfloat16 float32).

    The file appears complete or not at all: it is written under another name in the same folder, and then renamed.

    Errors: ``DTypeError`` naming the place of what can't be saved; ``ArgumentError``; nothing is written then.

    Example:
        >>> import metafuse as mf, tempfile, os
        >>> path = os.path.join(tempfile.mkdtemp(), "all.pkl")
        >>> mf.save({"step": 3, "weights": [mf.ones([2])]}, path)
        >>> mf.load(path)
        {'step': 3, 'weights': [array([1., 1.], dtype=float32)]}
    """
    ending = Path(os.fspath(path)).suffix.lower() if isinstance(path, (str, os.PathLike)) else ""
    if ending in _PYTORCH:
        save_pytorch(path, params_dict)
    elif ending == ".safetensors":
        save_safetensors(params_dict, path)
    elif ending in (".npz", ".npy"):
        _check_numpy(params_dict, ending)
        save_numpy(params_dict, path)
    else:
        save_pickle(params_dict, path)


def _check_numpy(value: Any, ending: str) -> None:
    from collections.abc import Mapping

    from ..errors import ArgumentError

    if isinstance(value, Mapping) != (ending == ".npz"):
        wanted = "a mapping from names to arrays" if ending == ".npz" else "one array"
        raise ArgumentError(f"[save] a {ending} file holds {wanted}, got {type(value).__name__}")
