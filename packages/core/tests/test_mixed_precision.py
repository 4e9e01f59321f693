"""Mixed precision: what each level does to types, the flags, and the loss scaler."""

from __future__ import annotations

import numpy as np
import pytest

import metafuse as mf
from metafuse import nn
from metafuse.amp import GradScaler, autocast
from metafuse.config import Flags, flags
from metafuse.dtypes import bfloat16
from metafuse.errors import ArgumentError, DTypeError
from metafuse.runtime import executor
from metafuse.runtime.kernels import statistics

random = np.random.default_rng(7)


@pytest.fixture(autouse=True)
def _reference():
    with mf.flag_scope(backend="reference"):
        yield


def normal(*shape, dtype="float32"):
    return mf.array(random.standard_normal(shape).astype(np.float32), dtype)


# -- levels -----------------------------------------------------------------------------------------------------------
PRODUCTS = {
    "matmul": lambda: normal(3, 4) @ normal(4, 5),
    "vector": lambda: normal(4) @ normal(4, 5),
    "matmul_transpose": lambda: mf.matmul_transpose(normal(3, 4), normal(5, 4)),
    "bmm": lambda: nn.bmm(normal(2, 3, 4), normal(2, 4, 5)),
    "linear": lambda: nn.linear(normal(2, 3, 4), normal(5, 4), normal(5)),
    "bilinear": lambda: nn.bilinear(normal(4, 2), normal(4, 3), normal(5, 2, 3), normal(5)),
    "conv1d": lambda: nn.conv1d(normal(1, 2, 6), normal(3, 2, 3), normal(3)),
    "conv2d": lambda: nn.conv2d(normal(1, 4, 6, 6), normal(6, 2, 3, 3), normal(6), groups=2),
    "conv_transpose": lambda: nn.conv_transpose(normal(1, 2, 4, 4), normal(2, 3, 2, 2), normal(3), stride=2),
}
FOLLOW = {
    "relu": nn.relu,
    "scaled": lambda x: x * 2.0 + 1,
    "exp": lambda x: x.exp(),
    "reshape": lambda x: x.reshape([-1]),
    "max": lambda x: x.max(1),
}
FULL = {
    "sum": lambda x: x.sum(),
    "mean": lambda x: x.mean(1),
    "prod": lambda x: x.prod(),
    "var": lambda x: x.var(),
    "softmax": lambda x: nn.softmax(x, dim=1),
    "log_softmax": lambda x: nn.log_softmax(x, dim=1),
    "logsumexp": lambda x: nn.logsumexp(x, 1),
    "batch_norm": lambda x: nn.batch_norm(x, None, None, training=True),
    "batch_norm_eval": lambda x: nn.batch_norm(x, mf.zeros(5), mf.ones(5)),
    "layer_norm": lambda x: nn.layer_norm(x, [5]),
    "cross_entropy": lambda x: nn.cross_entropy_loss(x, mf.array([0, 1, 2])),
    "mse": lambda x: nn.mse_loss(x, x.float32()),
    "bce": lambda x: nn.binary_cross_entropy_with_logits(x, mf.ones(3, 5)),
}


@pytest.mark.parametrize("low", ["bfloat16", "float16"])
@pytest.mark.parametrize("level", range(7))
def test_types_by_level(level, low):
    product = "float32" if level < 4 else low
    full = low if level == 6 else "float32"
    with mf.flag_scope(auto_mixed_precision_level=level, amp_dtype=low):
        for name, call in PRODUCTS.items():
            assert call().dtype == product, name
        x = normal(3, 5, dtype=low)
        for name, call in FOLLOW.items():
            assert call(x).dtype == low, name
        for name, call in FULL.items():
            assert call(x).dtype == (full if level else low), name
            assert call(x.float32()).dtype == "float32", name
        assert (normal(3, 4, dtype="float64") @ normal(4, 5, dtype="float64")).dtype == "float64"
        assert (
            mf.array(np.ones(2, np.float32)).dtype
            == mf.array([0.5]).dtype
            == (low if level > 4 else "float32")
        )
        assert mf.array([1, 2]).dtype == "int32"
        assert mf.array64(np.ones(2, np.float32)).dtype == "float32"
        assert mf.ones(2).dtype == nn.Linear(2, 2).weight.dtype == "float32"
        assert mf.ones(2).float_auto().dtype == (low if level > 3 else "float32")


