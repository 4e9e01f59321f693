"""bfloat16 on the reference backend: bits, rounding, promotion, operators, gradients, modules, optimizers, files."""

from __future__ import annotations

import copy
import pickle
import warnings

import numpy as np
import pytest

import metafuse as mf
from metafuse import nn
from metafuse.dtypes import (
    DTYPES,
    FLOATS,
    as_dtype,
    bfloat16,
    float16,
    float32,
    float64,
    promote,
    true_divide,
)
from metafuse.errors import DTypeError
from metafuse.kernel import host
from metafuse.runtime import executor

EVERY = np.arange(65536, dtype=np.uint16)
near = bfloat16.convert
random = np.random.default_rng(5)


@pytest.fixture(autouse=True)
def _reference():
    with mf.flag_scope(backend="reference"):
        yield


def low(values, dtype="bfloat16"):
    return mf.array(np.asarray(values, np.float32), dtype)


def normal(*shape, dtype="bfloat16"):
    return low(random.standard_normal(shape), dtype)


def kernels():
    """The kernels of the last program."""
    return [step.kernel for step in executor.last_program[0].plan.steps if hasattr(step, "kernel")]


# -- the type -------------------------------------------------------------------------------------------------------
def test_the_type():
    assert (bfloat16.name, bfloat16.kind, bfloat16.itemsize) == ("bfloat16", "f", 2)
    assert bfloat16.is_float
    assert [d.name for d in FLOATS if d.is_half] == ["float16", "bfloat16"]
    assert as_dtype("bfloat16") is as_dtype(mf.bfloat16) is bfloat16
    assert bfloat16 == "bfloat16"
    assert pickle.loads(pickle.dumps(bfloat16)) is bfloat16
    assert bfloat16.numpy == np.float32
    assert bfloat16.storage == np.uint16
    for name, dtype in DTYPES.items():
        if name != "bfloat16":
            assert dtype.numpy == dtype.storage == np.dtype(name)


def test_every_pattern_survives_the_round_trip():
    values = bfloat16.decode(EVERY)
    assert np.array_equal(bfloat16.encode(values), EVERY)
    assert np.array_equal(values.view(np.uint32), EVERY.astype(np.uint32) << 16)
    x = mf.array(values, "bfloat16")
    assert np.array_equal(x.numpy().view(np.uint32), values.view(np.uint32))


def nearest_even(values):
    """By looking for the nearer of both neighbours, in float64."""
    bits = values.astype(np.float32).view(np.uint32)
    below = (bits >> 16).astype(np.uint16)
    small, large = bfloat16.decode(below).astype(np.float64), bfloat16.decode(below + 1).astype(np.float64)
    large = np.where(np.isinf(large), np.sign(small) * 2.0**128, large)
    to_small, to_large = np.abs(values - small), np.abs(large - values)
    up = (to_large < to_small) | ((to_large == to_small) & (below & 1 == 1))
    return np.where(up, below + 1, below).astype(np.uint16)


def test_rounding_is_to_nearest_even():
    exponents = random.uniform(-44, 38, 50_000)
    values = (random.choice([-1, 1], 50_000) * 10.0**exponents).astype(np.float32)
    ties = ((EVERY.astype(np.uint32) << 16) | 0x8000).view(np.float32)
    values = np.concatenate([values, ties[np.isfinite(ties)], np.float32([3.3961e38, -3.3961e38, 0.0, -0.0])])
    assert np.array_equal(bfloat16.encode(values), nearest_even(values.astype(np.float64)))
    assert np.array_equal(mf.cast(mf.array(values), "bfloat16").numpy(), near(values))


def test_nan_stays_nan_and_what_is_too_large_becomes_infinite():
    quiet, payload = np.uint32([0x7FC00000, 0x7F800001, 0xFFFFFFFF]).view(np.float32), [np.nan, -np.nan, 1e39]
    assert np.isnan(near(quiet)).all()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.isnan(near(payload)[:2]).all()
        assert near(payload)[2] == np.inf
        assert near(1e39) == np.inf  # a single number too


def test_promotion():
    table = {
        float16: "bfloat16", float32: "float32", float64: "float64", as_dtype("bool"): "bfloat16", as_dtype("int8"): "bfloat16",
        as_dtype("uint16"): "bfloat16", as_dtype("int32"): "float32", as_dtype("uint64"): "float64",
    }  # fmt: skip
    for other, wanted in table.items():
        assert promote(bfloat16, other) == promote(other, bfloat16) == wanted
    assert true_divide(bfloat16) is bfloat16
    assert (low([1, 2]) * 2.5).dtype == (low([1, 2]) + 1).dtype == "bfloat16"
    assert (low([1.0]) + mf.array([1, 2])).dtype == "float32"
    assert low([1.0]).exp().dtype == low([1.0]).sqrt().dtype == "bfloat16"


