"""A worker process: it loads the batches that it is told to, one after another, and puts them into shared memory.

What it is: ``work``, what such a process runs, and the messages it exchanges with its parent.
What it is not: the decision which worker loads what (``data.pool``).
Who calls it: ``data.pool``, as the target of a process.

A worker never blocks its parent: a thread of its own takes messages from the pipe as they come, and what it sends is small,
whatever is in a batch.
"""

from __future__ import annotations

import os
import pickle
import queue
import random
import signal
import threading
import time
import traceback
from collections import deque
from multiprocessing import connection, parent_process
from typing import Any, NamedTuple

import numpy as np

from ..graph.node import state
from ..ops.random import set_global_seed
from .arena import Arena, Packed

__all__ = ["Done", "Failed", "Task", "work"]

_TEXT = 20_000  # characters of a traceback that are sent


class Task(NamedTuple):
    """A batch to load: its number, the items, what randomness begins with, and the epoch."""

    number: int
    indices: list[Any]
    seed: tuple[int, ...]
    epoch: int


class Done(NamedTuple):
    """A batch that lies in the arena, and the worker's seconds so far: loading, waiting for tasks, waiting for space."""

    number: int
    packed: Packed
    seconds: tuple[float, float, float]


class Failed(NamedTuple):
    """A batch that could not be loaded: the exception, pickled (empty if it can't be), and its traceback."""

    number: int
    error: bytes
    text: str


def work(dataset: Any, pipe: connection.Connection, arena: Arena, others: list[Any], number: int) -> None:
    """Load batches until told to stop or the parent is gone. ``others`` are ends of pipes that a forked process has
    inherited."""
    _settle(others)
    _Worker(dataset, pipe, arena, number).run()


def _settle(others: list[Any]) -> None:
    """Make a forked or new process a worker: interrupts are the parent's business, and what the parent had begun too."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    for pipe in others:
        pipe.close()
    state.pending.clear()


class _Worker:
    def __init__(self, dataset: Any, pipe: connection.Connection, arena: Arena, number: int) -> None:
        self.dataset = dataset
        self.pipe = pipe
        self.arena = arena
        self.number = number
        self.inbox: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.tasks: deque[Task] = deque()
        self.first_wanted = 0  # tasks before this one have been given up
        self.seconds = [0.0, 0.0, 0.0]

    def run(self) -> None:
        threading.Thread(target=self._receive, daemon=True).start()
        while True:
            began = time.perf_counter()
            while not self.tasks:
                if not self._take():
                    return
            self.seconds[1] += time.perf_counter() - began
            task = self.tasks.popleft()
            if task.number < self.first_wanted:
                continue
            answer = self._answer(task)
            if answer is not None:
                self.pipe.send(answer)

    def _receive(self) -> None:
        """Take messages from the pipe as they come; a parent that is gone ends this process, whatever it is doing."""
        parent = parent_process()
        watched = [self.pipe] if parent is None else [self.pipe, parent.sentinel]
        while True:
            try:
                if self.pipe not in connection.wait(watched):  # type: ignore[arg-type]
                    os._exit(0)
                message = self.pipe.recv()
            except (EOFError, OSError):
                os._exit(0)
            if isinstance(message, tuple) and message[0] == "give up":
                self.first_wanted = message[1]
            self.inbox.put(message)
            if message == "stop":
                return

    def _take(self) -> bool:
        """Handle one message; whether to go on."""
        message = self.inbox.get()
        if message == "stop":
            return False
        if isinstance(message, Task):
            self.tasks.append(message)
        elif message[0] == "free":
            self.arena.free(message[1])
        return True

    def _answer(self, task: Task) -> Done | Failed | None:
        """Load a batch; ``None`` if it was given up, or the end was told, while waiting for space."""
        began = time.perf_counter()
        try:
            self._begin(task)
            stream, buffers = self.arena.flatten(self.dataset._load(task.indices))
            needed = self.arena.space(stream, buffers)
            self.seconds[0] += time.perf_counter() - began
            began = time.perf_counter()
            while (start := self.arena.reserve(needed)) is None:
                if not self._take():
                    self.inbox.put("stop")
                    return None
                if task.number < self.first_wanted:
                    return None
            self.seconds[2] += time.perf_counter() - began
            packed = self.arena.write(start, stream, buffers)
        except Exception as error:
            return self._failure(task, error)
        load, wait, space = self.seconds
        return Done(task.number, packed, (load, wait, space))

    def _begin(self, task: Task) -> None:
        """Randomness depends on the batch alone: not on the worker that loads it, or on how many there are."""
        seed = int(np.random.SeedSequence(task.seed).generate_state(1, np.uint64)[0]) >> 1
        set_global_seed(seed, False)
        random.seed(seed)
        self.dataset.epoch_id = task.epoch

    def _failure(self, task: Task, error: Exception) -> Failed:
        text = "".join(traceback.format_exception(type(error), error, error.__traceback__))
        if len(text) > _TEXT:
            text = f"{text[:2000]}\n[...]\n{text[2000 - _TEXT :]}"
        shown = (
            f"{task.indices}"
            if len(task.indices) <= 16
            else f"{task.indices[:16]} and {len(task.indices) - 16} more"
        )
        head = f"in worker {self.number} (process {os.getpid()}), which loaded items {shown[:500]}:\n"
        try:
            pickled = pickle.dumps(error)
            pickle.loads(pickled)
        except Exception:  # an exception may hold anything
            pickled = b""
        return Failed(task.number, pickled if len(pickled) < _TEXT else b"", head + text)
