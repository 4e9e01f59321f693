"""What the conformance kit does not see of the operator families: odd values, names, in-place variants, Python's protocols."""

from __future__ import annotations

import inspect
from statistics import NormalDist

import numpy as np
import pytest

import metafuse as mf
from metafuse.config import flag_scope
from metafuse.errors import ArgumentError, DTypeError, IndexExpressionError, ShapeError
from metafuse.ops.registry import all_operators, function_named
from metafuse.testing import check_grads


@pytest.fixture(autouse=True)
def reference():
    with flag_scope(backend="reference"):
        yield


# -- scans ------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("n", [1, 2, 31, 32, 33, 64, 65, 1023, 1025, 33000])
@pytest.mark.parametrize("name", ["cumsum", "cumprod", "cummax", "cummin"])
def test_scans_across_the_limits_of_blocks(name, n):
    x = np.random.default_rng(n).uniform(0.9, 1.1, (2, n))
    ufunc = {"cumsum": np.add, "cumprod": np.multiply, "cummax": np.maximum, "cummin": np.minimum}[name]
    found = getattr(mf, name)(mf.array64(x), 1)
    value = (found[0] if isinstance(found, tuple) else found).numpy()
    np.testing.assert_allclose(value, ufunc.accumulate(x, 1), rtol=1e-10)


def test_a_scan_has_the_last_dimension_by_default():
    x = np.arange(6.0, dtype=np.float32).reshape(2, 3)
    np.testing.assert_array_equal(mf.cumsum(mf.array(x)).numpy(), x.cumsum(1))


def test_running_sums_of_bool_and_integers():
    assert mf.cumsum(mf.array([True, False, True])).numpy().tolist() == [1, 1, 2]
    assert mf.cumsum(mf.array([1, 2], "int8")).dtype == "int8"


def test_running_sums_are_as_exact_as_blocks():
    x = mf.full([200_000], 0.1)
    assert abs(mf.cumsum(x).numpy()[-1] - 20000.0) < 0.02


@pytest.mark.parametrize("zeros", [(), (2,), (0, 3), (1, 2, 4)])
def test_gradient_of_running_products_with_zeros(zeros):
    x = np.array([0.5, -1.5, 2.0, 0.7, 1.1])
    x[list(zeros)] = 0
    g = np.array([1.0, 2.0, -1.0, 0.5, 3.0])
    v = mf.array64(x)
    found = mf.grad((mf.cumprod(v) * mf.array64(g)).sum(), v).numpy()
    wanted = [sum(g[j] * np.prod(np.delete(x[: j + 1], i)) for j in range(i, len(x))) for i in range(len(x))]
    np.testing.assert_allclose(found, wanted, atol=1e-12)


def test_running_maxima_with_nan_and_equals():
    x = np.array([1.0, 3.0, 3.0, np.nan, 2.0], np.float32)
    value, place = mf.cummax(mf.array(x))
    np.testing.assert_array_equal(value.numpy(), [1, 3, 3, np.nan, np.nan])
    assert place.numpy().tolist()[:3] == [0, 1, 2]


def test_logarithms_of_running_sums_do_not_overflow():
    x = np.array([-np.inf, 700.0, 710.0, -700.0, -np.inf])
    np.testing.assert_allclose(mf.logcumsumexp(mf.array64(x)).numpy(), np.logaddexp.accumulate(x))
    check_grads(mf.logcumsumexp, [np.linspace(-3, 900, 40)])
    check_grads(mf.logcumsumexp, [np.linspace(-2, 2, 40)], order=2)
    v = mf.array64(x)
    np.testing.assert_allclose(mf.grad(mf.logcumsumexp(v)[2:].sum(), v).numpy().sum(), 3)


def test_scans_differentiate_twice():
    x = np.random.default_rng(0).uniform(0.5, 1.5, (2, 35))
    check_grads(lambda v: mf.cumsum(v, 1) * v, [x], order=2)
    check_grads(lambda v: mf.cumprod(v, 0), [x], order=2)


# -- order -----------------------------------------------------------------------------------------------------------
def test_topk_counts_nan_as_largest():
    value, place = mf.topk(mf.array([1.0, float("nan"), 2.0]), 2)
    assert place.numpy().tolist() == [1, 2]
    assert np.isnan(value.numpy()[0])


