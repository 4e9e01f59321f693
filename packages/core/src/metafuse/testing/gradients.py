"""Numeric check of gradients.

What it is: ``check_grads``, which compares the gradients of any function of Vars with central differences in float64.
What it is not: part of computing gradients (``ops.autograd``).
Who calls it: the level "autograd", and users for functions and operators of their own.

Source: central differences with step h have an error of order h**2 plus rounding of order eps/h; in float64 the step
eps**(1/3), about 6e-6, balances the two.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..errors import ArgumentError
from ..ops.autograd import grad
from ..ops.creation import array64
from ..ops.meta import fill
from ..ops.scalar import multiply
from ..var import Var, sync

__all__ = ["GradientError", "check_grads"]

Array = np.ndarray[Any, Any]


class GradientError(AssertionError):
    """A gradient differs from the numeric one."""


def check_grads(
    function: Callable[..., Any],
    inputs: Sequence[Any],
    *,
    order: int = 1,
    rtol: float = 1e-5,
    atol: float = 1e-6,
    step: float = 6e-6,
    directions: int = 2,
    seed: int = 0,
    name: str = "",
) -> None:
    """Check the gradients of ``function`` at ``inputs`` against central differences.

    The answers are weighted with random numbers and summed; the derivative of that sum along random directions of all
    floating inputs together is compared. Where it differs, every element is tried, so that the message can name one.

    Args:
        function: takes Vars, answers a Var or several; answers that are no floats are left out.
        inputs: arrays or Vars; floats are turned into float64 and differentiated, anything else is passed on as it is.
        order: 2 also checks the gradients of the gradients.
        rtol, atol: allowed difference, relative to the numeric derivative and absolute.
        step: how far to go in each direction.
        directions: how many random directions to try.
        name: what messages call the function; default: its own name.

    Errors:
        GradientError, which is an AssertionError, names the input, the place, and both numbers. ArgumentError if no
        input is floating.

    Example:
        >>> import metafuse as mf
        >>> from metafuse.testing import check_grads
        >>> check_grads(lambda x, y: mf.exp(x) * y, [[0.5, 1.0], [2.0, -3.0]], order=2)
    """
    values = [_host(x) for x in inputs]
    places = [k for k, x in enumerate(values) if isinstance(x, np.ndarray) and x.dtype == np.float64]
    if not places:
        raise ArgumentError("[check_grads] none of the inputs is floating; there is nothing to differentiate")
    label = name or getattr(function, "__name__", "function")
    random = np.random.default_rng(seed)
    _Check(function, values, places, random, label, rtol, atol, step).run(directions)
    for lower in range(1, order):

        def derivative(*arguments: Any, _lower: int = lower) -> list[Var]:
            return _derivatives(function, arguments, places, _lower, seed + _lower)

        _Check(derivative, values, places, random, f"{label}, derivative {lower}", rtol, atol, step).run(directions)


def _host(x: Any) -> Any:
    if isinstance(x, Var):
        x = x.numpy()
    elif isinstance(x, (int, float, list)) and not isinstance(x, bool):
        x = np.atleast_1d(np.asarray(x))
    if isinstance(x, np.ndarray) and x.dtype.kind == "f":
        return x.astype(np.float64)
    return x


def _var(x: Any) -> Any:
    return array64(x) if isinstance(x, np.ndarray) else x


def _weighted(answers: Any, seed: int) -> Var:
    """The sum of all floating answers, each element times a random weight that depends on ``seed`` only."""
    total: Var | None = None
    random = np.random.default_rng(seed)
    for y in answers if isinstance(answers, (tuple, list)) else (answers,):
        if not y.dtype.is_float:
            continue
        weights = array64(random.uniform(0.5, 1.5, tuple(y.shape)).astype(y.dtype.numpy)).stop_grad()
        part = multiply(y, weights).sum()  # type: ignore[attr-defined]
        total = part if total is None else total + part  # type: ignore[operator]
    if total is None:
        raise ArgumentError("[check_grads] the function answers no floating Var; there is nothing to differentiate")
    return total


def _derivatives(function: Callable[..., Any], arguments: Sequence[Any], places: list[int], order: int, seed: int) -> list[Var]:
    """Gradients of the weighted answers, ``order`` times, with respect to the arguments at ``places``."""
    answers = function(*arguments)
    found: list[Var] = []
    for number in range(order):
        loss = _weighted(answers, seed + number)
        found = answers = _gradients(loss, [arguments[k] for k in places])
    return found


def _gradients(loss: Var, targets: list[Var]) -> list[Var]:
    """Zeros where the loss does not depend on a target: here that is an answer like any other."""
    import warnings

    if not loss.requires_grad:
        return [fill(tuple(t.shape), 0, t.dtype) for t in targets]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        found: list[Var] = grad(loss, targets)
        return found


class _Check:
    """One function at one point."""

    def __init__(
        self, function: Callable[..., Any], values: list[Any], places: list[int], random: np.random.Generator,
        label: str, rtol: float, atol: float, step: float,
    ) -> None:  # fmt: skip
        self.function, self.values, self.places, self.random = function, values, places, random
        self.label, self.rtol, self.atol, self.step = label, rtol, atol, step
        self.seed = int(random.integers(2**31))

    def loss(self, values: Sequence[Any]) -> tuple[Var, list[Any]]:
        arguments = [_var(x) for x in values]
        return _weighted(self.function(*arguments), self.seed), arguments

    def run(self, directions: int) -> None:
        loss, arguments = self.loss(self.values)
        gradients = _gradients(loss, [arguments[k] for k in self.places])
        sync([loss, *gradients])
        analytic = [g.numpy() for g in gradients]
        for k, g in zip(self.places, analytic, strict=True):
            if g.shape != self.values[k].shape or g.dtype != np.float64:
                raise GradientError(
                    f"[{self.label}] gradient of input {k}: {g.dtype}{list(g.shape)}, expected "
                    f"float64{list(self.values[k].shape)}"
                )
        for _ in range(directions):
            chosen = [self.random.uniform(-1, 1, self.values[k].shape) for k in self.places]
            slope = sum(float((g * d).sum()) for g, d in zip(analytic, chosen, strict=True))
            size = sum(float(np.abs(g * d).sum()) for g, d in zip(analytic, chosen, strict=True))
            (numeric,) = self.numeric([chosen])
            if not self.close(slope, numeric, size):
                self.locate(analytic)
                raise GradientError(
                    f"[{self.label}] derivative along a random direction: {slope:.9g}, numeric {numeric:.9g}"
                )

    def close(self, analytic: float, numeric: float, size: float = 0.0) -> bool:
        """NaN is never close."""
        return abs(analytic - numeric) <= self.atol + self.rtol * max(abs(numeric), size)

    def numeric(self, batch: list[list[Array]]) -> list[float]:
        """Central differences along several directions, as one program."""
        losses = []
        for chosen in batch:
            for sign in (1, -1):
                moved = list(self.values)
                for k, d in zip(self.places, chosen, strict=True):
                    moved[k] = moved[k] + sign * self.step * d
                losses.append(self.loss(moved)[0])
        sync(losses)
        found = [float(x.item()) for x in losses]
        return [(a - b) / (2 * self.step) for a, b in zip(found[::2], found[1::2], strict=True)]

    def locate(self, analytic: list[Array]) -> None:
        """Raise with the first element whose derivative is wrong."""
        for number, k in enumerate(self.places):
            for at in list(np.ndindex(self.values[k].shape))[:200]:
                chosen = [np.zeros_like(self.values[p]) for p in self.places]
                chosen[number][at] = 1.0
                (numeric,) = self.numeric([chosen])
                if not self.close(float(analytic[number][at]), numeric):
                    place = ",".join(map(str, at))
                    raise GradientError(
                        f"[{self.label}] gradient of input {k} at ({place}): {analytic[number][at]:.9g}, "
                        f"numeric {numeric:.9g}"
                    )
