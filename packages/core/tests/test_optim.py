"""Optimizers: update rules against plain NumPy loops, groups, clipping, saving, errors."""

from __future__ import annotations

import math

import numpy as np
import pytest

import metafuse as mf
from metafuse import nn, optim
from metafuse.errors import ArgumentError, DTypeError, GradientError, MetafuseError

TARGET = np.array([1.0, -2.0, 0.5])
START = np.array([0.3, 0.2, -0.4])


def loss_of(p):
    """A loss whose gradient is 2 * (p - target) * p**0 + cos(p)."""
    return ((p - mf.array64(TARGET)).sqr() + p.sin()).sum()


def gradient(p):
    return 2 * (p - TARGET) + np.cos(p)


def run(make, steps=5):
    p = mf.array64(START)
    opt = make([p])
    for _ in range(steps):
        opt.step(loss_of(p))
    return p.numpy(), opt


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"momentum": 0.9},
        {"momentum": 0.9, "weight_decay": 0.1},
        {"momentum": 0.8, "dampening": 0.3},
        {"momentum": 0.9, "nesterov": True, "weight_decay": 0.01},
    ],
)
def test_sgd(options):
    found, _ = run(lambda ps: optim.SGD(ps, 0.1, **options))
    p, v = START.copy(), np.zeros(3)
    momentum, dampening = options.get("momentum", 0), options.get("dampening", 0)
    for _ in range(5):
        d = p * options.get("weight_decay", 0) + gradient(p)
        v = momentum * v + d * (1 - dampening)
        p = p - 0.1 * (d + momentum * v if options.get("nesterov") else v)
    np.testing.assert_allclose(found, p, rtol=1e-10)


@pytest.mark.parametrize("decay", [0, 0.1])
def test_adam(decay):
    found, _ = run(lambda ps: optim.Adam(ps, 0.05, betas=(0.8, 0.95), weight_decay=decay))
    p, m, v = START.copy(), np.zeros(3), np.zeros(3)
    for n in range(1, 6):
        g = gradient(p) + decay * p
        m, v = 0.8 * m + 0.2 * g, 0.95 * v + 0.05 * g * g
        p = p - 0.05 * math.sqrt(1 - 0.95**n) / (1 - 0.8**n) * m / (np.sqrt(v) + 1e-8)
    np.testing.assert_allclose(found, p, rtol=1e-10)


def test_adamw():
    found, _ = run(lambda ps: optim.AdamW(ps, 0.05, weight_decay=0.1))
    p, m, v = START.copy(), np.zeros(3), np.zeros(3)
    for n in range(1, 6):
        g = gradient(p)
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        p = p * (1 - 0.05 * 0.1)
        p = p - 0.05 / (1 - 0.9**n) * m / (np.sqrt(v / (1 - 0.999**n)) + 1e-8)
    np.testing.assert_allclose(found, p, rtol=1e-10)


def test_rmsprop():
    found, _ = run(lambda ps: optim.RMSprop(ps, 0.05, alpha=0.9))
    p, v = START.copy(), np.zeros(3)
    for _ in range(5):
        g = gradient(p)
        v = 0.9 * v + 0.1 * g * g
        p = p - 0.05 * g / (np.sqrt(v) + 1e-8)
    np.testing.assert_allclose(found, p, rtol=1e-10)


@pytest.mark.parametrize("centered", [False, True])
@pytest.mark.parametrize("momentum", [0, 0.8])
def test_rmsprop_with_decay_momentum_and_centre(momentum, centered):
    found, _ = run(
        lambda ps: optim.RMSprop(
            ps, 0.05, alpha=0.9, weight_decay=0.1, momentum=momentum, centered=centered, eps=1e-3
        )
    )
    p, v, a, b = START.copy(), np.zeros(3), np.zeros(3), np.zeros(3)
    for _ in range(5):
        g = gradient(p) + 0.1 * p
        v, a = 0.9 * v + 0.1 * g * g, 0.9 * a + 0.1 * g
        b = momentum * b + g / (np.sqrt(v - a * a if centered else v) + 1e-3)
        p = p - 0.05 * b
    np.testing.assert_allclose(found, p, rtol=1e-10)


