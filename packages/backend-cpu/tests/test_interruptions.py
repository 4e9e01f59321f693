"""An interruption at any moment: what is pending stays so, what is stored is whole, and no mode stays behind."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

import metafuse as mf
from metafuse.hot import compiled
from metafuse.runtime import executor

pytestmark = [
    pytest.mark.compiler,
    pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no timers that signal"),
]


class Stop(BaseException):
    """What the signal handler raises."""


@contextmanager
def alarms(seconds: float) -> Iterator[None]:
    armed = [True]

    def ring(*_: Any) -> None:
        if armed:
            armed.clear()
            raise Stop

    before = signal.signal(signal.SIGALRM, ring)
    try:
        signal.setitimer(signal.ITIMER_REAL, seconds)
        yield
    finally:
        armed.clear()
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@pytest.mark.skipif(compiled is None, reason="in Python a signal may be handled as __exit__ begins")
def test_no_mode_stays_behind() -> None:
    """The alarm rings where a Python ``__exit__`` would begin, and wherever else it happens to."""
    for number in range(400):
        try:
            with alarms(2e-5 + number % 20 * 3e-6):
                while True:
                    with mf.no_grad(), mf.enable_grad():
                        pass
        except Stop:
            pass
        assert (mf.ones(2) * 2).requires_grad


@pytest.mark.skipif(compiled is None, reason="in Python a signal may be handled as __exit__ begins")
def test_a_scope_is_no_python_function() -> None:
    assert type(mf.no_grad.__exit__) is type(list.append)
    assert type(mf.enable_grad.__enter__) is type(list.append)


def test_scopes_nest_and_repeat() -> None:
    scope = mf.no_grad()
    with scope, scope:
        assert not (mf.ones(2) * 2).requires_grad
        with mf.enable_grad():
            assert (mf.ones(2) * 2).requires_grad
        assert not (mf.ones(2) * 2).requires_grad
    assert (mf.ones(2) * 2).requires_grad
    with pytest.raises((RuntimeError, IndexError)):
        scope.__exit__(None, None, None)


@pytest.mark.parametrize("python", [False, True])
def test_what_is_computed_is_stored_whole(python: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tracing function raises at every line of the Python code that the storing of results runs through, in turn."""
    if python:
        monkeypatch.setattr(executor, "compiled", None)
    pytest.importorskip("metafuse_backend_cpu")
    x = mf.array(np.arange(4, dtype="float32"))
    wanted = np.arange(4) * 2 + 1
    for _ in range(3):  # until the graph's way is known
        mf.sync([x * 2 + 1, (x * 2).stop_grad()])
    for moment in range(1, 12):
        with mf.no_grad():
            y = x * 2 + 1
            z = y * 3
        count = [0]

        def line(
            frame: Any, event: str, argument: Any, count: list[int] = count, moment: int = moment
        ) -> Any:
            count[0] += event == "line"
            if count[0] == moment:
                raise Stop
            return line

        def call(frame: Any, event: str, argument: Any) -> Any:
            return line if frame.f_code.co_name in ("_store", "inputs") else None

        try:
            sys.settrace(call)
            mf.sync([y, z])
        except Stop:
            pass
        finally:
            sys.settrace(None)
        assert y._node.buffer is not None and z._node.buffer is not None
        assert y._node.inputs == z._node.inputs == ()
        assert np.array_equal(y.numpy(), wanted) and np.array_equal(z.numpy(), wanted * 3)
