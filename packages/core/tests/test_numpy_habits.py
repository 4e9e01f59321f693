"""What users of NumPy write: its functions on Vars, its names of arguments, Python's numeric protocols."""

from __future__ import annotations

import math
from collections import deque

import numpy as np
import pytest

import metafuse as mf
from metafuse.errors import ArgumentError, DTypeError, ShapeError

PLAIN = np.array([[1.5, 5.25, -2.5], [4.0, 3.0, 6.75]], np.float32)
X = mf.array(PLAIN)


@pytest.mark.parametrize(
    "name", ["sum", "mean", "max", "min", "std", "var", "prod", "all", "any", "median", "cumsum", "ptp"]
)
@pytest.mark.parametrize("axis", [None, 0, -1])
def test_functions_of_numpy_mean_what_numpy_says(name, axis):
    function = getattr(np, name)
    found = function(X, axis=axis)
    assert type(found) is type(function(PLAIN, axis=axis))
    np.testing.assert_array_equal(found, function(PLAIN, axis=axis))


@pytest.mark.parametrize(
    "call",
    [
        lambda x: np.concatenate([x, PLAIN, x], axis=1),
        lambda x: np.stack(deque([x, x])),
        lambda x: np.block([[x], [x]]),
        lambda x: np.squeeze(x[None], axis=0),
        lambda x: np.transpose(x, (1, 0)),
        lambda x: np.sum(x, axis=(0, 1), keepdims=True, dtype=np.float64),
        lambda x: np.reshape(x, x.T.shape),
        lambda x: np.where(x > 2, x, 0),
        lambda x: np.linalg.norm(x),
        lambda x: np.add(x, PLAIN, out=np.empty_like(PLAIN)),
        lambda x: np.round(x, 1),
    ],
)
def test_functions_of_numpy_take_vars_anywhere(call):
    np.testing.assert_array_equal(call(X), call(PLAIN))


def test_where_numpy_answers_several_arrays():
    for found, wanted in zip(np.nonzero(X > 3), np.nonzero(PLAIN > 3), strict=True):
        np.testing.assert_array_equal(found, wanted)


def test_what_numpy_would_write_to_is_refused():
    x = mf.zeros(2)
    for call in (
        lambda: np.copyto(x, 1),
        lambda: np.copyto(dst=x, src=1),
        lambda: np.put(x, 0, 1),
        lambda: np.nan_to_num(x, False),
        lambda: np.cumsum(x, out=x),
        lambda: np.sum(X, 0, None, x),
        lambda: np.sum(PLAIN, 0, None, x),
        lambda: np.dot(x, x, x),
        lambda: np.concatenate([x], 0, x),
        lambda: np.einsum("i->i", x, out=x),
    ):
        with pytest.raises(
            DTypeError, match=r"^\[np\.\w+\] .* a Var can't; call it with x\.numpy\(\), then x\.assign"
        ):
            call()
    with pytest.raises(TypeError):  # NumPy's own
        np.add(x, x, x)
    assert x.tolist() == [0, 0]


def test_arrays_that_numpy_writes_to_may_get_values_of_vars():
    out = np.zeros(X.shape[1:], np.float32)
    assert np.sum(X, 0, None, out) is out
    np.testing.assert_allclose(out, PLAIN.sum(0))
    np.copyto(out, X[0])
    np.testing.assert_array_equal(out, PLAIN[0])
    np.testing.assert_array_equal(np.nan_to_num(mf.array([np.nan, 1.0])), [0, 1])


def test_asking_numpy_for_the_shape_computes_nothing():
    x = mf.ones(2, 3) * 2
    assert (np.shape(x), np.ndim(x), np.size(x), np.size(x, 1)) == ((2, 3), 2, 6, 3)
    assert x._node.buffer is None


@pytest.mark.parametrize("shape", [(4,), (2, 3), (2, 3, 4)])
def test_t_reverses_all_dimensions(shape):
    value = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    x = mf.array(value)
    np.testing.assert_array_equal(x.T.numpy(), value.T)
    weights = mf.array(value.T.copy())
    np.testing.assert_array_equal(mf.grad(x.T * weights, x).numpy(), value)