def test_values_are_read_as_float32():
    x = low([0.1, 1.5])
    assert x.numpy().dtype == np.float32
    assert x.numpy().tolist() == [0.10009765625, 1.5]
    assert (x.nbytes, x[:1].item()) == (4, 0.10009765625)
    assert "bfloat16" in repr(x)
    assert mf.array(x, "float64").tolist() == [0.10009765625, 1.5]
    assert mf.array([x, x]).dtype == "float32"  # what is in a list is read


def test_data_is_a_copy_that_refuses_writes():
    x = low([1.0, 2.0])
    assert x.data.tolist() == [1.0, 2.0]
    with pytest.raises(ValueError, match="read-only"):
        x.data[0] = 5.0
    x.data = np.float32([3.0, 4.0])
    assert (x.dtype, x.numpy().tolist()) == ("bfloat16", [3.0, 4.0])


def test_arrays_of_ml_dtypes():
    ml_dtypes = pytest.importorskip("ml_dtypes")
    bits = EVERY.view(ml_dtypes.bfloat16)
    for data in (bits, bits.reshape(256, 256)[:, ::2]):
        x = mf.array(data)
        assert x.dtype == "bfloat16"
        expected = data.astype(np.float32)
        assert np.array_equal(x.numpy(), expected, equal_nan=True)
        assert np.array_equal(mf.array(data, "float32").numpy(), expected, equal_nan=True)
    assert as_dtype(ml_dtypes.bfloat16) is bfloat16
    with pytest.raises(DTypeError):
        mf.array(np.zeros(2, ml_dtypes.float8_e5m2))


def test_copies_and_pickles():
    x = normal(3).start_grad()
    for y in (copy.copy(x), copy.deepcopy(x), pickle.loads(pickle.dumps(x))):
        assert (y.dtype, y.numpy().tolist()) == (bfloat16, x.numpy().tolist())


# -- meaning of operators ---------------------------------------------------------------------------------------------
def test_host_functions_round_their_results():
    a, b = near(random.uniform(0.5, 4, 50)), near(random.uniform(0.5, 4, 50))
    for name in ("add", "mul", "div", "pow", "atan2"):
        got = host.apply(name, a, b, dtype=bfloat16)
        assert got.dtype == np.float32
        np.testing.assert_array_equal(got, near(host.apply(name, a, b, dtype=float32)))
    np.testing.assert_array_equal(host.apply("max", a, b, dtype=bfloat16), np.maximum(a, b))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("name", ["exp", "tanh", "sigmoid", "log1p", "erf", "sqr", "gelu", "neg", "abs"])
def test_an_operator_computes_in_float32_and_rounds_once(name, dtype):
    x = low(random.uniform(0.1, 3, 200), dtype)
    function = {"neg": lambda v: -v, "gelu": nn.gelu}.get(name) or getattr(mf, name)
    got, wide = function(x), function(x.float32())
    assert got.dtype == dtype
    np.testing.assert_array_equal(got.numpy(), as_dtype(dtype).convert(wide.numpy()))


def test_python_numbers_are_not_rounded():
    x = low([3.0, 1.0])
    np.testing.assert_array_equal((x * 0.1).numpy(), near(np.float32([3.0, 1.0]) * np.float32(0.1)))
    np.testing.assert_array_equal(mf.maximum(x, 1.001).numpy(), near([3.0, 1.001]))


def test_fusing_changes_nothing():
    """Every operator rounds, whether its answer is stored or not."""
    x = normal(500)
    y = (x * 1.37 + 0.11).exp() * x
    step = x * 1.37
    step.sync()
    step = step + 0.11
    step.sync()
    step = step.exp()
    step.sync()
    np.testing.assert_array_equal(y.numpy(), (step * x).numpy())


