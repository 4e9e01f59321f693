"""The operator families against PyTorch: values, and gradients of every floating argument, in float64."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import metafuse as mf
from metafuse.config import flag_scope

torch = pytest.importorskip("torch")


@pytest.fixture(autouse=True)
def reference():
    with flag_scope(backend="reference"):
        yield


def reals(*shape: int, seed: int = 0, low: float = -2.0, high: float = 2.0) -> Any:
    return np.random.default_rng(seed).uniform(low, high, shape)


def whole(*shape: int, top: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).integers(0, top, shape)


X, Y, P = reals(3, 4, 5), reals(3, 4, 5, seed=1), reals(3, 4, 5, low=0.1, high=3.0)
M, N, V = reals(4, 6), reals(6, 3, seed=2), reals(7)

#: name -> (arrays, function of mf, function of torch)
CASES: dict[str, tuple[list[Any], Callable[..., Any], Callable[..., Any]]] = {
    # element-wise
    "lgamma": ([P], mf.lgamma, torch.lgamma),
    "lgamma below zero": ([P - 3.3], mf.lgamma, torch.lgamma),
    "digamma": ([P], mf.digamma, torch.digamma),
    "digamma below zero": ([P - 3.3], mf.digamma, torch.digamma),
    "erfinv": ([X / 2.1], mf.erfinv, torch.erfinv),
    "hypot": ([X, Y], mf.hypot, torch.hypot),
    "atan2": ([X, Y], mf.atan2, torch.atan2),
    "clamp": ([X], lambda x: mf.clamp(x, -1, 0.5), lambda x: torch.clamp(x, -1, 0.5)),
    "lerp": ([X, Y, P], mf.lerp, torch.lerp),
    "addcmul": ([X, Y, P], lambda a, b, c: mf.addcmul(a, b, c, 0.3), lambda a, b, c: torch.addcmul(a, b, c, value=0.3)),
    "addcdiv": ([X, Y, P], mf.addcdiv, torch.addcdiv),
    "deg2rad": ([X], mf.deg2rad, torch.deg2rad),
    "exp2": ([X], mf.exp2, torch.exp2),
    "nan_to_num": (
        [np.array([1.0, np.nan, np.inf, -np.inf])],
        lambda x: mf.nan_to_num(x, 0.5, 7.0, -7.0),
        lambda x: torch.nan_to_num(x, 0.5, 7.0, -7.0),
    ),
    # scans
    "cumsum": ([X], lambda x: mf.cumsum(x, 1), lambda x: torch.cumsum(x, 1)),
    "cumsum long": ([reals(2, 99)], lambda x: mf.cumsum(x, 1), lambda x: torch.cumsum(x, 1)),
    "cumprod": ([X], lambda x: mf.cumprod(x, 0), lambda x: torch.cumprod(x, 0)),
    "cumprod of zeros": ([X * (Y > -1)], lambda x: mf.cumprod(x, 2), lambda x: torch.cumprod(x, 2)),
    "cummax": ([X], lambda x: mf.cummax(x, 1), lambda x: torch.cummax(x, 1)),
    "cummin": ([X], lambda x: mf.cummin(x, 2), lambda x: torch.cummin(x, 2)),
    "logcumsumexp": ([X * 50], lambda x: mf.logcumsumexp(x, 1), lambda x: torch.logcumsumexp(x, 1)),
    "diff": ([X], lambda x: mf.diff(x, 2, 1), lambda x: torch.diff(x, 2, 1)),
    # order
    "sort": ([X], lambda x: mf.sort(x, 1), lambda x: torch.sort(x, 1)),
    "sort down": ([X], lambda x: mf.sort(x, 0, True), lambda x: torch.sort(x, 0, True)),
    "topk": ([X], lambda x: mf.topk(x, 2, 2), lambda x: torch.topk(x, 2, 2)),
    "topk smallest": ([X], lambda x: mf.topk(x, 3, 1, False), lambda x: torch.topk(x, 3, 1, False)),
    "kthvalue": ([X], lambda x: mf.kthvalue(x, 2, 1), lambda x: torch.kthvalue(x, 2, 1)),
    "median": ([X], lambda x: mf.median(x, 2, True), lambda x: torch.median(x, 2, True)[0]),
    "median of all": ([X], mf.median, lambda x: torch.median(x).reshape(1)),
    # places
    "gather": ([X, whole(3, 7, 5, top=4)], lambda x, i: mf.gather(x, 1, i), lambda x, i: torch.gather(x, 1, i)),
    "scatter add": (
        [X, whole(3, 2, 5, top=4), Y], lambda x, i, s: mf.scatter(x, 1, i, s, "add"),
        lambda x, i, s: torch.scatter_reduce(x, 1, i, s[:, :2], "sum"),
    ),
    "scatter": (
        [X, np.argsort(Y, 1)[:, :2], Y], lambda x, i, s: mf.scatter(x, 1, i, s),
        lambda x, i, s: torch.scatter(x, 1, i, s[:, :2]),
    ),
    "scatter multiply": (
        [P, np.argsort(Y, 1)[:, :2], P], lambda x, i, s: mf.scatter(x, 1, i, s, "multiply"),
        lambda x, i, s: torch.scatter_reduce(x, 1, i, s[:, :2], "prod"),
    ),
    "index_select": (
        [X, whole(6, top=4)], lambda x, i: mf.index_select(x, 1, i), lambda x, i: torch.index_select(x, 1, i),
    ),
    "index_add": (
        [X, whole(6, top=4), reals(3, 6, 5)], lambda x, i, s: mf.index_add(x, 1, i, s),
        lambda x, i, s: torch.index_add(x, 1, i, s),
    ),
    "index_fill": (
        [X, whole(2, top=4)], lambda x, i: mf.index_fill(x, 1, i, 2.5), lambda x, i: torch.index_fill(x, 1, i, 2.5),
    ),
    "masked_fill": ([X, Y > 0], lambda x, m: mf.masked_fill(x, m, 3.0), lambda x, m: torch.masked_fill(x, m, 3.0)),
    "masked_select": ([X, Y > 0], mf.masked_select, torch.masked_select),
    "take": ([X, whole(2, 3, top=60)], mf.take, torch.take),
    "take_along_dim": (
        [X, whole(1, 2, 5, top=4)], lambda x, i: mf.take_along_dim(x, i, 1),
        lambda x, i: torch.take_along_dim(x, i, 1),
    ),
    "repeat_interleave": (
        [X, np.array([2, 0, 1, 3])], lambda x, n: mf.repeat_interleave(x, n, 1),
        lambda x, n: torch.repeat_interleave(x, n, 1),
    ),
    # arrangement
    "repeat": ([M], lambda x: x.repeat(2, 1, 3), lambda x: x.repeat(2, 1, 3)),
    "roll": ([X], lambda x: mf.roll(x, (1, -2), (0, 2)), lambda x: torch.roll(x, (1, -2), (0, 2))),
    "roll flat": ([X], lambda x: mf.roll(x, 7), lambda x: torch.roll(x, 7)),
    "rot90": ([X], lambda x: mf.rot90(x, 3, [0, 2]), lambda x: torch.rot90(x, 3, [0, 2])),
    "tril": ([X], lambda x: mf.tril(x, -1), lambda x: torch.tril(x, -1)),
    "triu": ([X], lambda x: mf.triu(x, 1), lambda x: torch.triu(x, 1)),
    "diag": ([V], lambda x: mf.diag(x, -2), lambda x: torch.diag(x, -2)),
    "diag of matrix": ([M], lambda x: mf.diag(x, 1), lambda x: torch.diag(x, 1)),
    "diagonal": ([X], lambda x: mf.diagonal(x, 1, 2, 0), lambda x: torch.diagonal(x, 1, 2, 0)),
    "diag_embed": ([M], lambda x: mf.diag_embed(x, -1, 0, 2), lambda x: torch.diag_embed(x, -1, 0, 2)),
    "movedim": ([X], lambda x: mf.movedim(x, (0, 1), (2, 0)), lambda x: torch.movedim(x, (0, 1), (2, 0))),
    "chunk": ([X], lambda x: mf.chunk(x, 3, 1), lambda x: torch.chunk(x, 3, 1)),
    "split": ([X], lambda x: mf.split(x, 2, 2), lambda x: torch.split(x, 2, 2)),
    "unbind": ([X], lambda x: mf.unbind(x, 1), lambda x: torch.unbind(x, 1)),
    "meshgrid": ([V, reals(3)], mf.meshgrid, lambda a, b: torch.meshgrid(a, b, indexing="ij")),
    # products and norms
    "outer": ([V, reals(3)], mf.outer, torch.outer),
    "cross": ([reals(4, 3), reals(4, 3, seed=1)], mf.cross, torch.linalg.cross),
    "kron": ([M, N], mf.kron, torch.kron),
    "tensordot": (
        [X, reals(5, 4, 2)], lambda a, b: mf.tensordot(a, b, [[1, 2], [1, 0]]),
        lambda a, b: torch.tensordot(a, b, [[1, 2], [1, 0]]),
    ),
    "addmm": (
        [reals(3), M, N], lambda c, a, b: mf.addmm(c, a, b, 0.5, 2),
        lambda c, a, b: torch.addmm(c, a, b, beta=0.5, alpha=2),
    ),
    "einsum": ([X, reals(5, 2)], lambda a, b: mf.einsum("bij,jk->kbi", a, b), lambda a, b: torch.einsum("bij,jk->kbi", a, b)),
    "norm": ([X], lambda x: mf.norm(x, 3, 1), lambda x: torch.linalg.vector_norm(x, 3, 1)),
    "norm largest": ([X], lambda x: mf.norm(x, "inf", 1), lambda x: torch.linalg.vector_norm(x, float("inf"), 1)),
    "normalize": ([X], lambda x: mf.normalize(x, dim=2), lambda x: torch.nn.functional.normalize(x, dim=2)),
    "cdist": ([M, reals(5, 6, seed=3)], mf.cdist, torch.cdist),
    "cdist 1": ([M, reals(5, 6, seed=3)], lambda a, b: mf.cdist(a, b, 1), lambda a, b: torch.cdist(a, b, 1.0)),
    "var": ([X], lambda x: mf.var(x, 1, None, True), lambda x: torch.var(x, 1, unbiased=True)),
    "std": ([X], lambda x: mf.std(x, 1), lambda x: torch.std(x, 1)),
    # counting
    "histc": ([X], lambda x: mf.histc(x, 7, -1.5, 1.5), lambda x: torch.histc(x.detach(), 7, -1.5, 1.5)),
    "bincount": (
        [whole(20, top=5), reals(20)], lambda x, w: mf.bincount(x, w, 8),
        lambda x, w: torch.bincount(x, w.detach(), 8),
    ),
    "searchsorted": (
        [np.sort(M, 1), reals(4, 3, seed=9)], mf.searchsorted,
        lambda a, b: torch.searchsorted(a.detach(), b.detach()),
    ),
    "isin": ([whole(3, 4, top=9), whole(4, top=9)], mf.isin, torch.isin),
    "unique": ([whole(20, top=5)], lambda x: mf.unique(x, True, True), lambda x: torch.unique(x, True, True, True)),
    "isclose": ([X, X + 1e-6 * Y], mf.isclose, torch.isclose),
}  # fmt: skip


def results(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (tuple, list)) else [value]


@pytest.mark.parametrize("name", CASES)
def test_values_and_gradients(name: str) -> None:
    arrays, ours, theirs = CASES[name]
    mine = [mf.array64(a) for a in arrays]
    other = [torch.tensor(a, requires_grad=a.dtype.kind == "f") for a in arrays]
    found, wanted = results(ours(*mine)), results(theirs(*other))
    assert len(found) == len(wanted)
    for y, z in zip(found, wanted):
        assert tuple(y.shape) == tuple(z.shape)
        np.testing.assert_allclose(y.numpy(), z.detach().numpy(), rtol=1e-10, atol=1e-12)
    floats = [
        (y, z, reals(*z.shape, seed=7))
        for y, z in zip(found, wanted)
        if z.is_floating_point() and z.requires_grad
    ]
    if not floats:
        return
    places = [k for k, a in enumerate(arrays) if a.dtype.kind == "f"]
    loss: Any = sum(((y * mf.array64(w)).sum() for y, _, w in floats), mf.array64([0.0]))
    torch.autograd.backward([(z * torch.tensor(w)).sum() for _, z, w in floats])
    for k, g in zip(places, mf.grad(loss, [mine[k] for k in places])):
        if other[k].grad is not None:
            np.testing.assert_allclose(g.numpy(), other[k].grad.numpy(), rtol=1e-9, atol=1e-11)
