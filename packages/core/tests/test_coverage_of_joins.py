"""Joined arrays are written once: the start value of a chain of scatters that overwrites all of it is never computed."""

from __future__ import annotations

import numpy as np
import pytest

import metafuse as mf
from metafuse.runtime.executor import last_program

random = np.random.default_rng(0)


def launches(make):
    y = make().sync()
    steps = last_program[0].plan.steps
    return y.numpy(), len(steps)


@pytest.mark.parametrize("dim", [0, 1, 2])
def test_joined_arrays_have_a_kernel_each_and_none_for_zeros(dim):
    shapes = [(3, 4, 5), (3, 4, 5), (3, 4, 5)]
    values = [random.standard_normal(shape).astype(np.float32) for shape in shapes]
    arrays = [mf.array(v) for v in values]
    found, count = launches(lambda: mf.concat(arrays, dim))
    np.testing.assert_array_equal(found, np.concatenate(values, dim))
    assert count == 3
    found, count = launches(lambda: mf.stack(arrays, dim))
    np.testing.assert_array_equal(found, np.stack(values, dim))
    assert count == 3


def test_extents_of_one():
    values = [random.standard_normal((1, 2, 1)).astype(np.float32) for _ in range(3)]
    found, count = launches(lambda: mf.concat([mf.array(v) for v in values], 0))
    np.testing.assert_array_equal(found, np.concatenate(values))
    assert count == 3


def test_what_is_left_out_keeps_its_start_value():
    base = mf.array(np.full((4, 6), 7, np.float32))
    left, right = mf.ones(4, 2), mf.zeros(4, 3)
    y = mf.concat([left, right, base[:, 5:]], 1) + 0
    np.testing.assert_array_equal(y.numpy(), [[1, 1, 0, 0, 0, 7]] * 4)
    base[:, 0:2] = left
    base[:, 3:6] = right
    np.testing.assert_array_equal(base.numpy(), [[1, 1, 7, 0, 0, 0]] * 4)


def test_overlapping_parts_keep_their_order():
    base = mf.array(np.zeros((3, 8), np.float32))
    base[:, 0:5] = 1
    base[:, 3:8] = 2
    np.testing.assert_array_equal(base.numpy(), [[1, 1, 1, 2, 2, 2, 2, 2]] * 3)


def test_gradients_of_joins():
    a, b = mf.array(np.ones((2, 3), np.float32)), mf.array(np.ones((2, 2), np.float32))
    y = mf.concat([a, b], 1)
    slope = mf.array(np.arange(10, dtype=np.float32).reshape(2, 5))
    da, db = mf.grad((y * slope).sum(), [a, b])
    np.testing.assert_array_equal(da.numpy(), [[0, 1, 2], [5, 6, 7]])
    np.testing.assert_array_equal(db.numpy(), [[3, 4], [8, 9]])
