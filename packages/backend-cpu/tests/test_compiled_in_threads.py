"""The compiled recording and evaluation where threads, interruptions and the end of the process come in between."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import metafuse as mf
from compiled_kit import Calls, X, calls, in_python, prepare_anew, trainable
from metafuse import hot
from metafuse.errors import DTypeError, KernelError
from metafuse.graph.node import Node, state
from metafuse.graph.recipe import Block, BlockNode, block_of
from metafuse.runtime import executor

pytestmark = pytest.mark.skipif(hot.compiled is None, reason="the compiled module was not built")

__all__ = ["calls", "in_python"]  # fixtures


def test_threads_beside_each_other() -> None:
    problems: list[str] = []

    def work(number: int) -> None:
        x = mf.array(X + number)
        for k in range(60):
            y = (x * k).sum(1)
            if not np.allclose(y.numpy(), ((X + number) * k).sum(1), rtol=1e-4, atol=1e-3):
                problems.append(f"{number} {k}")

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not problems


def test_what_is_recorded_in_the_middle_stays_pending(monkeypatch: pytest.MonkeyPatch) -> None:
    x = mf.array(X)
    (x * 2 + 11).sync()
    z = x * 2 + 11
    real = executor.registry().default_backend
    met: list[mf.Var] = []

    def recording() -> Any:
        met.append(x * 5)
        return real()

    monkeypatch.setattr(executor.registry(), "default_backend", recording)
    executor.chosen.clear()  # so that the device is asked for, as another thread might record meanwhile
    z.sync()
    assert met[0]._node.buffer is None
    mf.sync_all()
    assert met[0]._node.buffer is not None


def test_handles_stay_pending_once() -> None:
    x = mf.array(X)
    first, other = x * 2, x * 3
    for _ in range(3):
        other.assign(x * 4)  # bound anew
    kept = [x + k for k in range(5)]
    mf.sync([first], weak_sync=False)
    handles = [id(handle) for handle in state.pending if handle() is not None]
    assert len(handles) == len(set(handles)) == 6
    mf.sync_all()
    assert all(k._node.buffer is not None for k in (*kept, other))


def test_a_value_that_is_named_twice_is_known(calls: Calls) -> None:
    x = mf.array(X)
    for number in range(3):
        y, z = x * 2 + 13, x * 3 + 13
        calls.evaluations = 0
        mf.sync([y, z, y, z])
        assert calls.evaluations == (number == 0)
        assert np.array_equal(y.numpy(), X * 2 + 13)


@pytest.mark.parametrize("python", [False, True])
def test_an_interruption_leaves_no_marks(
    python: bool, in_python: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(block: Block) -> None:
        raise KeyboardInterrupt

    in_python(python)
    found: list[np.ndarray[Any, Any]] = []
    for number in range(5):
        x, w = trainable(X), trainable(X + 1)
        g, other = mf.grad((mf.nn.softmax(x * w, dim=1) * w).sum(), [x, w])
        mf.sync([g], weak_sync=False)
        h = (other * 2).exp()
        del other
        if number == 4:  # by now both are results of a block, of which one is stored
            with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
                patch.setattr(Block, "expand", interrupted)
                h.sync()
        found.append(h.numpy())
        assert np.array_equal(found[0], found[-1])


def test_without_a_device_nothing_is_lost(monkeypatch: pytest.MonkeyPatch, in_python: Any) -> None:
    def gone() -> Any:
        raise KernelError("[device] gone")

    x = mf.array(X)
    for python in (False, True):
        in_python(python)
        older = x * 2
        younger = older + 1
        with monkeypatch.context() as patch:
            patch.setattr(executor.registry(), "default_backend", gone)
            executor.chosen.clear()
            with pytest.raises(KernelError, match="gone"):
                younger.sync()
        mf.sync_all()
        assert older._node.buffer is not None
        assert np.array_equal(younger.numpy(), X * 2 + 1)


def test_an_interrupted_allocation_is_no_lack_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    x = mf.array(X)
    ((x * 6.5).abs() + 3).sync()
    met: list[int] = []

    def interrupted(count: int) -> Any:
        met.append(count)
        raise KeyboardInterrupt

    y = (x * 6.5).abs() + 3
    prepare_anew()
    monkeypatch.setattr(executor.device().backend, "alloc", interrupted)
    with pytest.raises(KeyboardInterrupt):
        y.sync()
    monkeypatch.undo()
    prepare_anew()
    assert len(met) == 1
    assert np.allclose(y.numpy(), np.abs(X * 6.5) + 3)


def test_what_has_no_truth_raises_after_a_known_pass_too() -> None:
    x = trainable(X)
    for _ in range(3):
        with pytest.raises(DTypeError, match="retain_graph must be True or False"):
            mf.grad((x * x).sum(), x, retain_graph=np.array([1, 2]))


def test_gradients_leave_the_marks_of_evaluations_alone() -> None:
    """``pos`` belongs to whoever holds the executor's lock, which gradients don't take."""
    x = trainable(X)
    for _ in range(4):
        y = x * 2 + 1
        loss = (y.exp() * y).sum()
        nodes, stack = [], [loss._node]
        while stack:
            nodes.append(stack.pop())
            stack.extend(nodes[-1].inputs)
        for number, node in enumerate(nodes):
            node.pos = number
        before = [node.pos for node in nodes]
        found = mf.grad(loss, [x, y])
        assert [node.pos for node in nodes] == before
        for node in nodes:
            node.pos = 0
        assert np.allclose(found[0].numpy(), 2 * np.exp(2 * X + 1) * (2 * X + 2), rtol=1e-4)


def test_a_block_is_expanded_once() -> None:
    x = trainable(X)
    for _ in range(3):
        y = mf.nn.softmax(x * 2, dim=1)
    assert type(y._node) is BlockNode
    block = block_of(y._node)[0]
    first = block.expand()
    again = block.expand()
    assert type(y._node) is Node
    assert all(a is b for a, b in zip(first, again, strict=True))
    assert y._node in first and np.allclose(y.numpy().sum(1), 1)


def test_gradients_beside_evaluations() -> None:
    """Both number the same nodes: an evaluation takes what other threads hold pending."""
    problems: list[str] = []
    interval = sys.getswitchinterval()

    def gradients(number: int, times: int = 100) -> None:
        x = trainable(X + number)
        for k in range(times):
            y = (x * 2).exp() * 0.001
            loss = (mf.nn.softmax(y * x, dim=1) * y).sum()
            first, second = mf.grad(loss, x), mf.grad(loss, x)
            if not np.allclose(first.numpy(), second.numpy(), rtol=1e-4):
                problems.append(f"gradients {number} {k}")

    def evaluations(number: int) -> None:
        for k in range(200):
            x, expected = mf.array(X + number), X + number
            for j in range(k % 7 + 1):
                x, expected = x * 1.5 + j, expected * np.float32(1.5) + j
            if not np.allclose(x.numpy(), expected, rtol=1e-4):
                problems.append(f"evaluations {number} {k}")

    def guarded(work: Callable[[int], None], number: int) -> None:
        try:
            work(number)
        except Exception as error:
            problems.append(repr(error))

    threads = [
        threading.Thread(target=guarded, args=(w, n)) for n in range(2) for w in (gradients, evaluations)
    ]
    gradients(0, 3)  # modes belong to all threads: what is composed under one is composed before
    sys.setswitchinterval(1e-5)
    try:
        for t in threads:
            t.start()
        for t in threads:
            t.join()
    finally:
        sys.setswitchinterval(interval)
    assert not problems


COMPUTING = (
    "import threading, time, numpy as np, metafuse as mf\n"
    "x = mf.array(np.ones((64, 64), np.float32)).start_grad()\n"
    "def work():\n"
    "    while True:\n"
    "        mf.grad((mf.nn.softmax(x * 2, dim=1) * x).sum(), x).sync()\n"
    "mf.grad((mf.nn.softmax(x * 2, dim=1) * x).sum(), x).sync()\n"
    "for _ in range(2): threading.Thread(target=work, daemon=True).start()\n"
    "time.sleep(0.5)\n"
)
COPYING = (
    "import threading, time, numpy as np, metafuse as mf\n"
    "x = mf.array(np.ones((256, 256), np.float32))\n"  # large enough to be copied without the interpreter's lock
    "def work():\n"
    "    while True: x.numpy()\n"
    "for _ in range(3): threading.Thread(target=work, daemon=True).start()\n"
    "end = time.time() + 0.3\n"
    "while time.time() < end: sum(range(1000))\n"
)


@pytest.mark.parametrize("script", [COMPUTING, COPYING], ids=["computing", "copying"])
def test_the_process_ends_while_threads_are_busy(script: str) -> None:
    for _ in range(3):
        subprocess.run([sys.executable, "-c", script], check=True, timeout=60)


def test_modes_are_of_a_thread() -> None:
    """Compositions switch gradient paths off for a while; another thread must not record cut ones meanwhile."""
    x = trainable(X)
    inside, done = threading.Event(), threading.Event()

    def work() -> None:
        with mf.no_grad():
            inside.set()
            done.wait(20)

    thread = threading.Thread(target=work)
    thread.start()
    inside.wait(20)
    try:
        for _ in range(3):
            assert (x * 2).requires_grad
            assert np.allclose(mf.grad((x * x).sum(), x).numpy(), 2 * X)
    finally:
        done.set()
        thread.join()