@pytest.mark.parametrize("level", [1, 4, 6])
def test_products_read_16_bits_and_sum_in_float32(level):
    a, b = normal(3, 500), normal(500, 4)
    near = bfloat16.convert
    with mf.flag_scope(amp_level=level):
        y = a @ b
        gradients = mf.grad((y * y).sum(), [a, b])
    mf.sync([y, *gradients])
    kernels = [s.kernel for s in executor.last_program[0].plan.steps]
    products = [k for k in kernels if k.contraction is not None]
    assert len(products) == 3
    for kernel in products:
        read = {kernel.buffers[o.buffer].dtype.name for o in (kernel.contraction.a, kernel.contraction.b)}
        assert read == {"bfloat16"}
        assert kernel.stages[0].expr.dtype == "float32"
    exact = near(a.numpy()).astype(np.float64) @ near(b.numpy())
    np.testing.assert_array_equal(y.numpy(), near(exact))
    upstream = near(2 * y.numpy()).astype(np.float64)
    assert {g.dtype.name for g in gradients} == {"float32"}
    np.testing.assert_allclose(gradients[0].numpy(), upstream @ near(b.numpy()).T, rtol=1e-2)


def test_16_bit_factors_keep_their_type():
    with mf.flag_scope(amp_level=4):
        assert (normal(2, 3, dtype="float16") @ normal(3, 2, dtype="float16")).dtype == "float16"
        assert (normal(2, 3, dtype="float16") @ normal(3, 2)).dtype == "bfloat16"


def test_gradients_of_parameters_are_float32_and_loss_goes_down():
    x, target = normal(64, 8), mf.array(np.arange(64) % 3)
    for level in (0, 1, 4, 5, 6):
        mf.set_global_seed(1)
        net = nn.Sequential(nn.Linear(8, 32), nn.BatchNorm(32), nn.ReLU(), nn.Linear(32, 3))
        optimizer = mf.optim.Adam(net.parameters(), lr=0.02)
        with mf.flag_scope(amp_level=level):
            losses = []
            for _ in range(30):
                loss = nn.cross_entropy_loss(net(x), target)
                optimizer.step(loss)
                losses.append(loss.item())
        assert {p.dtype.name for p in net.parameters()} == {"float32"}
        assert losses[-1] < 0.5 * losses[0]
        if level == 0:
            exact = losses
        np.testing.assert_allclose(losses[:5], exact[:5], rtol=0.03)
        assert abs(losses[-1] - exact[-1]) < 0.1


# -- flags ------------------------------------------------------------------------------------------------------------
def test_the_level_sets_the_register():
    assert (flags.auto_mixed_precision_level, flags.amp_level, flags.amp_reg) == (0, 0, 0)
    for level, register in enumerate((0, 1, 1, 1, 3, 7, 15)):
        with mf.flag_scope(amp_level=level):
            assert (flags.auto_mixed_precision_level, flags.amp_level, flags.amp_reg) == (
                level,
                level,
                register,
            )
    flags.amp_level = 5
    assert (flags.auto_mixed_precision_level, flags.amp_reg) == (5, 7)
    flags.auto_mixed_precision_level = 0
    assert flags.amp_reg == 0
    with mf.flag_scope(amp_reg=2), mf.flag_scope(amp_level=4, amp_reg=9):
        assert flags.amp_reg == 9
        with mf.flag_scope(amp_level=1):
            assert flags.amp_reg == 1
        assert (flags.amp_level, flags.amp_reg) == (4, 9)
    assert (flags.amp_level, flags.amp_reg) == (0, 0)


def test_wrong_settings_are_refused():
    for name, value in (("amp_level", 7), ("auto_mixed_precision_level", -1), ("amp_reg", 16)):
        with pytest.raises(ArgumentError, match="legal: 0 to"), mf.flag_scope(**{name: value}):
            pass
    for name in ("amp_dtype", "math"):
        with (
            pytest.raises(ArgumentError, match=r"'float8'; legal: \w+ or \w+"),
            mf.flag_scope(**{name: "float8"}),
        ):
            pass


def test_the_environment_sets_the_level(monkeypatch):
    monkeypatch.setenv("METAFUSE_AUTO_MIXED_PRECISION_LEVEL", "4")
    monkeypatch.setenv("METAFUSE_MATH", "bfloat16")
    fresh = Flags()
    assert (fresh.amp_level, fresh.math) == (4, "bfloat16")


def test_products_may_be_rounded_without_changing_types():
    a, b = normal(20, 30), normal(30, 10)
    with mf.flag_scope(math="bfloat16"):
        y = a @ b
        assert y.dtype == "float32"
        np.testing.assert_allclose(y.numpy(), a.numpy() @ b.numpy(), rtol=0.1, atol=0.1)