def test_median_of_every_dimension():
    x = np.random.default_rng(0).permutation(60).reshape(3, 4, 5).astype(np.float32)
    for dim in range(3):
        n = x.shape[dim]
        np.testing.assert_array_equal(
            mf.median(mf.array(x), dim).numpy(), np.sort(x, dim).take((n - 1) // 2, dim)
        )


def test_unique_rows_and_gradient():
    x = mf.array([3.0, 1.0, 3.0, 2.0])
    value, inverse, count = mf.unique(x, True, True)
    np.testing.assert_array_equal(value.numpy()[inverse.numpy()], x.numpy())
    assert count.numpy().tolist() == [1, 1, 2]
    assert mf.grad((value * mf.array([1.0, 2.0, 3.0])).sum(), x).numpy().tolist() == [3, 1, 0, 2]
    rows = mf.unique(mf.array([[2, 1], [1, 1], [2, 1]]), dim=0)
    assert rows.numpy().tolist() == [[1, 1], [2, 1]]


def test_searchsorted_in_rows_and_sides():
    rows = np.sort(np.random.default_rng(0).integers(0, 9, (3, 6)), 1).astype(np.float32)
    wanted = np.random.default_rng(1).integers(-1, 10, (3, 4)).astype(np.float32)
    for right in (False, True):
        found = mf.searchsorted(mf.array(rows), mf.array(wanted), right).numpy()
        side = "right" if right else "left"
        np.testing.assert_array_equal(found, [np.searchsorted(r, w, side) for r, w in zip(rows, wanted)])


def test_histc_edges():
    x = mf.array([0.0, 0.5, 1.0, 1.0, -0.1, 1.1, float("nan")])
    assert mf.histc(x, 2, 0.0, 1.0).numpy().tolist() == [1, 3]
    assert mf.histc(mf.array([2.0, 2.0]), 3).numpy().tolist() == [0, 2, 0]
    assert mf.histc(mf.array([1, 2, 4]), 3).numpy().tolist() == [1, 1, 1]


# -- places --------------------------------------------------------------------------------------------------------
def test_places_outside_read_zero_and_are_not_written():
    x = mf.array([1.0, 2.0])
    assert mf.gather(x, 0, mf.array([1, 5, -1, -3])).numpy().tolist() == [2, 0, 2, 0]
    assert mf.scatter(x, 0, mf.array([7, -1]), mf.array([9.0, 8.0])).numpy().tolist() == [1, 8]


def test_the_last_of_equal_targets_stays():
    found = mf.scatter(mf.zeros(3), 0, mf.array([1, 1, 1]), mf.array([5.0, 6.0, 7.0]))
    assert found.numpy().tolist() == [0, 7, 0]


@pytest.mark.parametrize("op", ["add", "subtract", "multiply", "divide", "maximum", "minimum", "void"])
def test_setitem_joins_old_and_new(op):
    ufunc = {"void": lambda old, new: new}.get(op) or getattr(np, op)
    x = mf.array([2.0, 4.0, 8.0])
    mf.setitem(x, slice(1, None), mf.array([3.0, 5.0]), op)
    np.testing.assert_allclose(x.numpy(), [2, *ufunc(np.array([4.0, 8.0]), np.array([3.0, 5.0]))], rtol=1e-6)


def test_nonzero_and_where_agree():
    x = mf.array([[0, 3], [4, 0]])
    np.testing.assert_array_equal(mf.nonzero(x).numpy(), np.stack([p.numpy() for p in mf.where(x)], 1))
    assert mf.where(x, "int64")[0].dtype == "int64"


def test_nothing_selected():
    assert mf.masked_select(mf.ones(3), mf.zeros(3) > 0).shape == (0,)
    assert mf.nonzero(mf.zeros(2, 2)).shape == (0, 2)


# -- element-wise --------------------------------------------------------------------------------------------------
def test_erfinv_to_the_last_places():
    y = np.concatenate([np.linspace(-0.999999, 0.999999, 501), 1 - np.logspace(-15, -2, 30)])
    tail = [NormalDist().inv_cdf((1 - abs(v)) / 2) / 2**0.5 for v in y]  # 1 - |v| is exact where it is small
    np.testing.assert_allclose(mf.erfinv(mf.array64(y)).numpy(), -np.sign(y) * tail, rtol=1e-12, atol=1e-15)
    inside = y[np.abs(y) < 0.99]
    np.testing.assert_allclose(mf.erf(mf.erfinv(mf.array64(inside))).numpy(), inside, rtol=1e-14)


def test_gamma_functions_satisfy_their_recurrences():
    x = np.concatenate([np.linspace(-7.7, 30, 400), [1e-3, 1e5]])
    v = mf.array64(x)
    np.testing.assert_allclose(
        (mf.lgamma(v + 1) - mf.lgamma(v)).numpy(), np.log(np.abs(x)), rtol=1e-9, atol=1e-10
    )
    np.testing.assert_allclose((mf.digamma(v + 1) - mf.digamma(v)).numpy(), 1 / x, rtol=1e-9, atol=1e-10)
    assert mf.lgamma(mf.array([1.0, 2.0])).numpy() == pytest.approx([0, 0], abs=1e-6)
    assert mf.digamma(mf.array64([1.0])).item() == pytest.approx(-0.5772156649015329)


@pytest.mark.parametrize(("name", "other"), [("erfinv", "erfinv"), ("lgamma", "gammaln"), ("digamma", "psi")])
@pytest.mark.parametrize(("dtype", "bound"), [("float64", 1e-13), ("float32", 5e-6)])
def test_special_functions_against_scipy(name, other, dtype, bound):
    special = pytest.importorskip("scipy.special")
    x = np.linspace(-0.99999, 0.99999, 2001) if name == "erfinv" else np.linspace(-20.3, 50, 3001)
    x = x.astype(dtype)
    wanted = getattr(special, other)(x.astype(np.float64))
    found = getattr(mf, name)(mf.array64(x)).numpy().astype(np.float64)
    # relative, but not to less than the terms that are added near a zero
    scale = np.maximum(np.abs(wanted), 1) * np.where(np.abs(x) < 1, 1, np.abs(x))
    assert (np.abs(found - wanted) / scale).max() < bound


def test_hypot_does_not_overflow_and_is_flat_at_zero():
    assert mf.hypot(mf.array([3e30]), mf.array([4e30])).item() == pytest.approx(5e30)
    x = mf.array([0.0])
    assert mf.grad(mf.hypot(x, mf.array([0.0])), x).item() == 0


def test_safe_clip_hands_the_gradient_through_and_clamp_does_not():
    x = mf.array([-5.0, 0.5, 5.0])
    assert mf.grad(mf.safe_clip(x, -1, 1).sum(), x).numpy().tolist() == [1, 1, 1]
    assert mf.grad(mf.clamp(x, -1, 1).sum(), x).numpy().tolist() == [0, 1, 0]
    assert mf.safe_clip(mf.array([5, 300])).numpy().tolist() == [5, 300]


def test_norm_at_zero_has_gradient_zero():
    x = mf.zeros(3)
    assert mf.grad(mf.norm(x), x).numpy().tolist() == [0, 0, 0]
    assert mf.normalize(mf.zeros(1, 3)).numpy().tolist() == [[0, 0, 0]]
    assert mf.norm(mf.full([4], 300.0, "float16")).item() == 600


def test_closeness_of_special_values():
    inf, nan = float("inf"), float("nan")
    a, b = [inf, inf, nan, 1.0, -inf], [inf, -inf, nan, inf, -inf]
    for equal_nan in (False, True):
        wanted = np.isclose(a, b, equal_nan=equal_nan)
        np.testing.assert_array_equal(
            mf.isclose(mf.array(a), mf.array(b), equal_nan=equal_nan).numpy(), wanted
        )
    assert not mf.allclose(mf.ones(2), mf.array([1.0, 2.0]))
    assert not mf.all_equal(mf.ones(2), mf.ones(3))


# -- drawing -------------------------------------------------------------------------------------------------------
def test_multinomial_follows_the_weights():
    mf.set_global_seed(5)
    w = mf.array([[0.0, 1.0, 3.0], [2.0, 2.0, 0.0]])
    drawn = mf.multinomial(w, 4000, True).numpy()
    counts = np.stack([np.bincount(row, minlength=3) for row in drawn]) / 4000
    np.testing.assert_allclose(counts, [[0, 0.25, 0.75], [0.5, 0.5, 0]], atol=0.03)
    rows = mf.multinomial(mf.ones(300, 4) * mf.array([0.0, 1.0, 2.0, 3.0]), 4).numpy()
    assert (np.sort(rows, 1) == np.arange(4)).all()
    assert (rows[:, 3] == 0).all()
    first = np.bincount(rows[:, 0], minlength=4) / 300
    np.testing.assert_allclose(first, [0, 1 / 6, 1 / 3, 1 / 2], atol=0.1)


def test_bernoulli_and_relatives():
    mf.set_global_seed(5)
    assert abs(mf.bernoulli(mf.full([4000], 0.3)).mean().item() - 0.3) < 0.03
    found = mf.randint_like(mf.zeros(500, dtype="int64"), 3, 6)
    assert found.dtype == "int64"
    assert sorted(set(found.tolist())) == [3, 4, 5]
    assert mf.normal(mf.zeros(2, 1), mf.ones(3)).shape == (2, 3)


# -- user's callbacks, greedy choice ---------------------------------------------------------------------------------
def test_numpy_code_with_several_results_and_gradients():
    def forward(np, data):
        a, b = data["inputs"]
        data["outputs"][0][:] = a * b
        data["outputs"][1] = (a + b).sum(keepdims=True)

    def backward_a(np, data):
        data["outputs"][0][:] = data["dout"] * (data["inputs"][1] if data["out_index"] == 0 else 1)

    def backward_b(np, data):
        data["outputs"][0][:] = data["dout"] * (data["inputs"][0] if data["out_index"] == 0 else 1)

    a, b = mf.array64([1.0, 2.0]), mf.array64([3.0, 5.0])
    y, z = mf.numpy_code([[2], [1]], ["float64", "float64"], [a, b], forward, [backward_a, backward_b])
    assert (y.numpy().tolist(), z.item()) == ([3, 10], 11)
    found = mf.grad((y * y).sum() + z * 2, [a, b])
    np.testing.assert_allclose(found[0].numpy(), 2 * np.array([3.0, 10.0]) * [3, 5] + 2)
    np.testing.assert_allclose(found[1].numpy(), 2 * np.array([3.0, 10.0]) * [1, 2] + 2)


def test_numpy_code_of_mixed_types_and_mistakes():
    def forward(np, data):
        data["outputs"][0][:] = 2**40
        data["outputs"][1][:] = 0.5

    whole, part = mf.numpy_code([[1], [2]], ["int64", "float32"], [], forward)
    assert (whole.item(), part.numpy().tolist()) == (2**40, [0.5, 0.5])
    with pytest.raises(ArgumentError, match="a callback per input"):
        mf.numpy_code([1], "float32", [mf.ones(1)], forward, [forward, forward])

    def wrong(np, data):
        data["outputs"][0] = np.zeros(7)

    with pytest.raises(ArgumentError, match=r"output 0 must have shape \[1\], the callback left \[7\]"):
        mf.numpy_code([1], "float32", [], wrong).sync()


def test_candidate_is_greedy():
    x = np.random.default_rng(0).random((40, 2)).astype(np.float32)
    found = mf.candidate(mf.array(x), "(@x(j,0)>@x(i,0))or(@x(j,1)>@x(i,1))").numpy()
    chosen: list[int] = []
    for i, (a, b) in enumerate(x):
        if not any(x[j, 0] > a or x[j, 1] > b for j in chosen):
            chosen.append(i)
    assert found.tolist() == chosen
    with pytest.raises(IndexExpressionError, match="candidate"):
        mf.candidate(mf.array(x), "@x(i,0) > nothing")
    with pytest.raises(ArgumentError, match="outside of x"):
        mf.candidate(mf.array(x), "@x(i,0) > @x(j,9)")


# -- names, in place, protocols --------------------------------------------------------------------------------------
def test_in_place_variants_change_the_handle():
    x = mf.array([1.0, 4.0])
    same = x
    assert x.add_(3) is x
    x += 1
    x.sqrt_()
    x *= mf.array([2.0, 1.0])
    np.testing.assert_allclose(same.numpy(), np.sqrt([5, 8]) * [2, 1], rtol=1e-6)
    assert same.reshape_(2, 1).shape == (2, 1)
    x.index_add_(0, mf.array([0]), mf.ones(1, 1)).scatter_(0, mf.array([[1]]), mf.array([[9.0]]))
    assert x.numpy()[1, 0] == 9
    assert mf.clamp_(x, 0, 1) is x
    assert x.numpy().max() == 1


def test_in_place_changes_stay_on_the_gradient_path():
    x = mf.array([3.0])
    y = x * 2
    y *= y
    assert mf.grad(y, x).item() == 24


def test_in_place_keeps_what_was_taken_before():
    x = mf.array([1.0, 2.0])
    y, z = x * 10, x.clone()
    x += 7
    x -= x
    assert (x.numpy().tolist(), y.numpy().tolist(), z.numpy().tolist()) == ([0, 0], [10, 20], [1, 2])


def test_in_place_with_an_argument_that_is_handed_back():
    x, y = mf.array([1.0]), mf.array([2.0])
    x.type_as_(y)
    x.expand_as_(y)
    x.assign(5.0)
    assert (x.item(), y.item()) == (5, 2)
    for name in ("sort_", "topk_", "unique_", "argmax_"):
        assert not hasattr(mf.Var, name)
    with pytest.raises(DTypeError, match=r"\[add_\] only a Var"):
        mf.add_(1.0, 2.0)


def test_every_method_is_a_function_too():
    for record in all_operators():
        for name in record.methods:
            if not name.startswith("_"):
                assert getattr(mf, name) is function_named(name), name
                assert function_named(name) is record.function or name != record.name
    assert str(inspect.signature(mf.clamp_)) == str(inspect.signature(mf.clamp))


def test_python_protocols():
    x = mf.array([[1, 2], [3, 4]])
    assert 3 in x
    assert 9 not in x
    assert (x.size, x.size(), x.size(0), x.dim(), len(x)) == (4, (2, 2), 2, 2, 2)
    assert [10, 20, 30][mf.array([1])] == 20
    assert f"{mf.array([3.14159]):.2f}" == "3.14"
    assert x.new_ones([2]).dtype == "int32"
    assert x.new([5, 6]).numpy().tolist() == [5, 6]
    x @= mf.array([[0, 1], [1, 0]])
    assert x.numpy().tolist() == [[2, 1], [4, 3]]
    with pytest.raises(ArgumentError, match="format"):
        f"{x:.2f}"


def test_conversions():
    x = mf.array([1.7, 0.0])
    assert x.int().numpy().tolist() == [1, 0]
    assert x.bool().numpy().tolist() == [True, False]
    assert (x.half().dtype, x.double().dtype, x.long().dtype) == ("float16", "float64", "int64")
    assert mf.zeros(2, dtype=mf.int16).dtype == "int16"
    assert x.to("int8").to(mf.float64).dtype == "float64"
    assert x.to("cpu") is x
    with pytest.raises(ArgumentError, match="flags.backend"):
        x.to("somewhere")
    assert (mf.floor_int(mf.array([-1.5])).item(), mf.ceil_int(mf.array([-1.5])).item()) == (-2, -1)
    assert mf.round_int(mf.array([2.5, 3.5])).numpy().tolist() == [2, 4]
    assert mf.finfo(mf.float32).eps == np.finfo(np.float32).eps
    with pytest.raises(DTypeError, match="iinfo"):
        mf.finfo("int8")


def test_reductions_under_both_names_of_their_dimensions():
    x = mf.ones(2, 3)
    assert x.sum(dims=[0, 1]).item() == x.sum(dim=[0, 1]).item() == 6
    assert x.std(1, True).shape == x.std(1, keepdims=True).shape == (2, 1)
    with pytest.raises(ArgumentError, match="mean the same"):
        x.sum(0, dims=1)


def test_rolling_flat_and_in_several_dimensions():
    x = np.arange(12).reshape(3, 4)
    np.testing.assert_array_equal(mf.roll(mf.array(x), 5).numpy(), np.roll(x, 5))
    np.testing.assert_array_equal(mf.roll(mf.array(x), (1, -2), (0, 1)).numpy(), np.roll(x, (1, -2), (0, 1)))


def test_too_many_elements_are_refused():
    with pytest.raises(ShapeError, match=r"2\*\*63"):
        mf.zeros(2**40, 2**40)
    with pytest.raises(ArgumentError, match=r"\[repeat\] an extent must fit into 64 bits"):
        mf.ones(3).repeat(2**70)
