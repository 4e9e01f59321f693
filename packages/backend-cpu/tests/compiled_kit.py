"""What the tests of the compiled paths share: arrays, and fixtures that count or avoid the Python that they stand for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import metafuse as mf
from metafuse import hot
from metafuse.ops import autograd, recipe
from metafuse.runtime import executor

RANDOM = np.random.default_rng(3)
X = RANDOM.standard_normal((6, 8)).astype(np.float32)
IMAGE = RANDOM.standard_normal((2, 4, 9, 9)).astype(np.float32)


class Calls:
    """How often the Python code ran."""

    evaluations = gradients = 0


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    """Counts runs of the Python that the compiled paths stand for."""
    count = Calls()
    run, upstream = executor._run, autograd._upstream

    def counted_run(roots: Any) -> None:
        count.evaluations += 1
        run(roots)

    def counted_upstream(*arguments: Any) -> Any:
        count.gradients += 1
        return upstream(*arguments)

    monkeypatch.setattr(executor, "_run", counted_run)
    monkeypatch.setattr(autograd, "_upstream", counted_upstream)
    return count


@pytest.fixture
def in_python(monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], None]:
    """Switches evaluation, compositions and gradients to Python and back."""

    def switch(on: bool) -> None:
        for module in (executor, recipe, autograd):
            monkeypatch.setattr(module, "compiled", None if on else hot.compiled)

    return switch


def prepare_anew() -> None:
    """Have every known program ask the backend for its functions again."""
    for route in executor.device().routes.values():
        route.prepared = None


def trainable(value: np.ndarray[Any, Any]) -> mf.Var:
    return mf.array(value).start_grad()
