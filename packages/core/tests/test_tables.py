"""Functions and methods that are no operator records, against NumPy: every type, views, empty arrays, extents of 1, gradients.

A row is (function of Vars, the same of NumPy arrays, its arrays); ``check_composition`` does with it what the
conformance kit does with a record. Rows of ``FLAT`` have no gradient, and that is checked too.
"""

from __future__ import annotations

import copy

import numpy as np
import pytest

import metafuse as mf
from metafuse import nn, optim
from metafuse.linalg import complex_eig, complex_inv, complex_qr, complex_svd
from metafuse.ops.registry import Sample, Tensor
from metafuse.sparse import SparseVar
from metafuse.testing.compositions import check_composition
from metafuse.weightnorm import WeightNorm

X = Tensor((3, 4))
POSITIVE = Tensor((3, 4), "float", 0.5, 2.0)
SQUARE = Tensor((3, 3), "float", -1.0, 1.0, dominant=True)
PLACES = Tensor((2, 5), "int32", 0, 2)


def changed(x, action):
    """A copy of ``x`` after ``action``, which changes it."""
    held = x.clone()
    action(held)
    return held


def power_of(x, y):
    x **= y
    return x


def times(x, y):
    x @= y
    return x


def parts(z):
    """Real and imaginary part: of ours two Vars, of NumPy's two arrays."""
    return z.real, z.imag


def put(x, at, y):
    x = x.copy()
    x[at] = y
    return x


def normalised(g, v):
    """A linear layer's weight from its length and direction."""
    layer = nn.Linear(4, 3, bias=False)
    rule = WeightNorm.apply(layer, "weight", 0)
    layer.weight_g, layer.weight_v = g, v
    return rule.compute_weight(layer)


def squared_gradient(x):
    """What an optimizer keeps as the gradient of the sum of cubes."""
    optimizer = optim.SGD([x], 0.1)
    optimizer.backward((x * x * x).sum())
    return x.opt_grad(optimizer)


def scattered(values):
    return SparseVar([[0, 2, 2], [1, 0, 0]], values, [3, 2]).to_dense()


def dense(values):
    found = np.zeros((3, 2))
    np.add.at(found, ([0, 2, 2], [1, 0, 0]), values)
    return found


def one_hot_log_prob(p):
    return mf.distributions.OneHotCategorical(p).log_prob(mf.array64(np.eye(3)))