def test_rmsprop_centred_on_a_gradient_that_stays_is_finite():
    p = mf.array([1.0, 0.0])
    optimizer = optim.RMSprop([p], 0.01, alpha=0.1, centered=True)
    for _ in range(60):
        optimizer.step((p * mf.array([0.3, 0.0])).sum())
    assert np.isfinite(p.numpy()).all()


def test_rmsprop_goes_on_from_its_state():
    first, second = mf.array(START), mf.array(START)
    one, other = (
        optim.RMSprop([{"params": [p], "momentum": 0.9}], 0.01, centered=True) for p in (first, second)
    )
    for _ in range(3):
        one.step((first * first * first).sum())
    second.update(first.clone())
    second.start_grad()
    other.load_state_dict(one.state_dict())
    for p, optimizer in ((first, one), (second, other)):
        optimizer.step((p * p * p).sum())
    np.testing.assert_array_equal(first.numpy(), second.numpy())


def test_adan():
    found, _ = run(lambda ps: optim.Adan(ps, 0.05, weight_decay=0.02))
    p, m, v, n = START.copy(), np.zeros(3), np.zeros(3), np.zeros(3)
    before = None
    b0, b1, b2 = 0.98, 0.92, 0.99
    for k in range(1, 6):
        g = gradient(p)
        d = 0 if before is None else g - before
        m, v = b0 * m + (1 - b0) * g, b1 * v + (1 - b1) * d
        n = b2 * n + (1 - b2) * (g + b1 * d) ** 2
        move = (m / (1 - b0**k) + b1 * v / (1 - b1**k)) / (np.sqrt(n / (1 - b2**k)) + 1e-8)
        p = (p - 0.05 * move) / (1 + 0.05 * 0.02)
        before = g
    np.testing.assert_allclose(found, p, rtol=1e-9)


def test_groups_have_options_of_their_own():
    a, b = mf.array64([1.0]), mf.array64([1.0])
    opt = nn.SGD([{"params": [a]}, {"params": [b], "lr": 1.0, "momentum": 0.5}], 0.1)
    for _ in range(2):
        opt.step((a * 2.0 + b * 2.0).sum())
    np.testing.assert_allclose([a.item(), b.item()], [1 - 0.4, 1 - 2 - 3])
    opt.add_param_group({"params": [mf.array64([5.0])], "lr": 0.5})
    assert len(opt.param_groups) == 3


def test_backward_accumulates_and_opt_grad_reads():
    p = mf.array([2.0])
    opt = optim.SGD([p], 0.1)
    opt.backward((p * 3.0).sum())
    opt.backward((p * p).sum())
    assert p.opt_grad(opt).item() == 7
    opt.step()
    assert p.item() == pytest.approx(1.3)
    with pytest.raises(GradientError, match=r"\[opt_grad\] no gradient"):
        p.opt_grad(opt)
    opt.backward((p * 3.0).sum())
    opt.zero_grad()
    opt.step()
    assert p.item() == pytest.approx(1.3)


@pytest.mark.parametrize("kind", [1, 2, 3, math.inf])
def test_clip_grad_norm(kind):
    a, b = mf.array64([3.0, -1.0]), mf.array64([2.0])
    weights = np.array([3.0, -4.0, 12.0])
    opt = optim.SGD([a, b], 1.0)
    opt.backward((a * mf.array64(weights[:2])).sum() + (b * 12.0).sum())
    opt.clip_grad_norm(2.0, kind)
    found = np.concatenate([a.opt_grad(opt).numpy(), b.opt_grad(opt).numpy()])
    np.testing.assert_allclose(found, weights * 2 / (np.linalg.norm(weights, kind) + 1e-6), rtol=1e-9)
    opt.clip_grad_norm(100.0)
    np.testing.assert_allclose(a.opt_grad(opt).numpy(), found[:2])


def test_frozen_parameters_stay():
    layer = nn.Linear(2, 2)
    layer.bias.stop_grad()
    before = layer.bias.numpy()
    opt = optim.SGD(layer.parameters(), 0.1, momentum=0.9)
    opt.step(layer(mf.ones([1, 2])).sum())
    np.testing.assert_array_equal(layer.bias.numpy(), before)
    assert layer.weight.requires_grad


