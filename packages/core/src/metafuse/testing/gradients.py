"""Numeric check of gradients.

What it is: ``check_grads``, which compares the gradients of any function of Vars with central differences in float64,
and ``Check``, the same in steps, so that many functions can be evaluated as one program.
What it is not: part of computing gradients (``ops.autograd``).
Who calls it: the level "autograd", and users for functions and operators of their own.

Source: central differences with step h have an error of order h**2 plus rounding of order eps/h; in float64 the step
eps**(1/3), about 6e-6, balances the two.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from ..arguments import checked
from ..errors import ArgumentError, DTypeError
from ..ops.autograd import grad
from ..ops.creation import array64
from ..ops.meta import fill
from ..ops.reduce import reduce
from ..ops.scalar import multiply
from ..var import Var, sync

__all__ = ["Check", "GradientError", "check_grads"]

Array = np.ndarray[Any, Any]


class GradientError(AssertionError):
    """A gradient differs from the numeric one."""


@checked
def check_grads(
    function: Callable[..., Any],
    inputs: Sequence[Any],
    *,
    order: int = 1,
    numpy: Callable[..., Any] | None = None,
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
        numpy: a function of arrays with the same meaning to take differences of; default: ``function`` itself.
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
    for what, number, most in (
        ("order", order, 4),
        ("directions", directions, 10_000),
        ("seed", seed, 2**63 - 1),
    ):
        if not (what == "order") <= number <= most:
            raise ArgumentError(f"[check_grads] {what} must be {int(what == 'order')}..{most}, got {number}")
    label = name or getattr(function, "__name__", "function")
    first = Check(function, inputs, numpy, rtol=rtol, atol=atol, step=step, seed=seed, name=label)
    checks = [first]
    for lower in range(1, order):

        def derivative(*arguments: Any, _lower: int = lower) -> list[Var]:
            return _derivatives(function, arguments, first.places, _lower, seed)

        again = f"{label}, derivative {lower}"
        checks.append(Check(derivative, inputs, None, rtol=rtol, atol=atol, step=step, seed=seed, name=again))
    sync([v for check in checks for v in check.analytic])
    for check in checks:
        check.finish(directions)


def _host(x: Any) -> Any:
    if isinstance(x, Var):
        x = x.numpy()
    elif isinstance(x, (int, float, list)) and not isinstance(x, bool):
        x = np.atleast_1d(np.asarray(x))
    if isinstance(x, np.ndarray) and x.dtype.kind == "f":
        return x.astype(np.float64)
    return x


def _answers(value: Any) -> tuple[Any, ...]:
    return tuple(value) if isinstance(value, (tuple, list)) else (value,)


def _weights(shapes: Iterable[tuple[int, ...]], seed: int) -> list[Array]:
    random = np.random.default_rng(seed)
    return [np.asarray(random.uniform(0.5, 1.5, shape)) for shape in shapes]


def _weighted(answers: Any, seed: int) -> Var:
    """The sum of all floating answers, each element times a random weight that depends on ``seed`` only."""
    floats = [y for y in _answers(answers) if y.dtype.is_float]
    if not floats:
        raise ArgumentError(
            "[check_grads] the function answers no floating Var; there is nothing to differentiate"
        )
    total: Any = None
    for y, w in zip(floats, _weights((tuple(y.shape) for y in floats), seed), strict=True):
        part = reduce(multiply(y, array64(w.astype(y.dtype.numpy)).stop_grad()), "add")
        total = part if total is None else total + part
    return total  # type: ignore[no-any-return]


def _derivatives(
    function: Callable[..., Any], arguments: Sequence[Any], places: list[int], order: int, seed: int
) -> list[Var]:
    """Gradients of the weighted answers, ``order`` times, with respect to the arguments at ``places``."""
    answers = function(*arguments)
    for number in range(order):
        answers = _gradients(_weighted(answers, seed + number), [arguments[k] for k in places])
    return list(answers)


def _gradients(loss: Var, targets: list[Var]) -> list[Var]:
    """Zeros where the loss does not depend on a target: here that is an answer like any other."""
    if not loss.requires_grad:
        return [fill(tuple(t.shape), 0, t.dtype) for t in targets]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        found: list[Var] = grad(loss, targets)
        return found


class Check:
    """The check of one function at one point. ``analytic`` are the Vars to evaluate, then ``finish`` compares.

    The arguments are those of ``check_grads``.
    """

    def __init__(
        self, function: Callable[..., Any], inputs: Sequence[Any], numpy: Callable[..., Any] | None = None, *,
        rtol: float = 1e-5, atol: float = 1e-6, step: float = 6e-6, seed: int = 0, name: str = "function",
    ) -> None:  # fmt: skip
        self.function, self.numpy, self.name = function, numpy, name
        self.rtol, self.atol, self.step = rtol, atol, step
        self.values = [_host(x) for x in inputs]
        self.places = [
            k for k, x in enumerate(self.values) if isinstance(x, np.ndarray) and x.dtype == np.float64
        ]
        if not self.places:
            raise ArgumentError(
                f"[check_grads] none of the inputs of {name} is floating; nothing to differentiate"
            )
        if not step > 0:
            raise ArgumentError(f"[check_grads] step must be > 0, got {step!r}")
        self.random = np.random.default_rng([seed, 1])
        self.seed = int(self.random.integers(2**31))
        arguments = self._vars(self.values)
        answers = function(*arguments)
        for y in _answers(answers):
            if not isinstance(y, Var):
                raise DTypeError(f"[check_grads] {name} must answer Vars, got {type(y).__name__}")
        self.floating = [y.dtype.is_float for y in _answers(answers)]
        self.analytic = _gradients(_weighted(answers, self.seed), [arguments[k] for k in self.places])

    @staticmethod
    def _vars(values: Sequence[Any]) -> list[Any]:
        return [array64(x) if isinstance(x, np.ndarray) else x for x in values]

    def finish(self, directions: int = 2) -> None:
        """Compare along random directions; raise ``GradientError`` where a derivative is wrong."""
        analytic = [g.numpy() for g in self.analytic]
        for k, g in zip(self.places, analytic, strict=True):
            if g.shape != self.values[k].shape or g.dtype != np.float64:
                wanted = f"float64{list(self.values[k].shape)}"
                raise GradientError(
                    f"[{self.name}] gradient of input {k}: {g.dtype}{list(g.shape)}, expected {wanted}"
                )
        for _ in range(directions):
            chosen = [self.random.uniform(-1, 1, self.values[k].shape) for k in self.places]
            slope = sum(float((g * d).sum()) for g, d in zip(analytic, chosen, strict=True))
            size = sum(float(np.abs(g * d).sum()) for g, d in zip(analytic, chosen, strict=True))
            numeric = self._numeric(chosen)
            if not self._close(slope, numeric, size):
                self._locate(analytic)
                raise GradientError(
                    f"[{self.name}] derivative along a random direction: {slope:.9g}, numeric {numeric:.9g}"
                )

    def _close(self, analytic: float, numeric: float, size: float = 0.0) -> bool:
        """NaN is never close."""
        return abs(analytic - numeric) <= self.atol + self.rtol * max(abs(numeric), size)

    def _numeric(self, chosen: list[Array]) -> float:
        """The central difference along a direction."""
        both = []
        for sign in (1, -1):
            moved = list(self.values)
            for k, d in zip(self.places, chosen, strict=True):
                moved[k] = moved[k] + sign * self.step * d
            both.append(moved)
        if self.numpy is not None:
            high, low = map(self._host_loss, both)
        else:
            losses = [_weighted(self.function(*self._vars(moved)), self.seed) for moved in both]
            sync(losses)
            high, low = (float(x.item()) for x in losses)
        return (high - low) / (2 * self.step)

    def _host_loss(self, moved: list[Any]) -> float:
        assert self.numpy is not None
        answers = [y for y, floats in zip(_answers(self.numpy(*moved)), self.floating, strict=True) if floats]
        weights = _weights((np.shape(y) for y in answers), self.seed)
        return sum(
            float(np.sum(np.asarray(y, np.float64) * w)) for y, w in zip(answers, weights, strict=True)
        )

    def _locate(self, analytic: list[Array]) -> None:
        """Raise with the first element whose derivative is wrong."""
        for number, k in enumerate(self.places):
            for at in list(np.ndindex(self.values[k].shape))[:200]:
                chosen = [np.zeros_like(self.values[p]) for p in self.places]
                chosen[number][at] = 1.0
                numeric = self._numeric(chosen)
                if not self._close(float(analytic[number][at]), numeric):
                    place = ",".join(map(str, at))
                    raise GradientError(
                        f"[{self.name}] gradient of input {k} at ({place}): {analytic[number][at]:.9g}, "
                        f"numeric {numeric:.9g}"
                    )
