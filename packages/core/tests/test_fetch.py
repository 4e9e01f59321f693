"""fetch and sync: when values come, in which order, what runs for them; hooks on Vars."""

from __future__ import annotations

import gc
import subprocess
import sys

import numpy as np
import pytest

import metafuse as mf
from metafuse.config import flag_scope
from metafuse.errors import ArgumentError, DTypeError
from metafuse.runtime.kernels import statistics


@pytest.fixture(autouse=True)
def reference_backend():
    mf.sync_all()
    with flag_scope(backend="reference"):
        yield
        gc.collect()
        mf.sync_all()


# -- fetch ----------------------------------------------------------------------------------------------------------
def test_values_come_with_the_next_evaluation_in_order():
    x, seen = mf.array([1.0, 2.0]), []
    before = statistics.programs
    mf.fetch("sum", x.sum(), 5, lambda *values: seen.append(values))
    mf.fetch(x * 2, x, lambda a, b: seen.append((a, b)))
    mf.fetch(lambda: seen.append("nothing"))
    assert (seen, statistics.programs) == ([], before)
    (x + 1).sync()
    assert statistics.programs == before + 1
    assert [seen[0][0], seen[0][1].tolist(), seen[0][2]] == ["sum", [3.0], 5]
    assert isinstance(seen[0][1], np.ndarray)
    assert [v.tolist() for v in seen[1]] == [[2.0, 4.0], [1.0, 2.0]]
    assert seen[2] == "nothing"


def test_what_exists_comes_at_once_and_as_it_was():
    x, seen = mf.array([1.0, 2.0]), []
    mf.fetch(x, seen.append)
    assert seen[0].tolist() == [1.0, 2.0]
    x.fetch(seen.append)
    assert len(seen) == 2
    y = x * 3
    y.fetch(seen.append)
    y.assign(y + 1)
    assert y.numpy().tolist() == [4.0, 7.0]
    assert seen[2].tolist() == [3.0, 6.0]
    seen[0][0] = 9  # a copy
    assert x.numpy().tolist() == [1.0, 2.0]


def test_a_function_may_evaluate_and_fetch():
    x, seen = mf.array([1.0]), []

    def first(value):
        seen.append(float(value[0] + (x * 10).item()))
        mf.fetch(x * 7, lambda v: seen.append(float(v[0])))

    mf.fetch(x + 1, first)
    mf.fetch(x + 2, lambda v: seen.append(float(v[0])))
    mf.sync_all()
    assert seen == [12.0, 3.0]
    mf.sync_all()
    assert seen == [12.0, 3.0, 7.0]


def test_an_error_of_a_function_comes_out_and_the_others_still_come():
    x, seen = mf.array([1.0]), []
    mf.fetch(x + 1, lambda v: 1 / 0)
    mf.fetch(x + 2, seen.append)
    with pytest.raises(ZeroDivisionError):
        mf.sync_all()
    mf.sync_all()
    assert [v.tolist() for v in seen] == [[3.0]]


def test_nothing_is_lost_at_the_end_of_the_process():
    code = "import metafuse as mf; mf.flags.backend = 'reference'; mf.fetch(mf.ones(2) + 1, print)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "[2. 2.]"


def test_a_fetch_keeps_no_gradient_path():
    x = mf.array([2.0])
    y = x * x
    y.fetch(lambda v: None)
    assert mf.grad(y, x).item() == 4.0


def test_fetch_checks_its_arguments():
    for arguments in ((), (mf.ones(1),), (mf.ones(1), 3)):
        with pytest.raises(ArgumentError, match="last argument"):
            mf.fetch(*arguments)
    with pytest.raises(DTypeError, match=r"vh\[1\]"):
        mf.fetch_sync([mf.ones(1), 3])


def test_fetch_sync():
    x = mf.array([1.0, 2.0])
    a, b = mf.fetch_sync([x + 1, x * 2])
    assert a.tolist() == [2.0, 3.0] and b.tolist() == [2.0, 4.0]
    assert (x + 1).fetch_sync().tolist() == [2.0, 3.0]


# -- sync -----------------------------------------------------------------------------------------------------------
def test_a_weak_sync_takes_older_values_along_and_a_strict_one_does_not():
    x = mf.array([1.0, 2.0])
    older, other = x + 1, x + 2
    y = other * 3
    y.sync(weak_sync=False)
    assert y._node.buffer is not None and older._node.buffer is None and other._node.buffer is None
    z = x * 5
    mf.sync([z], True)
    assert all(v._node.buffer is not None for v in (older, other, z))
    assert (
        older.numpy().tolist() == [2.0, 3.0]
        and other.numpy().tolist() == [3.0, 4.0]
        and y.numpy().tolist() == [9.0, 12.0]
    )


def test_a_strict_sync_leaves_others_right_where_memory_is_shared():
    x = mf.rand(1000)
    total, doubled = x.sum(), x * 2
    doubled.sync(weak_sync=False)
    np.testing.assert_allclose(total.item(), doubled.numpy().sum() / 2, rtol=1e-5)


def test_device_sync_waits(monkeypatch):
    from metafuse.runtime import executor

    waited = []
    monkeypatch.setattr(executor.device().backend, "synchronize", lambda: waited.append(1), raising=False)
    x = mf.ones(1)
    mf.sync_all(True)
    assert len(waited) == 1
    x.sync(True)
    mf.sync([x], device_sync=True)
    assert len(waited) == 3


# -- hooks on Vars ----------------------------------------------------------------------------------------------------
def test_hooks_see_and_replace_gradients_in_order():
    x, seen = mf.array([1.0, 2.0]), []
    y = x * 3
    assert y.register_hook(lambda g: seen.append(g.numpy().tolist())) is y
    y.register_hook(lambda g: g * 10)
    assert mf.grad((y * y).sum(), x).numpy().tolist() == [180.0, 360.0]
    assert seen == [[6.0, 12.0]]


def test_hooks_stay_where_the_graph_goes():
    x = mf.array([1.0])
    y = x * 3
    y.register_hook(lambda g: g * 10)
    z = y + 1
    del y
    gc.collect()
    assert mf.grad(z, x).item() == 30.0


def test_hooks_beside_functions_of_ones_own():
    class Twice(mf.Function):
        def execute(self, x):
            return x * 2

        def grad(self, g):
            return g * 2

    x = mf.array([1.0])
    y = Twice()(x)
    y.register_hook(lambda g: g * 10)
    assert mf.grad(y.sum(), x).item() == 20.0
    y.remove_hook()
    assert mf.grad(y.sum(), x).item() == 2.0


def test_hooks_are_removed():
    def tenfold(g):
        return g * 10

    x = mf.array([1.0])
    x.register_hook(tenfold)
    x.register_hook(tenfold)
    assert mf.grad(x * 2, x).item() == 200.0
    assert x.remove_hook(tenfold) is x
    assert mf.grad(x * 2, x).item() == 20.0
    x.remove_hook()
    assert mf.grad(x * 2, x).item() == 2.0
    with pytest.raises(ArgumentError, match="not registered"):
        x.remove_hook(tenfold)
    with pytest.raises(DTypeError, match="callable"):
        x.register_hook(5)