#: name -> (ours, NumPy's, arrays)
SMOOTH = {
    "cat": (lambda a, b: mf.cat([a, b], 1), lambda a, b: np.concatenate([a, b], 1), X, Tensor((3, 2))),
    "concatenate": (
        lambda a, b: mf.concatenate([a, b]),
        lambda a, b: np.concatenate([a, b]),
        X,
        Tensor((2, 4)),
    ),
    "pow": (mf.pow, np.power, POSITIVE, X),
    "pow-method": (lambda x, y: x.pow(y), np.power, POSITIVE, X),
    "pow_": (lambda x, y: changed(x, lambda v: v.pow_(y)), np.power, POSITIVE, X),
    "ipow": (lambda x: power_of(x.clone(), 3), lambda x: x**3, X),
    "imatmul": (lambda x, y: times(x.clone(), y), np.matmul, X, Tensor((4, 4))),
    "reflected": (
        lambda x: (1 + x, 2 - x, 3 * x, 1 / x, 2**x, 7 % x, 5 // x),
        lambda x: (1 + x, 2 - x, 3 * x, 1 / x, 2**x, 7 % x, 5 // x),
        POSITIVE,
    ),
    "reindex": (lambda x: x.reindex([x.shape[1], x.shape[0]], ["i1", "i0"]), np.transpose, X),
    "reindex-pad": (
        lambda x: mf.reindex(x, [x.shape[0] + 2, x.shape[1]], ["i0-1", "i1"], 7.0),
        lambda x: np.pad(x, ((1, 1), (0, 0)), constant_values=7.0),
        X,
    ),
    "reindex_reduce": (lambda x: x.reindex_reduce("add", [x.shape[1]], ["i1"]), lambda x: x.sum(0), X),
    "reindex_reduce-maximum": (
        lambda x: mf.reindex_reduce(x, "maximum", [x.shape[0]], ["i0"]),
        lambda x: x.max(1),
        Tensor((3, 4), distinct=True),
    ),
    "reindex_var": (
        lambda x, k: mf.reindex_var(x, [k, k]),
        lambda x, k: x[k, k],
        Tensor((3, 3)),
        Tensor((5,), "int32", 0, 2),
    ),
    "reindex_var-method": (
        lambda x, k: x.reindex_var([k]),
        lambda x, k: x[k],
        Tensor((3,)),
        PLACES,
    ),
    "where": (lambda c, x, y: mf.where(c, x, y), np.where, Tensor((3, 4), "bool"), X, X),
    "where-method": (lambda c, x, y: c.where(x, y), np.where, Tensor((3, 4), "bool"), X, X),
    "setitem": (
        lambda x, y: changed(x, lambda v: mf.setitem(v, (slice(None), 1), y)),
        lambda x, y: put(x, (slice(None), 1), y),
        X,
        Tensor((3,)),
    ),
    "setitem-method": (
        lambda x, y: changed(x, lambda v: v.setitem(slice(1, None, 2), y)),
        lambda x, y: put(x, slice(1, None, 2), y),
        Tensor((5,)),
        Tensor((2,)),
    ),
    "setitem-backwards": (
        lambda x, y: changed(x, lambda v: v.__setitem__((slice(None, None, -1), None), y)),
        lambda x, y: put(x, (slice(None, None, -1), None), y),
        Tensor((5,)),
        Tensor((5, 1)),
    ),
    "copy": (copy.copy, np.copy, X),
    "iter": (lambda x: tuple(x), lambda x: tuple(x), Tensor((3, 2))),
    "assign": (lambda x, y: changed(x, lambda v: v.assign(y * 2)), lambda x, y: 2 * y + 0 * x, X, X),
    "swap": (lambda x, y: x.clone().swap(y.clone()), lambda x, y: y, X, X),
    "stop_fuse": (lambda x: (x * 2).stop_fuse() + 1, lambda x: 2 * x + 1, X),
    "register_hook": (lambda x: changed(x, lambda v: v.register_hook(lambda g: None)), lambda x: x, X),
    "opt_grad": (squared_gradient, lambda x: 3 * x * x, X),
    "view_as_complex": (
        lambda x: parts(nn.view_as_complex(x) * nn.view_as_complex(x)),
        lambda x: parts((x[..., 0] + 1j * x[..., 1]) ** 2),
        Tensor((3, 2)),
    ),
    "view_as_real": (
        lambda x: nn.view_as_real(nn.ComplexNumber(x, x * 2)),
        lambda x: np.stack([x, 2 * x], -1),
        X,
    ),
    "polar": (lambda r, a: parts(nn.polar(r, a)), lambda r, a: parts(r * np.exp(1j * a)), POSITIVE, X),
    "complex_inv": (
        lambda a, b: parts(complex_inv(nn.ComplexNumber(a, b))),
        lambda a, b: parts(np.linalg.inv(a + 1j * b)),
        SQUARE,
        SQUARE,
    ),
    "complex_svd": (
        lambda a, b: complex_svd(nn.ComplexNumber(a, b))[1],
        lambda a, b: np.linalg.svd(a + 1j * b, compute_uv=False),
        SQUARE,
        Tensor((3, 3)),
    ),
    "complex_qr": (
        lambda a, b: squared(complex_qr(nn.ComplexNumber(a, b))[1]),
        lambda a, b: np.abs(np.linalg.qr(a + 1j * b)[1]) ** 2,
        SQUARE,
        Tensor((3, 3)),
    ),
    "complex_eig": (
        lambda a, b: squared(complex_eig(nn.ComplexNumber(a, b))[0]).sum(-1),
        lambda a, b: (np.abs(np.linalg.eigvals(a + 1j * b)) ** 2).sum(-1, keepdims=True),
        SQUARE,
        Tensor((3, 3), "float", -0.3, 0.3),
    ),
    "sparse": (scattered, dense, Tensor((3,))),
    "weight-norm": (
        normalised,
        lambda g, v: g * v / np.linalg.norm(v, axis=1, keepdims=True),
        Tensor((3, 1)),
        X,
    ),
    "one-hot-log-prob": (
        one_hot_log_prob,
        lambda p: np.log(p / p.sum()),
        Tensor((3,), "float", 0.2, 1.0),
    ),
    "one-hot-entropy": (
        lambda p: mf.distributions.OneHotCategorical(p).entropy(),
        lambda p: -(p / p.sum() * np.log(p / p.sum())).sum(keepdims=True),
        Tensor((3,), "float", 0.2, 1.0),
    ),
    "module-list": (
        lambda x: nn.ModuleList([nn.Tanh(), nn.Sigmoid()])(x),
        lambda x: 1 / (1 + np.exp(-np.tanh(x))),
        X,
    ),
    "parameter-list": (lambda x, y: nn.ParameterList([x, y])[1] * 2, lambda x, y: 0 * x + 2 * y, X, X),
    "parameter-dict": (lambda x: nn.ParameterDict({"a": x})["a"] * 3, lambda x: 3 * x, X),
    "make_module": (lambda x: nn.make_module(lambda v, k: v * k)(3.0)(x), lambda x: 3 * x, X),
}


def squared(z):
    """The square of the absolute value, which has a gradient at 0."""
    return z.real * z.real + z.imag * z.imag


#: rows whose answers have no gradient path
FLAT = {
    "detach": (mf.detach, lambda x: x, X),
    "detach-method": (lambda x: (x * 2).detach(), lambda x: 2 * x, X),
    "detach_inplace": (lambda x: (x * 2).detach_inplace(), lambda x: 2 * x, X),
    "update": (lambda x, y: x.clone().stop_grad().update(y), lambda x, y: y + 0 * x, X, X),
    "index_var": (lambda x: mf.index_var(x, 1), lambda x: np.indices(x.shape)[1], X),
    "index_var-method": (lambda x: tuple(x.index_var()), lambda x: tuple(np.indices(x.shape)), X),
    "index": (lambda x: x.index(0), lambda x: np.indices(x.shape)[0], X),
    "candidate": (
        lambda x: x.candidate("@x(i) < @x(j)"),
        lambda x: np.flatnonzero(x == np.maximum.accumulate(x)),
        Tensor((7,), "int32", 0, 9),
    ),
    "new_empty": (lambda x: x.new_empty([2, 0]).stop_grad(), lambda x: np.zeros((2, 0), x.dtype), X),
}


@pytest.mark.parametrize("name", SMOOTH)
def test_function(name):
    ours, theirs, *arrays = SMOOTH[name]
    check_composition(
        ours, theirs, [Sample(tuple(arrays))], name=name, fixed=(2,) if "complex" in name else ()
    )


@pytest.mark.parametrize("name", ["dropout", "dropout2d", "droppath"])
@pytest.mark.parametrize("shape", [(8, 6, 5, 4), (1, 1, 1, 1), (0, 3, 2, 2)])
def test_dropouts(name, shape):
    """Each part that is dropped together is zero or divided by what stays, and so is its gradient."""
    parts = {"dropout": shape, "dropout2d": (*shape[:2], 1, 1), "droppath": (shape[0], 1, 1, 1)}[name]
    value = np.random.default_rng(0).uniform(1, 2, shape)
    mf.set_global_seed(0)  # with which some parts stay and some go, however few they are
    with mf.flag_scope(backend="reference"):
        x = mf.array64(value)[..., ::-1]
        y = getattr(nn, name)(x, 0.25, True)
        found, slope = y.numpy(), mf.grad((y * y).sum(), x).numpy()
        np.testing.assert_array_equal(getattr(nn, name)(x, 0.25, False).numpy(), value[..., ::-1])
    mask = found / value[..., ::-1]
    np.testing.assert_allclose(mask, np.broadcast_to(mask[tuple(slice(0, n) for n in parts)], shape))
    np.testing.assert_allclose(mask, np.where(mask > 0.5, 4 / 3, 0))
    np.testing.assert_allclose(slope, 2 * found * mask)
    assert mask.size < 100 or 0 < (mask == 0).mean() < 1


@pytest.mark.parametrize("name", FLAT)
def test_function_without_gradient(name):
    ours, theirs, *arrays = FLAT[name]
    check_composition(ours, theirs, [Sample(tuple(arrays))], name=name, gradient=False)


# -- what becomes of the numbers in Python ------------------------------------------------------------------------
VALUES = [
    np.array([[1.5, -2.0], [0.25, 3.0]]),
    np.zeros((0, 3), np.float32),
    np.array([7], np.int16),
    np.array([True, False]),
    np.arange(12, dtype=np.int64).reshape(3, 4)[::-1, ::2],
    np.arange(6, dtype=np.float16).reshape(2, 3).T,
]


@pytest.mark.parametrize("number", range(len(VALUES)))
def test_reading(number):
    value = VALUES[number]
    x = mf.array64(value)
    for read in (
        np.asarray(x),
        x.__array__(),
        mf.dfs_to_numpy([x])[0],
        x.data,
        x.fetch_sync(),
        copy.deepcopy(x).numpy(),
    ):
        np.testing.assert_array_equal(read, value)
        assert read.dtype == value.dtype
    assert x.tolist() == mf.tolist(x) == value.tolist()
    assert x.__array__(np.float32).dtype == np.float32
    rebuild, arguments = x.__reduce__()
    np.testing.assert_array_equal(rebuild(*arguments).numpy(), value)
    if value.size == 1:
        assert mf.to_float(x) == float(x) == float(value[0])
        assert mf.to_int(x) == int(x) == int(value[0])
        assert mf.to_bool(x) == bool(x) == bool(value[0])
    shown = mf.attrs(x)
    assert shown == x.attrs()
    assert tuple(shown["shape"]) == value.shape
    assert shown["dtype"] == value.dtype.name


def test_a_deep_copy_is_a_leaf_of_its_own():
    x = mf.array([2.0])
    y = copy.deepcopy(x * 3)
    assert y.requires_grad
    assert mf.grad(y * y, y).item() == 12
    with pytest.warns(UserWarning, match="does not depend"):
        assert mf.grad(y * y, x).item() == 0


@pytest.mark.parametrize(
    "dtype", ["int8", "int16", "int32", "int64", "uint8", "float16", "float32", "float64"]
)
def test_limits(dtype):
    ours, theirs = (
        (mf.iinfo(dtype), np.iinfo(dtype)) if "int" in dtype else (mf.finfo(dtype), np.finfo(dtype))
    )
    np.testing.assert_array_equal([ours.min, ours.max, ours.bits], [theirs.min, theirs.max, theirs.bits])