def test_a_maximum_is_found_again():
    """Its gradient compares recomputed values with a stored one."""
    x = normal(7, 33)
    (g,) = mf.grad((x * 1.3).max(1).sum(), [x])
    assert (np.count_nonzero(g.numpy(), 1) >= 1).all()


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_sums_are_carried_in_float32(dtype):
    x = low(np.full((3, 5000), 0.25), dtype)
    assert x.sum(1).numpy().tolist() == [1248.0 if dtype == "bfloat16" else 1250.0] * 3
    assert x.mean().item() == 0.25
    assert low(np.ones(1000), dtype).sum().item() == 1000
    assert low([256.0, 258.0, 260.0], dtype).var().item() == low([2.6666667], dtype).item()
    ones, row = low(np.ones((1, 4096)), dtype), low(np.full((4096, 2), 0.125), dtype)
    assert (ones @ row).numpy().tolist() == [[512.0, 512.0]]
    scattered = low(np.ones(1000), dtype).reindex_reduce("add", [1], ["i0*0"])
    assert (scattered.dtype, scattered.item()) == (dtype, 1000)
    table = low(np.zeros((2, 3)), dtype)
    (g,) = mf.grad(table[mf.array(np.zeros(600, np.int32))].sum(), [table])
    assert g.numpy()[0].tolist() == [600.0] * 3


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_norms_and_softmax_are_computed_in_float32(dtype):
    x = low(random.standard_normal((4, 3, 8, 8)) * 8 + 40, dtype)
    wide = x.float32()
    norms = {
        "batch": lambda v: nn.batch_norm(v, None, None, training=True),
        "layer": lambda v: nn.layer_norm(v, [8]),
        "group": lambda v: nn.group_norm(v, 3),
        "softmax": lambda v: nn.softmax(v, dim=1),
        "log": lambda v: nn.log_softmax(v, dim=1),
        "logsumexp": lambda v: nn.logsumexp(v, 1),
    }
    for name, norm in norms.items():
        got = norm(x)
        assert got.dtype == dtype
        np.testing.assert_array_equal(got.numpy(), as_dtype(dtype).convert(norm(wide).numpy()), err_msg=name)


CALLS = {
    "add": lambda x, of: x + x * 2,
    "broadcast": lambda x, of: x * of([1.0, 2.0, 3.0, 4.0]),
    "number": lambda x, of: x * 2.5 - 1,
    "exp": lambda x, of: x.exp(),
    "sum": lambda x, of: x.sum(1),
    "mean": lambda x, of: x.mean(0),
    "max": lambda x, of: x.max(1),
    "prod": lambda x, of: x.prod(1),
    "matmul": lambda x, of: x @ x.transpose(1, 0),
    "vector": lambda x, of: x @ of([1.0, -1.0, 0.5, 2.0]),
    "linear": lambda x, of: nn.linear(x, of(np.ones((2, 4))), of([0.5, -0.5])),
    "softmax": lambda x, of: nn.softmax(x, dim=1),
    "layer_norm": lambda x, of: nn.layer_norm(x, [4]),
    "cross_entropy": lambda x, of: nn.cross_entropy_loss(x, mf.array([0, 1, 2])),
    "getitem": lambda x, of: x[1:, ::2],
    "concat": lambda x, of: mf.concat([x, x], 0),
    "where": lambda x, of: mf.where(x > 0, x, x * 0.5),
    "sort": lambda x, of: mf.sort(x)[0],
    "conv": lambda x, of: nn.conv2d(
        x.reshape([1, 1, 3, 4]), of(np.ones((2, 1, 2, 2))), of([1.0, 2.0]), padding=1
    ),
    "conv_transpose": lambda x, of: nn.conv_transpose(
        x.reshape([1, 1, 3, 4]), of(np.ones((1, 2, 2, 2))), stride=2
    ),
    "pool": lambda x, of: nn.Pool(2, op="mean")(x.reshape([1, 1, 3, 4])),
    "reindex_reduce": lambda x, of: x.reindex_reduce("add", [3], ["i0"]),
}


@pytest.mark.parametrize("name", CALLS)
def test_answers_and_gradients_keep_the_type(name):
    x = normal(3, 4)
    found = []
    for kind in ("bfloat16", "float32"):
        at = x.cast(kind).detach().start_grad()
        y = CALLS[name](at, lambda values, kind=kind: low(values, kind))
        slopes = low(np.linspace(0.5, 1.5, y.size).reshape(y.shape), kind)
        (g,) = mf.grad((y * slopes).sum(), [at])
        assert y.dtype == g.dtype == kind
        found.append((y.numpy(), g.numpy()))
    for got, wanted in zip(*found, strict=True):
        np.testing.assert_allclose(got, wanted, rtol=0.03, atol=0.01 * max(1.0, np.abs(wanted).max()))


def test_products_are_contractions_that_read_16_bits():
    """Forwards and backwards: neither a product of all pairs nor a widened copy is stored."""
    for dtype in ("float16", "bfloat16"):
        a, b = normal(8, 9, dtype=dtype), normal(9, 7, dtype=dtype)
        y = a @ b
        gradients = mf.grad((y * y).sum(), [a, b])
        mf.sync([y, *gradients])
        found = [k for k in kernels() if k.contraction is not None]
        assert len(found) == 3
        for kernel in found:
            assert {p.dtype.name for p in kernel.buffers} == {dtype}
    x, w = normal(2, 3, 6, 6), normal(4, 3, 3, 3)
    y = nn.conv2d(x, w, padding=1)
    mf.sync([y, *mf.grad((y * y).sum(), [x, w])])
    assert sum(k.contraction is not None for k in kernels()) == 3


