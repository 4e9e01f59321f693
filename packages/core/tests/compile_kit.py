"""Twins for tests of ``metafuse.compile``: one world runs plainly and one compiled, and they must stay equal bit by bit."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

import metafuse as mf
from metafuse import nn
from metafuse.capture import Compiled


class World:
    """A model, its optimizer, and the data of a run; two of the same seed are equal."""

    def __init__(self, make: Callable[[World], Callable[..., Any]], compiled: bool, seed: int = 3) -> None:
        mf.set_global_seed(seed)
        self.offset = 0
        self.rng = np.random.default_rng(seed)
        self.vars: list[Any] = []
        function = make(self)
        self.step: Any = mf.compile(function) if compiled else function
        mf.sync_all()

    def data(self, *shape: int) -> Any:
        return self.rng.standard_normal(shape).astype(np.float32)


def values(thing: Any) -> Any:
    """Results as arrays, structure kept."""
    if isinstance(thing, mf.Var):
        return thing.numpy()
    if isinstance(thing, dict):
        return {k: values(v) for k, v in thing.items()}
    if isinstance(thing, (list, tuple)):
        return [values(v) for v in thing]
    return thing


def same(a: Any, b: Any) -> None:
    assert type(a) is type(b)
    if isinstance(a, dict):
        assert a.keys() == b.keys()
        for k in a:
            same(a[k], b[k])
    elif isinstance(a, list):
        assert len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            same(x, y)
    elif isinstance(a, np.ndarray):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)
    else:
        assert a == b


def twins(
    make: Callable[[World], Callable[..., Any]],
    calls: int = 9,
    arguments: Callable[[World, int], tuple[Any, ...]] = lambda w, k: (),
    between: Callable[[World, int], Any] = lambda w, k: None,
    replayed: int | None = None,
) -> Any:
    """Run both worlds and compare; answers the compiled function. ``replayed``: at least so many replays."""
    outcomes = []
    step: Any = None
    for compiled in (False, True):
        world = World(make, compiled)
        seen = []
        for k in range(calls):
            between(world, k)
            seen.append(values(world.step(*arguments(world, k))))
            seen.append([v.numpy() for v in world.vars])
        seen.append(mf.rand(3).numpy())
        seen.append([v.requires_grad for v in world.vars])
        outcomes.append(seen)
        step = world.step
    same(outcomes[0], outcomes[1])
    assert isinstance(step, Compiled)
    if replayed is not None:
        assert step.plain == 0
        assert step.replayed >= replayed, (step.recorded, step.replayed)
    return step


class Perceptron(nn.Module):
    def __init__(self, *, dropout: bool = False, norm: bool = False) -> None:
        self.first = nn.Linear(4, 6)
        self.norm = nn.BatchNorm(6) if norm else nn.Identity()
        self.drop = nn.Dropout(0.3) if dropout else nn.Identity()
        self.second = nn.Linear(6, 3)

    def execute(self, x: Any) -> Any:
        return self.second(self.drop(nn.relu(self.norm(self.first(x)))))


MOMENTUM = functools.partial(nn.SGD, lr=0.1, momentum=0.9)


def trainer(
    optimizer: Callable[..., Any] = MOMENTUM, **options: Any
) -> Callable[[World], Callable[..., Any]]:
    def make(world: World) -> Callable[..., Any]:
        net = Perceptron(**options)
        tuned = optimizer(net.parameters())
        world.net, world.optimizer = net, tuned  # type: ignore[attr-defined]
        world.vars = net.parameters()

        def step(x: Any, y: Any) -> Any:
            loss = nn.cross_entropy_loss(net(x), y)
            tuned.step(loss)
            return loss

        return step

    return make


def batch(world: World, k: int) -> tuple[Any, ...]:
    return mf.array(world.data(5, 4)), mf.array((np.arange(5) + k) % 3)
