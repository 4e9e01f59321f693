"""Collating: several items to one batch.

What it is: the rule by which arrays, numbers, texts and structures of them are stacked.
What it is not: reading of items, or conversion to Vars (``to_vars`` does that last, on what was stacked).
Who calls it: ``data.dataset``.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..arguments import checked
from ..dtypes import check_unmasked
from ..errors import ArgumentError, DTypeError
from ..finite import nested
from ..ops.creation import array
from ..var import Var

__all__ = ["collate_batch", "is_plain", "to_vars"]


@checked
def collate_batch(batch: list[Any]) -> Any:
    """Stack the items of ``batch``.

    Arrays, Vars and images are stacked along a new first dimension; integers become an int32 array (int64 where
    they are too large for it) and floats a float32 array; texts and ``None`` stay in a list; tuples, lists and dictionaries
    are collated member by member.

    Errors: ``ArgumentError`` if shapes differ, naming them; ``DTypeError`` for types that can't be stacked.

    Example:
        >>> import metafuse as mf
        >>> mf.data.collate_batch([(1, 2.0), (3, 4.0)])
        [array([1, 3], dtype=int32), array([2., 4.], dtype=float32)]
    """
    with nested("collate_batch", "an item"):
        return _collated(batch)


def _collated(batch: list[Any]) -> Any:
    if not batch:
        raise ArgumentError("[collate_batch] batch is empty; give at least one item")
    first = batch[0]
    for k, item in enumerate(batch):
        if (item is None or isinstance(item, (Var, str, bytes, dict))) and type(item) is not type(first):
            kinds = f"a {type(first).__name__} and at {k} a {type(item).__name__}"
            raise ArgumentError(f"[collate_batch] items must be of one type, got {kinds}")
    if isinstance(first, Var):
        return _stack([v.numpy() for v in batch])
    if isinstance(first, np.ndarray):
        check_unmasked("[collate_batch] an item", batch)
        return _stack(batch)
    if isinstance(first, (bool, np.bool_)):
        return np.array(batch, dtype=np.bool_)
    if isinstance(first, (int, np.integer)):
        return _integers(batch)
    if isinstance(first, (float, np.floating)):
        return np.array(batch, dtype=np.float32)
    if first is None or isinstance(first, (str, bytes)):
        return list(batch)
    if isinstance(first, dict):
        return {key: _collated([item[key] for item in batch]) for key in first}
    if isinstance(first, (tuple, list)):
        if any(len(item) != len(first) for item in batch):
            raise ArgumentError(
                f"[collate_batch] items have different lengths: {sorted({len(i) for i in batch})}"
            )
        return [_collated(list(column)) for column in zip(*batch, strict=True)]
    if hasattr(first, "__array_interface__") or hasattr(first, "__array__"):  # images of PIL, and the like
        return _stack([np.asarray(item) for item in batch])
    raise DTypeError(
        f"[collate_batch] can't stack {type(first).__name__}; define collate_batch in the data set"
    )


def _integers(batch: list[Any]) -> np.ndarray[Any, Any]:
    """An array of int32 or, where a number is too large for it, of int64."""
    for dtype in (np.int32, np.int64):
        try:
            return np.array(batch, dtype=dtype)
        except OverflowError:
            continue
    raise ArgumentError(f"[collate_batch] integers must fit into 64 bits, got {max(batch, key=abs)!r}")


def _stack(arrays: list[np.ndarray[Any, Any]]) -> np.ndarray[Any, Any]:
    shapes = {a.shape for a in arrays}
    if len(shapes) > 1:
        raise ArgumentError(
            f"[collate_batch] items of one batch have different shapes: {sorted(shapes)}; pad or resize them"
        )
    return np.stack(arrays)


def to_vars(batch: Any) -> Any:
    """The batch with every array turned into a Var that takes no gradient."""
    with nested("to_vars", "the batch"):
        return _as_vars(batch)


def _as_vars(batch: Any) -> Any:
    if isinstance(batch, np.ndarray):
        return array(batch).stop_grad()
    if isinstance(batch, dict):
        return {key: _as_vars(value) for key, value in batch.items()}
    if isinstance(batch, (tuple, list)):
        return [_as_vars(value) for value in batch]
    return batch


def is_plain(batch: Any) -> bool:
    """Whether ``to_vars`` sees every array in the batch: nothing but arrays, simple values, lists and dictionaries of them."""
    if type(batch) in (list, tuple):
        return all(map(is_plain, batch))
    if type(batch) is dict:
        return all(map(is_plain, batch.values()))
    return type(batch) in _PLAIN


_PLAIN = (np.ndarray, Var, str, bytes, bool, int, float, complex, type(None))