def test_autocast_is_a_scope_and_a_decorator():
    with autocast():
        assert (flags.amp_level, flags.amp_dtype) == (4, "bfloat16")
    with autocast(dtype="float16", level=6):
        assert (flags.amp_level, flags.amp_dtype) == (6, "float16")

        @autocast(enabled=False)
        def exact():
            return normal(2, 2) @ normal(2, 2)

        assert exact().dtype == "float32"
    assert (flags.amp_level, flags.amp_dtype) == (0, "bfloat16")


# -- the loss scaler --------------------------------------------------------------------------------------------------
def model(make=lambda p: mf.optim.Adam(p, lr=0.1), start=(1.0, -2.0)):
    p = nn.Parameter(np.float32(start))
    return p, make([p])


def test_a_scaled_step_is_a_step():
    results = []
    for scaler in (GradScaler(init_scale=1024.0), GradScaler(enabled=False)):
        p, optimizer = model()
        for _ in range(3):
            scaler.step(optimizer, (p * p * p).sum())
            scaler.update()
        results.append((p.numpy(), optimizer.n_step))
    np.testing.assert_allclose(results[0][0], results[1][0], rtol=1e-6)
    assert results[0][1] == results[1][1] == 3


@pytest.mark.parametrize("bad", [np.inf, np.nan])
def test_a_step_that_overflows_changes_nothing(bad):
    p, optimizer = model()
    q = nn.Parameter(np.float32([3.0]))
    optimizer.add_param_group({"params": [q]})
    scaler = GradScaler(init_scale=256.0)
    scaler.step(optimizer, (p * p).sum() + (q * q).sum())
    scaler.update()
    before = [v.numpy() for v in (p, q)], optimizer.state_dict()["groups"]
    scaler.step(optimizer, (p * p).sum() + (q * mf.array([bad])).sum())
    scaler.update()
    after = [v.numpy() for v in (p, q)], optimizer.state_dict()["groups"]
    np.testing.assert_equal(after, before)
    assert scaler.get_scale() == 128.0
    scaler.step(optimizer, (p * p).sum() + (q * q).sum())
    assert optimizer.n_step == 2  # what was left out does not count
    assert not np.array_equal(p.numpy(), before[0][0])
    assert p.requires_grad


def test_the_first_step_may_overflow():
    p, optimizer = model()
    scaler = GradScaler()
    scaler.step(optimizer, (p * np.inf).sum())
    scaler.update()
    assert p.numpy().tolist() == [1.0, -2.0]
    assert not any(
        np.any(v) for values in optimizer.state_dict()["groups"][0]["state"].values() for v in values
    )
    exact, other = model()
    other.step((exact * exact).sum())
    scaler.step(optimizer, (p * p).sum())
    np.testing.assert_allclose(p.numpy(), exact.numpy(), rtol=1e-6)


def test_the_scale_grows_and_shrinks():
    p, optimizer = model(lambda p: mf.optim.SGD(p, lr=0.0))
    scaler = GradScaler(init_scale=4.0, growth_factor=3.0, backoff_factor=0.25, growth_interval=2)
    seen = []
    for bad in (0, 0, 0, 1, 0, 0, 0, 0):
        scaler.step(optimizer, (p * (np.inf if bad else 1.0)).sum())
        scaler.update()
        seen.append(scaler.get_scale())
    assert seen == [4, 12, 12, 3, 3, 9, 9, 27]
    scaler.update(5.0)
    assert scaler.get_scale() == 5.0
    largest = GradScaler(init_scale=3e38, growth_interval=1)
    largest.step(optimizer, (p * 0.0).sum())
    largest.update()
    assert largest.get_scale() == np.float32(3e38)


def test_small_gradients_of_float16_survive():
    moved = []
    for scale in (1.0, 4096.0):
        p = nn.Parameter(mf.array([1.0], "float16"))
        optimizer = mf.optim.SGD([p], lr=1e7)
        scaler = GradScaler(init_scale=scale)
        x = p * mf.array([1e-4], "float16").stop_grad() * mf.array([1e-4], "float16").stop_grad()
        scaler.step(optimizer, x.float32().sum())
        moved.append(1.0 - p.item())
    assert moved[0] == 0.0
    assert moved[1] == pytest.approx(0.1, rel=0.05)


