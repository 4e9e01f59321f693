"""A value that can't be computed: its error is raised where it is read, and nothing else suffers from it."""

from __future__ import annotations

import gc
from typing import Any
from weakref import ref

import numpy as np
import pytest

import metafuse as mf
from metafuse.errors import CompileError, KernelError, MetafuseError, OutOfMemory
from metafuse.graph.node import signature, state
from metafuse.runtime import executor
from metafuse.var import record

pytestmark = pytest.mark.compiler
X = np.arange(4, dtype="float32")


def rejected(x: mf.Var) -> Any:
    return mf.code([4], "float32", [x], cpu_src="nope;")


def throwing(x: mf.Var) -> Any:
    return mf.code([4], "float32", [x], cpu_src="throw 5;")


def too_large(x: mf.Var) -> Any:
    return mf.ones(2**62) * x[0]


CASES = [(rejected, CompileError), (throwing, KernelError), (too_large, OutOfMemory)]


@pytest.fixture(params=[False, True], ids=["compiled", "python"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("metafuse_backend_cpu")
    monkeypatch.setattr(state, "pending", [])  # what an earlier test's traceback still holds is not meant
    if request.param:
        monkeypatch.setattr(executor, "compiled", None)


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize(("fail", "kind"), CASES)
@pytest.mark.parametrize("read", [False, True])
def test_others_are_computed(fail: Any, kind: type[MetafuseError], read: bool) -> None:
    x = mf.array(X)
    bad = fail(x)
    beside = x * 7
    if read:
        with pytest.raises(kind):
            bad.sync()
    for number in range(1, 4):  # in the program's second run too
        assert np.array_equal((x * 2 + number).numpy(), X * 2 + number)
    for _ in range(2):
        with pytest.raises(kind):
            bad.sync()
    assert np.array_equal(beside.numpy(), X * 7)
    assert np.array_equal((x + 1).numpy(), X + 1)


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize(
    ("fail", "kind"), CASES[:2]
)  # the sum of the third is computed without its elements being stored
def test_what_is_made_of_it_fails_as_well(fail: Any, kind: type[MetafuseError]) -> None:
    x = mf.array(X)
    bad = fail(x)
    later, beside = bad.sum() + 1, x.sum()
    with pytest.raises(kind):
        mf.sync([later, beside])
    assert beside.item() == 6
    with pytest.raises(kind):
        later.sync()


@pytest.mark.usefixtures("way")
def test_everything_pending_is_asked_for() -> None:
    x = mf.array(X)
    bad = rejected(x)
    with pytest.raises(CompileError):
        mf.sync_all()
    del bad
    y = x * 3
    mf.sync_all()
    assert y._node.buffer is not None


@pytest.mark.usefixtures("way")
def test_what_younger_values_wait_for_stays_pending() -> None:
    x = mf.array(X)
    bad = rejected(x)
    older = x * 2
    asked = older + 1
    younger = asked + 1
    assert np.array_equal(asked.numpy(), X * 2 + 1)
    assert younger._node.handle in state.pending
    mf.sync_all()
    assert younger._node.buffer is not None
    assert np.array_equal(older.numpy(), X * 2)
    assert bad.shape == (4,)


@pytest.mark.usefixtures("way")
def test_the_error_keeps_nothing() -> None:
    x = mf.array(X)
    beside = x * 2
    held = [rejected(x)]
    bad = ref(held[0])
    gc.disable()
    try:
        with pytest.raises(CompileError):
            held[0].sync()
        held.clear()
        assert bad() is None
    finally:
        gc.enable()
    assert np.array_equal(beside.numpy(), X * 2)


class Exchange:
    """What other processes take part in."""

    ordered = True

    def __init__(self) -> None:
        self.count = 0

    def run(self, call: Any) -> None:
        self.count += 1


@pytest.mark.usefixtures("way")
def test_what_runs_once_does_not_run_again() -> None:
    x = mf.array(X)
    exchange = Exchange()
    sig = signature("opaque", "exchange", exchange, (x._node.spec,), x._node.spec, None, ())
    first = record(sig, (x._node,))
    bad = rejected(first)
    with pytest.raises(CompileError):
        (first + 1).sync()
    assert exchange.count == 1
    del bad
    first.sync()