def test_the_learning_rate_may_change_at_any_time_without_compiling():
    from metafuse.runtime.kernels import statistics

    p = mf.array64([1.0])
    opt = optim.SGD([p], 0.1, momentum=0.9)
    for _ in range(2):
        opt.step((p * p).sum())
    before, value = statistics.compilations, p.item()
    opt.lr, opt.momentum = 0.0, 0.5
    opt.step((p * p).sum())
    assert p.item() == value
    assert statistics.compilations == before


def test_state_round_trip():
    def fresh():
        p = mf.array64(START)
        return p, optim.Adam([{"params": [p], "lr": 0.05}], 0.1)

    p, opt = fresh()
    for _ in range(3):
        opt.step(loss_of(p))
    state, value = opt.state_dict(), p.numpy()
    opt.step(loss_of(p))
    q, other = fresh()
    q.update(mf.array64(value))
    q.start_grad()
    other.load_state_dict(state)
    assert other.n_step == 3
    other.step(loss_of(q))
    np.testing.assert_array_equal(p.numpy(), q.numpy())
    state["groups"][0]["state"]["m"][0] = np.zeros(7)
    with pytest.raises(ArgumentError, match=r"state 'm' of parameter 0 has shape \(7,\)"):
        other.load_state_dict(state)


def test_a_step_runs_as_one_program_with_running_statistics():
    net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm(4), nn.Linear(4, 2))
    opt = optim.SGD(net.parameters(), 0.1, momentum=0.9)
    x = mf.array(np.random.default_rng(0).standard_normal((8, 3)).astype(np.float32))
    first = None
    for _ in range(20):
        loss = nn.mse_loss(net(x), x[:, :2])
        opt.step(loss)
        first = loss.item() if first is None else first
    assert loss.item() < 0.5 * first
    assert abs(net[1].running_mean.numpy()).max() > 0
    assert not net[1].running_mean.requires_grad


def test_a_users_optimizer():
    class SignDescent(optim.Optimizer):
        def update(self, p, g, state, options):
            p.update(p - g.sign() * options["lr"])
            p.start_grad()

    p = mf.array([1.0, -1.0])
    SignDescent([p], 0.25).step((p * p).sum())
    np.testing.assert_allclose(p.numpy(), [0.75, -0.75])


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda p: optim.SGD([], 0.1), ArgumentError),
        (lambda p: optim.SGD(p, 0.1), DTypeError),
        (lambda p: optim.SGD([1.0], 0.1), DTypeError),
        (lambda p: optim.SGD([p], -0.1), ArgumentError),
        (lambda p: optim.SGD([p], "0.1"), ArgumentError),
        (lambda p: optim.SGD([p], 0.1, momentum=-1), ArgumentError),
        (lambda p: optim.SGD([p], 0.1, nesterov=True), ArgumentError),
        (lambda p: optim.SGD([p], 0.1, 0.9, nesterov="no"), DTypeError),
        (lambda p: optim.Adam([p], 0.1, betas=(0.9, 1.0)), ArgumentError),
        (lambda p: optim.Adam([p], 0.1, betas=(0.9,)), ArgumentError),
        (lambda p: optim.RMSprop([p], eps=-1), ArgumentError),
        (lambda p: optim.RMSprop([p], momentum=-0.1), ArgumentError),
        (lambda p: optim.RMSprop([p], centered=1.5), MetafuseError),
        (lambda p: optim.SGD([p], 0.1).step(1.0), DTypeError),
        (lambda p: optim.SGD([p.stop_grad()], 0.1).step((p * p).sum()), GradientError),
        (lambda p: optim.SGD([p], 0.1).add_param_group([p]), ArgumentError),
    ],
)
def test_errors(make, error):
    with pytest.raises(error) as caught:
        make(mf.array([1.0]))
    assert str(caught.value).startswith("[")


def test_an_input_that_was_computed_serves_every_step() -> None:
    net = nn.Linear(3, 1)
    optimizer = nn.SGD(net.parameters(), 0.1)
    x = mf.randn([4, 3])
    losses = []
    for _ in range(3):
        loss = net(x).sqr().mean()
        optimizer.step(loss)
        losses.append(loss.item())
    assert losses[2] < losses[0]
