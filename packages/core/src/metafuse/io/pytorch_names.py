"""The names that PyTorch's files mention: storages, element types, and functions that make tensors of them.

What it is: ``pytorch_names``, the table that ``PickleReader`` is given for such files. Our own functions stand for PyTorch's.
What it is not: the containers around the pickle (``io.pytorch_read``).
Who calls it: ``io.pytorch_read``.

Source of the names: files that ``torch.save`` of PyTorch 1.0 to 2.13 wrote.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from .. import dtypes
from ..dtypes import DType
from ..var import Var
from .files import Budget
from .pickle_names import ordered, plain_names
from .pickle_reader import Function, Refused
from .tensors import finish, strided

__all__ = ["Storage", "StorageKind", "pytorch_names"]


@dataclass(frozen=True)
class StorageKind:
    """The class of a storage: elements of one type, or with ``None`` bytes."""

    dtype: DType | None

    @property
    def itemsize(self) -> int:
        """Bytes of an element."""
        return self.dtype.itemsize if self.dtype else 1


@dataclass(frozen=True)
class Storage:
    """Where the elements of tensors are: ``read`` answers all of its bytes. ``skip`` counts elements before a view's first."""

    kind: StorageKind
    read: Callable[[], np.ndarray[Any, Any]]
    swapped: bool = False
    skip: int = 0


_STORAGES = {
    "FloatStorage": dtypes.float32, "DoubleStorage": dtypes.float64, "HalfStorage": dtypes.float16,
    "BFloat16Storage": dtypes.bfloat16, "LongStorage": dtypes.int64, "IntStorage": dtypes.int32,
    "ShortStorage": dtypes.int16, "CharStorage": dtypes.int8, "ByteStorage": dtypes.uint8, "BoolStorage": dtypes.bool_,
}  # fmt: skip
_COMPLEX = ("complex32", "complex64", "complex128", "ComplexHalf", "ComplexFloat", "ComplexDouble")
_FOREIGN = ("float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz", "float8_e8m0fnu", "float4_e2m1fn_x2",
            "qint8", "quint8", "qint32", "quint4x2", "quint2x4", "QInt8", "QUInt8", "QInt32", "QUInt4x2", "QUInt2x4")  # fmt: skip


def pytorch_names(budget: Budget, to: str | None) -> dict[str, Any]:
    """The table for files whose tensors become Vars, or ndarrays with ``to="numpy"``."""
    names = plain_names(budget)
    for name, dtype in _STORAGES.items():
        for module in ("torch", "torch.cuda"):
            names[f"{module} {name}"] = StorageKind(dtype)
    names["torch.storage UntypedStorage"] = names["torch UntypedStorage"] = StorageKind(None)
    names.update({f"torch {name}": dtype for name, dtype in dtypes.DTYPES.items()})
    for name in _COMPLEX:
        names[f"torch {name}"] = names[f"torch {name}Storage"] = Refused(
            "it holds complex tensors, and no Var can have complex elements; save torch.view_as_real(tensor) instead"
        )
    for name in _FOREIGN:
        names[f"torch {name}"] = names[f"torch {name}Storage"] = Refused(
            f"it holds tensors of {name}, which no Var can have; save tensor.float() or tensor.dequantize() instead"
        )
    for kind in ("_rebuild_sparse_tensor", "_rebuild_sparse_csr_tensor", "_rebuild_nested_tensor"):
        names[f"torch._utils {kind}"] = Refused(
            "it holds sparse or nested tensors; save tensor.to_dense() or a padded tensor instead"
        )
    names["torch._utils _rebuild_qtensor"] = Refused(
        "it holds quantized tensors; save tensor.dequantize() instead"
    )

    def old(storage: Any, offset: Any, size: Any, stride: Any) -> Any:
        return rebuild(budget, to, storage, offset, size, stride)

    def tensor(
        storage: Any, offset: Any, size: Any, stride: Any, grad: Any, hooks: Any, extra: Any = None
    ) -> Any:
        return rebuild(budget, to, storage, offset, size, stride, grad)

    def typed(storage: Any, offset: Any, size: Any, stride: Any, grad: Any, hooks: Any, *more: Any) -> Any:
        if not more or not isinstance(more[0], DType):
            raise TypeError("a tensor has no element type")
        return rebuild(budget, to, storage, offset, size, stride, grad, more[0])

    names["torch._utils _rebuild_tensor"] = Function(old)
    names["torch._utils _rebuild_tensor_v2"] = Function(tensor)
    names["torch._utils _rebuild_tensor_v3"] = Function(typed)
    names["torch._utils _rebuild_parameter"] = Function(_parameter)
    names["torch._utils _rebuild_parameter_with_state"] = Function(_parameter)
    names["torch Size"] = Function(_size)
    names["torch device"] = Function(_device)
    names["torch.serialization _get_layout"] = Function(lambda name: str(name))
    names["torch.nn.parameter Parameter"] = Function(
        lambda data, requires_grad=True: _parameter(data, requires_grad)
    )
    names["collections OrderedDict"] = Function(ordered)
    return names


def rebuild(
    budget: Budget, to: str | None, storage: Any, offset: Any, size: Any, stride: Any, requires_grad: Any = False,
    dtype: DType | None = None,
) -> Any:  # fmt: skip
    """The tensor over a storage that offset, extents and strides describe."""
    if not isinstance(storage, Storage) or type(size) is not tuple or type(stride) is not tuple:
        raise TypeError("a tensor is not made of a storage, extents and strides")
    if type(offset) is not int or type(requires_grad) is not bool:
        raise TypeError("a tensor has no offset, or does not say whether it takes a gradient")
    dtype = dtype or storage.kind.dtype
    if dtype is None:
        raise TypeError("a tensor has no element type")
    data = storage.read()
    usable = len(data) // dtype.itemsize * dtype.itemsize
    flat = data[:usable].view(dtype.storage)
    found = strided(flat, offset + storage.skip, size, stride, budget)
    if storage.swapped:
        found = found.byteswap()
    return finish(found, dtype, to, requires_grad)


def _parameter(data: Any, requires_grad: Any, hooks: Any = None, state: Any = None) -> Any:
    """A parameter is its tensor."""
    if type(requires_grad) is not bool:
        raise TypeError("a parameter does not say whether it takes a gradient")
    if isinstance(data, Var) and data.dtype.is_float:
        data.requires_grad = requires_grad
    return data


def _size(extents: Any = ()) -> tuple[int, ...]:
    if type(extents) not in (tuple, list) or any(type(n) is not int for n in extents):
        raise TypeError("a shape is not made of numbers")
    return tuple(extents)


def _device(kind: Any, index: Any = None) -> str:
    """A device is its name; where tensors were means nothing here."""
    if type(kind) is not str or not (index is None or type(index) is int):
        raise TypeError("a device has no name")
    return kind if index is None else f"{kind}:{index}"
