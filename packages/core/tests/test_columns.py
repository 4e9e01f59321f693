"""Folds along columns that join the kernel folding along rows of the same arrays: which do, and that results stay right."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import metafuse as mf
from metafuse.config import flag_scope
from metafuse.kernel.ir import Kernel
from metafuse.kernel.spec import verify
from metafuse.runtime import executor

RANDOM = np.random.default_rng(0)
Array = np.ndarray[Any, Any]


def values(*shape: int) -> Array:
    return RANDOM.standard_normal(shape).astype(np.float32)


@pytest.fixture
def planned() -> Iterator[Callable[[Callable[[], object]], list[Kernel]]]:
    """The kernels that a program would run, from the backend that computes nothing."""

    def kernels(call: Callable[[], object]) -> list[Kernel]:
        mf.sync_all()
        call()
        return [step.kernel for step in executor.last_program[0].plan.steps]

    mf.sync_all()
    with flag_scope(backend="null"):
        yield kernels
        mf.sync_all()


def both_sums(x: mf.Var) -> None:
    mf.sync([x.sum(0), x.sum(1)])


@pytest.mark.parametrize("shape", [(4096, 256), (6000, 100), (8, 512, 64)])
def test_sums_of_rows_and_columns_read_an_array_once(planned: Any, shape: tuple[int, ...]) -> None:
    x = mf.array(values(*shape))
    rows = tuple(range(len(shape) - 1))
    kernels = planned(lambda: mf.sync([x.sum(rows), x.sum(-1)]))
    assert [kernel.serial for kernel in kernels] == [1, 0]  # then the partial sums are added up
    for kernel in kernels:
        verify(kernel)


def test_the_gradients_of_a_normalisation_are_one_pass(planned: Any) -> None:
    layer, x = mf.nn.LayerNorm(256), mf.array(values(2048, 256)).start_grad()
    y, upstream = layer(x).sync(), mf.array(values(2048, 256))
    wanted = [x, layer.weight, layer.bias]
    kernels = planned(lambda: mf.sync(mf.grad(y * upstream, wanted)))
    assert [kernel.serial for kernel in kernels] == [1, 0]


def test_what_does_not_fit_stays_apart(planned: Any) -> None:
    x, other = mf.array(values(4096, 256)), mf.array(values(4096, 256))
    apart = [
        lambda: mf.sync([x.sum(0), other.sum(1)]),  # nothing is shared
        lambda: mf.sync([mf.array(values(64, 32)).sum(0), x.sum(1)]),
        lambda: both_sums(mf.array(values(1 << 15, 8))),  # rows too short for vectors
        lambda: both_sums(mf.array(values(16, 1 << 15))),  # too many columns for the cache
        lambda: both_sums(mf.array(values(100, 64))),  # too little work
        lambda: mf.sync([x.max(0), x.sum(1)]),  # not a sum
        lambda: both_sums(mf.array(values(256, 4096)).transpose(1, 0)),  # rows are not contiguous
    ]
    for call in apart:
        assert all(kernel.serial == 0 for kernel in planned(call))


def test_a_column_sum_that_needs_the_row_sums_comes_later(planned: Any) -> None:
    x = mf.array(values(4096, 256))

    def call() -> None:
        share = x / x.sum(1, keepdims=True)
        mf.sync([share.sum(0), x.sum(1)])

    kernels = planned(call)
    assert len(kernels) >= 2 and all(kernel.serial == 0 for kernel in kernels)


@pytest.mark.parametrize("shape", [(4096, 64), (1000, 300), (4097, 70), (8, 512, 96), (64, 33, 128)])
def test_values(shape: tuple[int, ...]) -> None:
    data, weights = values(*shape), values(shape[-1])
    x, w = mf.array(data), mf.array(weights)
    rows = tuple(range(len(shape) - 1))
    product = x * w
    down, squares, across = (product * 2).sum(rows) + 1, (x * x).sum(rows), product.sum(-1)
    mf.sync([down, squares, across, product])
    exact = data.astype(np.float64) * weights
    np.testing.assert_allclose(across.numpy(), exact.sum(-1), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(down.numpy(), 2 * exact.sum(rows) + 1, rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(squares.numpy(), (data.astype(np.float64) ** 2).sum(rows), rtol=1e-5)


def test_gradients_of_a_normalisation() -> None:
    data, upstream, weight = values(1024, 384), values(1024, 384), values(384)
    x, w, b = (mf.array(a).start_grad() for a in (data, weight, values(384)))
    layer = mf.nn.LayerNorm(384)
    layer.weight, layer.bias = w, b
    gradients = mf.grad(layer(x) * mf.array(upstream), [x, w, b])
    mf.sync(gradients)
    exact, g = data.astype(np.float64), upstream.astype(np.float64)
    spread = np.sqrt(exact.var(1, keepdims=True) + 1e-5)
    scaled = (exact - exact.mean(1, keepdims=True)) / spread
    inner = g * weight
    towards = inner - inner.mean(1, keepdims=True) - scaled * (inner * scaled).mean(1, keepdims=True)
    for got, want in zip(gradients, (towards / spread, (g * scaled).sum(0), g.sum(0)), strict=True):
        np.testing.assert_allclose(got.numpy(), want, rtol=1e-4, atol=2e-4)