@pytest.mark.parametrize("digits", [None, 0, 1, 2, -1])
def test_rounding(digits):
    value = np.array([0.125, 2.5, -2.675, 1234.5678, 1e30, np.inf, np.nan], np.float32)
    found = round(mf.array(value), digits)
    np.testing.assert_allclose(found.numpy(), np.round(value, digits or 0), rtol=1e-6)
    assert found.dtype == "float32"


def test_rounding_of_integers_and_half_types():
    assert round(mf.array([15, 25, -16]), -1).tolist() == [20, 20, -20]
    assert round(mf.array([15, 25]), 2).tolist() == [15, 25]
    assert round(mf.array([1.123456]).float16(), 6).numpy() == np.float16(1.123456)
    assert mf.array([1.26]).round(decimals=1).numpy() == np.float32(1.3)
    with pytest.raises(ArgumentError, match=r"\[round\] decimals must be in -30\.\.30, got 31"):
        round(X, 31)


def test_divmod_either_way():
    for one, other in ((X, 2), (7, X), (X, mf.array(PLAIN + 3))):
        quotient, rest = divmod(one, other)
        plain = [np.asarray(v) for v in (one, other)]
        wanted = np.divmod(*plain)
        np.testing.assert_array_equal(quotient.numpy(), wanted[0])
        np.testing.assert_allclose(rest.numpy(), wanted[1], rtol=1e-6)


def test_math_of_one_element():
    x = mf.array([-2.5])
    assert (math.floor(x), math.ceil(x), math.trunc(x)) == (-3, -2, -2)
    assert math.floor(mf.array64([2**62 + 1])) == 2**62 + 1
    with pytest.raises(ArgumentError, match=r"\[item\] needs exactly one element, got shape \[2, 3\]"):
        math.trunc(X)


def test_further_methods():
    assert (X.itemsize, X.ravel().shape, X.expand_dims(1).shape) == (4, (6,), (2, 1, 3))
    assert X.trace().item() == PLAIN.trace()
    np.testing.assert_array_equal(X.take([[2, 0]], axis=1).numpy(), PLAIN.take([[2, 0]], axis=1))
    x = mf.zeros(2)
    x.fill(3)
    assert x.tolist() == [3, 3]
    y = +x
    y[0] = 1.0
    assert (x.tolist(), y.tolist()) == ([3, 3], [1, 3])
    row = mf.array([1.0, 3.0])
    np.testing.assert_array_equal(row.searchsorted(X).numpy(), np.array([1.0, 3.0]).searchsorted(PLAIN))


@pytest.mark.parametrize("shape", [(2, 3), (2, 3, 4), (2, 1, 0, 3)])
def test_mt_exchanges_the_last_two_dimensions(shape):
    x = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    np.testing.assert_array_equal(mf.array(x).mT.numpy(), np.swapaxes(x, -1, -2))
    with pytest.raises(ShapeError, match=r"\[mT\] needs at least two dimensions, got shape \[2\]"):
        _ = mf.ones(2).mT


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "int8", "int64", "bool"])
def test_bytes(dtype):
    x = X.astype(dtype).T
    assert len(x.tobytes()) == x.nbytes == 6 * x.itemsize
    if dtype != "bfloat16":
        assert bytes(x) == x.tobytes() == np.ascontiguousarray(x.numpy()).tobytes()


def test_one_element_by_its_index():
    assert (X.item(4), X.item(-1), X.item(1, 2), X.item((1, 0))) == (
        PLAIN.item(4), PLAIN.item(-1), PLAIN.item(1, 2), PLAIN.item((1, 0)),
    )  # fmt: skip
    for index in [(6,), (0, 9), (0, 0, 0), ("a",), (1.5,)]:
        with pytest.raises(ArgumentError, match=r"\[item\] no element of shape \[2, 3\] is at "):
            X.item(*index)


