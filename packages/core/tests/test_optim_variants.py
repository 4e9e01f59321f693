"""Adagrad, Adamax, NAdam and RAdam against plain NumPy loops; limits on single elements of gradients."""

from __future__ import annotations

import math

import numpy as np
import pytest

import metafuse as mf
from metafuse import nn, optim
from metafuse.errors import ArgumentError, DTypeError

TARGET = np.array([1.0, -2.0, 0.5])
START = np.array([0.3, 0.2, -0.4])
STEPS = 8


def loss_of(p):
    return ((p - mf.array64(TARGET)).sqr() + p.sin()).sum()


def gradient(p):
    return 2 * (p - TARGET) + np.cos(p)


def run(make):
    p = mf.array64(START)
    optimizer = make([p])
    for _ in range(STEPS):
        optimizer.step(loss_of(p))
    return p.numpy()


@pytest.mark.parametrize(
    "options", [{}, {"lr_decay": 0.1, "weight_decay": 0.2, "initial_accumulator_value": 0.5}]
)
def test_adagrad(options):
    p, total = START.copy(), np.full(3, options.get("initial_accumulator_value", 0.0))
    for n in range(1, STEPS + 1):
        g = gradient(p) + options.get("weight_decay", 0) * p
        total = total + g * g
        p = p - 0.1 / (1 + (n - 1) * options.get("lr_decay", 0)) * g / (np.sqrt(total) + 1e-10)
    np.testing.assert_allclose(run(lambda ps: optim.Adagrad(ps, 0.1, **options)), p, rtol=1e-10)


@pytest.mark.parametrize("decay", [0, 0.2])
def test_adamax(decay):
    p, m, u = START.copy(), np.zeros(3), np.zeros(3)
    for n in range(1, STEPS + 1):
        g = gradient(p) + decay * p
        m, u = 0.9 * m + 0.1 * g, np.maximum(0.99 * u, np.abs(g) + 1e-8)
        p = p - 0.05 / (1 - 0.9**n) * m / u
    found = run(lambda ps: optim.Adamax(ps, 0.05, betas=(0.9, 0.99), weight_decay=decay))
    np.testing.assert_allclose(found, p, rtol=1e-10)


@pytest.mark.parametrize(
    "options", [{}, {"weight_decay": 0.2}, {"weight_decay": 0.2, "decoupled_weight_decay": True}]
)
def test_nadam(options):
    p, m, v, product = START.copy(), np.zeros(3), np.zeros(3), 1.0
    decay, apart = options.get("weight_decay", 0), options.get("decoupled_weight_decay", False)
    for n in range(1, STEPS + 1):
        g = gradient(p) + (0 if apart else decay * p)
        mu, ahead = (0.9 * (1 - 0.5 * 0.96 ** (k * 0.01)) for k in (n, n + 1))
        product *= mu
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        direction = ahead * m / (1 - product * ahead) + (1 - mu) * g / (1 - product)
        p = p * (1 - 0.05 * decay) if apart else p
        p = p - 0.05 * direction / (np.sqrt(v / (1 - 0.999**n)) + 1e-8)
    found = run(lambda ps: optim.NAdam(ps, 0.05, momentum_decay=0.01, **options))
    np.testing.assert_allclose(found, p, rtol=1e-9)


@pytest.mark.parametrize(
    "options", [{}, {"weight_decay": 0.2}, {"weight_decay": 0.2, "decoupled_weight_decay": True}]
)
def test_radam(options):
    p, m, v = START.copy(), np.zeros(3), np.zeros(3)
    decay, apart = options.get("weight_decay", 0), options.get("decoupled_weight_decay", False)
    longest, divided = 2 / (1 - 0.99) - 1, 0
    for n in range(1, STEPS + 1):
        g = gradient(p) + (0 if apart else decay * p)
        m, v = 0.9 * m + 0.1 * g, 0.99 * v + 0.01 * g * g
        p = p * (1 - 0.05 * decay) if apart else p
        length = longest - 2 * n * 0.99**n / (1 - 0.99**n)
        factor = 1.0
        if length > 5:
            divided += 1
            trust = (length - 4) * (length - 2) * longest / ((longest - 4) * (longest - 2) * length)
            factor = math.sqrt(trust * (1 - 0.99**n)) / (np.sqrt(v) + 1e-8)
        p = p - 0.05 * m / (1 - 0.9**n) * factor
    assert 0 < divided < STEPS  # both kinds of steps were made
    found = run(lambda ps: optim.RAdam(ps, 0.05, betas=(0.9, 0.99), **options))
    np.testing.assert_allclose(found, p, rtol=1e-9)


