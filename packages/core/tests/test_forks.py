"""Processes that are forked while another thread computes."""

from __future__ import annotations

import os
import signal
import threading
import time
from typing import Any

import numpy as np
import pytest

import metafuse as mf
from metafuse.runtime import executor

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")


def child_computes() -> int:
    """The exit status of a forked process that computes something."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            signal.alarm(20)  # ends the child, if it waits for ever
            x = mf.array(np.arange(6.0), "float32")
            right = mf.grad((x * x).sum(), x).tolist() == [0, 2, 4, 6, 8, 10] and mf.randn(5).shape == [5]
            status = 0 if right else 2
        finally:
            os._exit(status)
    return os.waitpid(pid, 0)[1]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_fork_waits_for_the_program_of_another_thread():
    inside, over = threading.Event(), []

    def slow(_: Any, data: dict[str, Any]) -> None:
        inside.set()
        time.sleep(0.3)
        over.append(True)
        np.copyto(data["outputs"][0], data["inputs"][0])

    thread = threading.Thread(target=lambda: mf.numpy_code((2,), "float32", [mf.ones(2)], slow).sync())
    thread.start()
    assert inside.wait(20)
    assert child_computes() == 0
    assert over
    thread.join()
    assert mf.ones(3).sum().item() == 3


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_fork_in_the_middle_of_the_own_program():
    found = []

    def forks(_: Any, data: dict[str, Any]) -> None:
        found.append(child_computes())
        np.copyto(data["outputs"][0], data["inputs"][0] * 2)

    assert mf.numpy_code((2,), "float32", [mf.ones(2)], forks).tolist() == [2, 2]
    assert found == [0]
    assert executor.lock.acquire(blocking=False)
    executor.lock.release()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_forks_beside_threads_that_never_rest():
    stop = threading.Event()

    def work() -> None:
        x = mf.randn(30, 30)
        while not stop.is_set():
            (mf.sin(x) @ x).sum().item()

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        assert [child_computes() for _ in range(10)] == [0] * 10
    finally:
        stop.set()
        for thread in threads:
            thread.join()