def test_random_numbers_stay_below_one():
    for dtype in ("float16", "bfloat16"):
        x = mf.rand(20_000, dtype=dtype)
        assert x.dtype == dtype
        assert 0 <= x.numpy().min() and x.numpy().max() < 1
        assert abs(x.float32().mean().item() - 0.5) < 0.01
        assert mf.randn(5, dtype=dtype).dtype == dtype


# -- modules, optimizers, files ---------------------------------------------------------------------------------------
def test_modules_convert():
    net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm(4))
    assert {p.dtype.name for p in net.bfloat16().parameters()} == {"bfloat16"}
    assert net(normal(5, 3)).dtype == "bfloat16"
    assert {p.dtype.name for p in net.half().parameters()} == {"float16"}
    assert {p.dtype.name for p in net.float_auto().parameters()} == {"float32"}
    with mf.flag_scope(amp_level=4):
        assert {p.dtype.name for p in net.float_auto().parameters()} == {"bfloat16"}
    assert net[0].weight.requires_grad
    assert not net[1].running_mean.requires_grad


def test_files_keep_the_bits(tmp_path):
    net = nn.Linear(64, 64).bfloat16()
    net.save(tmp_path / "low")
    state = net.state_dict("numpy")
    assert {v.dtype.name for v in state.values()} == {"float32"}
    other = nn.Linear(64, 64).bfloat16()
    other.load(tmp_path / "low")
    wide = nn.Linear(64, 64)
    wide.load(tmp_path / "low")
    for module in (other, wide):
        np.testing.assert_array_equal(module.weight.numpy(), state["weight"])
    assert (other.weight.dtype, wide.weight.dtype) == (bfloat16, float32)
    wide.save(tmp_path / "wide")
    sizes = [(tmp_path / name).stat().st_size for name in ("low", "wide")]
    assert sizes[0] < 0.6 * sizes[1]
    narrow = nn.Linear(64, 64).bfloat16()
    narrow.load_state_dict(wide.state_dict())
    assert narrow.weight.dtype == "bfloat16"


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize(
    "make",
    [
        lambda p: mf.optim.SGD(p, 0.1, momentum=0.9, weight_decay=0.01, nesterov=True),
        lambda p: mf.optim.Adam(p, 0.01),
        lambda p: mf.optim.AdamW(p, 0.01, weight_decay=0.1),
        lambda p: mf.optim.RMSprop(p, 0.01),
        lambda p: mf.optim.Adan(p, 0.01),
    ],
    ids=["sgd", "adam", "adamw", "rmsprop", "adan"],
)
def test_optimizers_compute_and_remember_in_float32(make, dtype):
    """One step rounds the parameter once; state is that of float32."""
    start, slope = (
        low(random.uniform(0.5, 2, 20), dtype).numpy(),
        low(random.standard_normal(20), dtype).numpy(),
    )
    results = []
    for kind in (dtype, "float32"):
        p = nn.Parameter(mf.array(start, kind))
        optimizer = make([p])
        optimizer.step((p * mf.array(slope, kind).stop_grad()).sum())
        state = optimizer.state_dict()["groups"][0]["state"]
        assert p.dtype == kind
        assert p.requires_grad
        assert {v.dtype.name for values in state.values() for v in values} == {"float32"}
        results.append((p.numpy(), state))
    (got, state), (wanted, wide) = results
    np.testing.assert_array_equal(got, as_dtype(dtype).convert(wanted))
    for name in wide:
        for a, b in zip(state[name], wide[name], strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-6)


def test_optimizer_state_is_restored():
    p = nn.Parameter(low([1.0, 2.0]))
    first = mf.optim.Adam([p], 0.01)
    first.step((p * p).sum())
    second = mf.optim.Adam([p], 0.01)
    second.load_state_dict(first.state_dict())
    for name in ("m", "values"):
        mine, theirs = (o.param_groups[0][name][0] for o in (second, first))
        assert mine.dtype == "float32"
        np.testing.assert_array_equal(mine.numpy(), theirs.numpy())


def test_clipping_does_not_overflow():
    p = nn.Parameter(low([1.0], "float16"))
    optimizer = mf.optim.SGD([p], 1.0)
    optimizer.backward((p * 1000.0).sum())
    optimizer.clip_grad_norm(1.0)
    np.testing.assert_allclose(optimizer.find_grad(p).numpy(), [1.0], rtol=1e-3)


def test_the_null_backend_schedules_it():
    with mf.flag_scope(backend="null"):
        y = normal(4, 4) @ normal(4, 4)
        assert y.numpy().shape == (4, 4)
