"""Assignments to what was taken from an array by an index: as in NumPy, in any order, with names kept or gone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import metafuse as mf
from metafuse.config import flag_scope
from metafuse.plugins.registry import registry
from metafuse.testing import check_grads

RANDOM = np.random.default_rng(5)


def written_after_the_window(x: Any) -> list[Any]:
    y = x[1]
    x[1] = 7
    y[0] = 9
    return [x, y]


def window_on_a_window(x: Any) -> list[Any]:
    y = x[1]
    w = y[0]
    x[1] = 7
    w[0] = 9
    return [x, y, w]


def windows_side_by_side(x: Any) -> list[Any]:
    y = x[1]
    w = y[::-1]
    y[0] = 5
    x[1, 0, 0] = 7
    w[1] = 9
    return [x, y, w]


def window_whose_middle_is_gone(x: Any) -> list[Any]:
    x[0][1][2][1] = 7
    y = x[1:]
    v = y[0, ::-1][1]
    x[1, 1] = 3
    v[0] = 9
    y[0][0][1] = 4
    v[1] += 5
    return [x, y, v]


def steps_and_new_axes(x: Any) -> list[Any]:
    y = x[None, ::-2, ..., 1:]
    x[0] = 8
    y[0, :, 1] = 2
    return [x, y]


@pytest.mark.parametrize(
    "work",
    [
        written_after_the_window,
        window_on_a_window,
        windows_side_by_side,
        window_whose_middle_is_gone,
        steps_and_new_axes,
    ],
    ids=lambda work: work.__name__,
)
def test_windows_are_written_through_as_in_numpy(work: Callable[[Any], list[Any]]) -> None:
    data = RANDOM.random((3, 4, 3, 2)).astype(np.float32)
    for found, expected in zip(work(mf.array(data)), work(data.copy()), strict=True):
        np.testing.assert_array_equal(found.numpy(), expected)


@pytest.mark.parametrize("kind", ["list", "array", "var", "mask", "rows by mask", "mixed"])
def test_what_an_array_picks_is_a_copy(kind: str) -> None:
    data = np.zeros((3, 4), np.float32)
    index: Any = {
        "list": [0, 2],
        "array": np.array([1, 1]),
        "var": mf.array([0, 2]),
        "mask": mf.array(np.ones((3, 4), bool)),
        "rows by mask": mf.array([True, False, True]),
        "mixed": (slice(None), [0, 1]),
    }[kind]
    x = mf.array(data)
    batch = x[index]
    batch[0] = 9
    batch[-1] += 1
    assert x.tolist() == data.tolist()
    assert batch[0].tolist() != x[index][0].tolist()


def test_a_window_bound_to_something_else_keeps_that() -> None:
    x = mf.zeros(2, 3)
    y = x[1]
    y.assign(mf.ones(3))
    x[0] = 4
    y[0] = 9
    assert y.tolist() == [9, 1, 1]
    assert x.tolist() == [[4, 4, 4], [9, 1, 1]]


def test_long_chains_of_windows_neither_recurse_nor_pile_up() -> None:
    x = mf.arange(5)
    y = x
    for _ in range(3000):
        y = y[::-1]
    y[0] = 77
    assert x.tolist() == [77, 1, 2, 3, 4]
    del x
    y = mf.arange(5)
    for _ in range(50):
        y = y[::-1]
    length, origin = 0, y._origin
    while origin is not None:
        length, origin = length + 1, origin.further
    assert length == 1


def test_gradients_through_windows() -> None:
    def changed(x: Any, v: Any) -> Any:
        y = x * 1
        w = y[1]
        y[1] = v * 2
        w[0] = v[1] * v[0]
        return y * y + w

    check_grads(changed, [RANDOM.random((2, 3)), RANDOM.random(3)], order=2)


@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_a_picked_row_of_a_computed_array(backend: str) -> None:
    """The picked row's number is read under a condition of its own; both dimensions of the index run as one."""
    if backend not in {status.descriptor.name for status in registry().backends() if status.usable}:
        pytest.skip(f"no backend {backend} here")
    with flag_scope(backend=backend):
        data = RANDOM.random((4, 4)).astype(np.float32)
        best = mf.argmax(mf.array(data), 0, keepdims=True)[0]
        found = best[[[0, -1], [-1, -1]], :].numpy()
        np.testing.assert_array_equal(found, data.argmax(0)[None][[[0, -1], [-1, -1]], :])
