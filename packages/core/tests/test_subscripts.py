"""What stands in brackets means what it means in NumPy, errors included."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest

import metafuse as mf

_A = np.arange(60, dtype=np.float32).reshape(3, 4, 5)


@pytest.mark.parametrize(
    "index",
    [
        (range(1, 3),),
        range(2),
        ((0, 2),),
        ((0, 2), slice(1, None), (1, 0)),
        np.array(2),
        (slice(None), np.array(-1)),
        (slice(None), [1, 0], ..., [2, 4]),
        (slice(None), np.array([[1], [3]]), ..., None, [2, 4]),
        (0, ..., [True, False, False, True, True]),
        ([],),
        (np.zeros((3, 4), bool),),
        (np.array([True, False, True]), slice(None), [0, 1]),
    ],
    ids=str,
)
def test_as_in_numpy(index: Any) -> None:
    x = mf.array(_A)
    np.testing.assert_array_equal(x[index].numpy(), _A[index])
    changed = _A.copy()
    changed[index] = -1
    x[index] = -1
    np.testing.assert_array_equal(x.numpy(), changed)


@pytest.mark.parametrize(
    "index",
    [
        [3],
        ([0, -4],),
        (slice(None), np.array([[0, 4]])),
        (..., range(6)),
        [True, False],
        np.ones((4, 3), bool),
        (0, np.ones(3, bool)),
        (slice(None), [True] * 5),
    ],
    ids=str,
)
def test_what_python_knows_is_checked(index: Any) -> None:
    x = mf.array(_A)
    with pytest.raises(IndexError):
        _A[index]
    with pytest.raises(IndexError, match="out of bounds|can't choose from extents"):
        x[index]
    with pytest.raises(IndexError, match="out of bounds|can't choose from extents"):
        x[index] = 0
    if isinstance(index, np.ndarray):
        with pytest.raises(IndexError, match="can't choose"):
            x[mf.array(index)]
    np.testing.assert_array_equal(x.numpy(), _A)


def _random_index(rng: np.random.Generator, shape: tuple[int, ...]) -> tuple[Any, ...]:
    items: list[Any] = []
    block = [(1,), (3,), (2, 1), (2, 3)][rng.integers(4)]
    masked, left = False, list(shape)
    while left:
        extent, kind = left[0], rng.integers(7)
        if kind == 0:
            items.append(None)
            continue
        if kind == 1 and Ellipsis not in [i for i in items if not isinstance(i, np.ndarray)]:
            items.append(Ellipsis)
            del left[: rng.integers(0, len(left) + 1)]
            continue
        del left[0]
        if kind == 2:
            items.append(int(rng.integers(-extent, extent)))
        elif kind == 3 and not masked:
            masked = True
            items.append(rng.random(extent) < 0.5)
        elif kind == 4 and not masked:
            items.append(rng.integers(-extent, extent, block).astype(["int32", "int8"][rng.integers(2)]))
        else:
            low, high = (int(v) for v in rng.integers(-extent - 1, extent + 2, 2))
            items.append(slice(low, high, [None, 1, 2, -1, -3][rng.integers(5)]))
    return tuple(items)


@pytest.mark.parametrize("seed", range(40))
def test_random_indexes(seed: int) -> None:
    rng = np.random.default_rng(seed)
    value = rng.integers(0, 100, tuple(rng.integers(1, 5, rng.integers(1, 5)))).astype(np.int32)
    for _ in range(4):
        index = _random_index(rng, value.shape)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                expected = np.asarray(value[index])
        except IndexError:  # a mask and an array that do not broadcast
            continue
        x = mf.array(value)
        shown = expected.reshape(expected.shape or (1,))
        np.testing.assert_array_equal(x[index].numpy(), shown, str(index))
        given = tuple(mf.array(i) if isinstance(i, np.ndarray) else i for i in index)
        np.testing.assert_array_equal(x[given].numpy(), shown, str(index))
        changed = value.copy()
        changed[index] = 7
        x[given] = 7
        np.testing.assert_array_equal(x.numpy(), changed, str(index))