def test_gradients_can_be_clipped_between():
    p, optimizer = model(lambda p: mf.optim.SGD(p, lr=1.0), start=(3.0, 4.0))
    scaler = GradScaler(init_scale=64.0)
    optimizer.backward(scaler.scale((p * p).sum() * 0.5))
    scaler.unscale_(optimizer)
    np.testing.assert_allclose(optimizer.find_grad(p).numpy(), [3.0, 4.0], rtol=1e-6)
    optimizer.clip_grad_norm(1.0)
    scaler.step(optimizer)
    scaler.update()
    np.testing.assert_allclose(p.numpy(), [2.4, 3.2], rtol=1e-5)


def test_two_optimizers_share_a_scale():
    p, first = model()
    q, second = model()
    scaler = GradScaler(init_scale=8.0)
    scaler.step(first, (p * p).sum())
    scaler.step(second, (q * np.inf).sum())
    scaler.update()
    assert scaler.get_scale() == 4.0
    assert p.numpy().tolist() != [1.0, -2.0]
    assert q.numpy().tolist() == [1.0, -2.0]


def test_an_optimizer_with_a_step_of_its_own():
    class Careful(mf.optim.SGD):
        def step(self, loss=None, retain_graph=False):
            self.seen = getattr(self, "seen", 0) + 1
            super().step(loss, retain_graph)

    p, optimizer = model(lambda p: Careful(p, lr=0.5))
    scaler = GradScaler(init_scale=8.0)
    scaler.step(optimizer, (p * np.inf).sum())
    assert not hasattr(optimizer, "seen")
    scaler.update()
    scaler.step(optimizer, (p * p).sum())
    assert optimizer.seen == 1
    assert p.numpy().tolist() == [0.0, 0.0]


def test_an_iteration_is_one_program():
    """No value is waited for in the middle, and nothing is planned anew."""
    net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    optimizer, scaler, x = mf.optim.Adam(net.parameters(), lr=0.01), GradScaler(), normal(5, 4)
    for _ in range(3):
        scaler.step(optimizer, net(x).sum())
        scaler.update()
    programs, plans = statistics.programs, statistics.plans
    for _ in range(4):
        scaler.step(optimizer, net(x).sum())
        scaler.update()
    assert statistics.programs - programs == 4
    assert statistics.plans == plans
    mf.optim.Adam(net.parameters(), lr=0.01).step(net(x).sum())
    without = len(executor.last_program[0].plan.steps)
    scaler.step(optimizer, net(x).sum())
    assert len(executor.last_program[0].plan.steps) <= without + 8


def test_state_of_the_scaler():
    p, optimizer = model()
    scaler = GradScaler(init_scale=16.0, growth_interval=5)
    scaler.step(optimizer, (p * p).sum())
    scaler.update()
    state = scaler.state_dict()
    assert state == {
        "scale": 16.0, "growth_factor": 2.0, "backoff_factor": 0.5, "growth_interval": 5, "_growth_tracker": 1,
    }  # fmt: skip
    other = GradScaler()
    other.load_state_dict(state)
    assert other.state_dict() == state
    assert (other.get_growth_factor(), other.get_backoff_factor(), other.get_growth_interval()) == (
        2.0,
        0.5,
        5,
    )
    off = GradScaler(enabled=False)
    assert (off.state_dict(), off.get_scale(), off.is_enabled()) == ({}, 1.0, False)
    with pytest.raises(ArgumentError, match="the state is empty"):
        other.load_state_dict({})


def test_scaling_keeps_the_form_of_losses():
    x = mf.array([3.0], "float16")
    first, (second,) = GradScaler(init_scale=2.0).scale([x, (x,)])
    assert (first.item(), second.dtype) == (6.0, "float32")


@pytest.mark.parametrize(
    "options",
    [
        {"init_scale": 0},
        {"growth_factor": 1.0},
        {"backoff_factor": 1.0},
        {"growth_interval": 0},
        {"growth_interval": 1.5},
    ],
)
def test_wrong_numbers_are_refused(options):
    with pytest.raises(ArgumentError, match=rf"\[GradScaler\] {next(iter(options))} must be"):
        GradScaler(**options)


def test_wrong_order_is_refused():
    p, optimizer = model()
    scaler = GradScaler()
    with pytest.raises(ArgumentError, match="there was no step"):
        scaler.update()
    with pytest.raises(ArgumentError, match="keeps no gradients"):
        scaler.step(optimizer)
    with pytest.raises(DTypeError, match="scale takes floating Vars"):
        scaler.scale(mf.array([1]))
    optimizer.backward(scaler.scale((p * p).sum()))
    scaler.unscale_(optimizer)
    with pytest.raises(ArgumentError, match="already"):
        scaler.unscale_(optimizer)