def test_dot_of_any_ranks():
    shapes = [(3,), (2, 3), (3, 2), (4, 2, 3), (2, 3, 5), (1, 3), (3, 1)]
    for a in shapes:
        for b in shapes:
            x, y = (np.random.default_rng(0).standard_normal(s).astype(np.float32) for s in (a, b))
            if a[-1] != b[max(len(b) - 2, 0)]:
                with pytest.raises(ShapeError, match=r"\[dot\] extents of .* must agree"):
                    mf.array(x).dot(mf.array(y))
                continue
            wanted = np.dot(x, y)
            found = mf.array(x).dot(mf.array(y))
            assert tuple(found.shape) == (wanted.shape or (1,))
            np.testing.assert_allclose(found.numpy().reshape(wanted.shape), wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("call", "same"),
    [
        (lambda: X.sum(axis=0), lambda: X.sum(dim=0)),
        (lambda: X.mean(axis=(0, 1), keepdim=True), lambda: X.mean(dims=(0, 1), keepdims=True)),
        (lambda: X.reduce_maximum(axes=(1,)), lambda: X.reduce("maximum", 1)),
        (lambda: X.std(axis=1), lambda: X.std(1)),
        (lambda: X.argmax(axis=1)[0], lambda: X.argmax(1)[0]),
        (lambda: X.sort(axis=0)[0], lambda: X.sort(0)[0]),
        (lambda: X.cumsum(axis=0), lambda: X.cumsum(0)),
        (lambda: X.softmax(axis=0), lambda: X.softmax(0)),
        (lambda: mf.nn.log_softmax(X, axis=0), lambda: mf.nn.log_softmax(X, 0)),
        (lambda: mf.concatenate([X, X], axis=1), lambda: mf.concat([X, X], 1)),
        (lambda: mf.stack([X, X], axis=1), lambda: mf.stack([X, X], 1)),
        (lambda: X.unsqueeze(axis=1).squeeze(axis=1), lambda: X),
        (lambda: X.flip(axis=1), lambda: X.flip(1)),
        (lambda: X.roll(1, axis=1), lambda: X.roll(1, 1)),
        (lambda: X.transpose(axes=(1, 0)), lambda: X.T),
        (lambda: X.transpose(axes=None), lambda: X.T),
        (lambda: X.swapaxes(axis1=0, axis2=1), lambda: X.T),
        (lambda: X.clip(min=0, max=4), lambda: X.clamp(0, 4)),
        (lambda: X.clone().sum_(axis=1), lambda: X.sum(1)),
    ],
)
def test_other_names_of_arguments(call, same):
    for _ in range(2):  # as recorded, and as remembered
        np.testing.assert_array_equal(call().numpy(), same().numpy())


def test_an_argument_by_two_names_is_refused():
    with pytest.raises(ArgumentError, match=r"\[sum\] dim and axis mean the same, got 0 and 1; give one"):
        X.sum(dim=0, axis=1)
    with pytest.raises(ArgumentError, match=r"\[squeeze\] axis and dim mean the same, got 0 and 0; give one"):
        X.squeeze(axis=0, dim=0)
    with pytest.raises(TypeError, match="multiple values"):
        X.sum(0, axis=1)


@pytest.mark.parametrize("suffix", ["pkl", "npz", "npy", "safetensors", "pth"])
def test_masked_elements_are_refused_where_they_would_be_taken_for_values(tmp_path, suffix):
    masked = np.ma.masked_array(PLAIN, [[0, 1, 0], [0, 0, 1]])
    layer = mf.nn.Linear(3, 2)
    for call in (
        lambda: mf.array(masked),
        lambda: mf.array64(masked),
        lambda: mf.array([PLAIN, masked]),
        lambda: mf.array([1, np.ma.masked]),
        lambda: X + masked,
        lambda: mf.sum(masked),
        lambda: mf.data.utils.collate_batch([masked, masked]),
        lambda: layer.load_state_dict({"weight": masked}),
        lambda: mf.save(masked if suffix == "npy" else {"a": masked}, str(tmp_path / f"x.{suffix}")),
    ):
        with pytest.raises(
            DTypeError, match=r"^\[\w+\] .* has \d masked elements? of \d.* give \.filled\(value\)"
        ):
            call()
    np.testing.assert_array_equal(mf.array(masked.filled(0)).numpy(), masked.filled(0))
    assert mf.array(np.ma.masked_array([1, 2])).tolist() == [1, 2]