KINDS = [
    (optim.Adagrad, {"initial_accumulator_value": 0.25}),
    (optim.Adamax, {"weight_decay": 0.1}),
    (optim.NAdam, {}),
    (optim.RAdam, {"betas": (0.9, 0.9)}),
]


@pytest.mark.parametrize(("kind", "options"), KINDS)
def test_state_round_trip(kind, options):
    p = mf.array64(START)
    optimizer = kind([p], 0.1, **options)
    for _ in range(3):
        optimizer.step(loss_of(p))
    state, value = optimizer.state_dict(), p.numpy()
    optimizer.step(loss_of(p))
    q = mf.array64(value)
    other = kind([q], 0.7, **options)
    other.load_state_dict(state)
    other.step(loss_of(q))
    np.testing.assert_array_equal(p.numpy(), q.numpy())
    name = next(iter(state["groups"][0]["state"]))
    state["groups"][0]["state"][name][0] = np.zeros((7, 7))
    with pytest.raises(ArgumentError, match=r"has shape \(7, 7\)"):
        other.load_state_dict(state)


@pytest.mark.parametrize(("kind", "options"), KINDS)
def test_a_compiled_step_does_the_same(kind, options):
    def train(wrap):
        mf.set_global_seed(0)
        net = nn.Linear(3, 2)
        optimizer = kind(net.parameters(), 0.05, **options)
        x = mf.array(np.random.default_rng(0).standard_normal((8, 3)).astype(np.float32))

        def step(x):
            loss = net(x).sqr().mean()
            optimizer.step(loss)
            return loss

        run = wrap(step)
        return [run(x).item() for _ in range(STEPS)]

    plain = train(lambda step: step)
    np.testing.assert_allclose(train(mf.compile), plain, rtol=1e-5)
    assert plain[-1] < plain[0]


def test_clip_grad_value():
    a, b = mf.array64([3.0, -1.0, 0.0]), mf.array([2.0])
    optimizer = optim.SGD([a, b], 1.0)
    optimizer.backward((a * mf.array64([3.0, -4.0, 0.5])).sum() + (b * 0.25).sum())
    optimizer.clip_grad_value(1)
    np.testing.assert_array_equal(a.opt_grad(optimizer).numpy(), [1, -1, 0.5])
    np.testing.assert_array_equal(b.opt_grad(optimizer).numpy(), [0.25])
    assert b.opt_grad(optimizer).dtype == "float32"
    optimizer.zero_grad()
    optimizer.backward((a * float("nan")).sum() + b)
    optimizer.clip_grad_value(1)
    assert np.isnan(a.opt_grad(optimizer).numpy()).all()
    optimizer.step()
    with pytest.raises(ArgumentError, match=r"\[clip_grad_value\] clip_value must be a number >= 0"):
        optimizer.clip_grad_value(-1)


@pytest.mark.parametrize(
    "make",
    [
        lambda p: optim.Adagrad([p], lr_decay=-1),
        lambda p: optim.Adagrad([p], initial_accumulator_value=-1),
        lambda p: optim.Adamax([p], betas=(0.9, 1)),
        lambda p: optim.NAdam([p], momentum_decay=-1),
        lambda p: optim.RAdam([p], eps=-1),
    ],
)
def test_errors(make):
    with pytest.raises(ArgumentError, match=r"^\["):
        make(mf.array([1.0]))


@pytest.mark.parametrize("kind", [optim.NAdam, optim.RAdam])
def test_a_text_is_no_flag(kind):
    with pytest.raises(DTypeError, match="decoupled_weight_decay must be True or False, got 'no'"):
        kind([mf.array([1.0])], decoupled_weight_decay="no")
