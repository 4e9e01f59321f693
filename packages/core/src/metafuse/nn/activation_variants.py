"""More activation layers: self-normalising, shrinking and piecewise-linear ones, and gates.

What it is: modules that keep the numbers of one function.
What it is not: the functions (``ops.neural.activation_variants``), or the layers of the reference API (``activation``).
Who calls it: users.
"""

from __future__ import annotations

from typing import Any

from ..errors import ArgumentError, brief
from ..ops import neural
from ..ops.neural.checks import integer, plain
from .module import Module

__all__ = [
    "CELU", "GLU", "SELU", "Hardshrink", "Hardsigmoid", "Hardswish", "Hardtanh", "LogSigmoid", "LogSoftmax",
    "Softshrink", "Softsign", "Tanhshrink", "Threshold",
]  # fmt: skip


class SELU(Module):
    """``scale * x`` where it is positive, else ``scale * alpha * (exp(x) - 1)``, with the self-normalising constants.

    Example:
        >>> import metafuse as mf
        >>> mf.nn.SELU()(mf.array([-2.0, 0.5])).numpy().round(3)
        array([-1.52 ,  0.525], dtype=float32)

    Source: Klambauer et al. 2017.
    """

    def execute(self, x: Any) -> Any:
        return neural.selu(x)


class CELU(Module):
    """``x`` where it is positive, else ``alpha * (exp(x / alpha) - 1)``.

    Example:
        >>> import metafuse as mf
        >>> mf.nn.CELU()(mf.array([-2.0, 0.5])).numpy().round(3)
        array([-0.865,  0.5  ], dtype=float32)

    Source: Barron 2017.
    """

    _shown = ("alpha",)

    def __init__(self, alpha: float = 1.0) -> None:
        self.alpha = plain("CELU", "alpha", alpha)
        if alpha == 0:
            raise ArgumentError(f"[CELU] alpha must not be 0, got {brief(alpha)}")

    def execute(self, x: Any) -> Any:
        return neural.celu(x, self.alpha)


class Hardtanh(Module):
    """``x`` limited to ``min_val`` .. ``max_val``.

    Example:
        >>> import metafuse as mf
        >>> mf.nn.Hardtanh()(mf.array([-2.0, 0.5])).numpy().round(3)
        array([-1. ,  0.5], dtype=float32)

    Source: min(max(x, min_val), max_val).
    """

    _shown = ("min_val", "max_val")

    def __init__(self, min_val: float = -1.0, max_val: float = 1.0) -> None:
        self.min_val = plain("Hardtanh", "min_val", min_val)
        self.max_val = plain("Hardtanh", "max_val", max_val)
        if min_val > max_val:
            raise ArgumentError(
                f"[Hardtanh] min_val must not exceed max_val, got {brief(min_val)} and {brief(max_val)}"
            )

    def execute(self, x: Any) -> Any:
        return neural.hardtanh(x, self.min_val, self.max_val)


class Hardsigmoid(Module):
    """``min(max(x + 3, 0), 6) / 6``.

    Example:
        >>> import metafuse as mf
        >>> mf.nn.Hardsigmoid()(mf.array([-2.0, 0.5])).numpy().round(3)
        array([0.167, 0.583], dtype=float32)

    Source: min(max(x + 3, 0), 6) / 6.
    """

    def execute(self, x: Any) -> Any:
        return neural.hardsigmoid(x)


class Hardswish(Module):
    """``x * min(max(x + 3, 0), 6) / 6``.

    Example:
        >>> import metafuse as mf
        >>> mf.nn.Hardswish()(mf.array([-2.0, 0.5])).numpy().round(3)
        array([-0.333,  0.292], dtype=float32)

    Source: Howard et al. 2019.
    """

    def execute(self, x: Any) -> Any:
        return neural.hardswish(x)


class Softsign(Module):
    """``x / (1 + |x|)``.

    Example:
        >>> import metafuse as mf
        >>> mf.nn.Softsign()(mf.array([-2.0, 0.5])).numpy().round(3)
        array([-0.667,  0.333], dtype=float32)

    Source: x / (1 + |x|).
    """

    def execute(self, x: Any) -> Any:
        return neural.softsign(x)


class Tanhshrink(Module):
    """``x - tanh(x)``.

    Example:
        >>> import metafuse as mf
        >>> mf.nn.Tanhshrink()(mf.array([-2.0, 0.5])).numpy().round(3)
        array([-1.036,  0.038], dtype=float32)

    Source: x - tanh(x).
    """

    def execute(self, x: Any) -> Any:
        return neural.tanhshrink(x)


class Softshrink(Module):
    """``x`` moved towards 0 by ``lambd`` >= 0, and 0 where it would cross it.

    Example:
        >>> import metafuse as mf
        >>> mf.nn.Softshrink()(mf.array([-2.0, 0.5])).numpy().round(3)
        array([-1.5,  0. ], dtype=float32)

    Source: soft thresholding.
    """

    _shown = ("lambd",)

    def __init__(self, lambd: float = 0.5) -> None:
        self.lambd = plain("Softshrink", "lambd", lambd)
        if lambd < 0:
            raise ArgumentError(f"[Softshrink] lambd must be >= 0, got {brief(lambd)}")

    def execute(self, x: Any) -> Any:
        return neural.softshrink(x, self.lambd)


class Hardshrink(Module):
    """``x`` where ``|x| > lambd``, else 0.

    Example:
        >>> import metafuse as mf
        >>> mf.nn.Hardshrink()(mf.array([-2.0, 0.5])).numpy().round(3)
        array([-2.,  0.], dtype=float32)

    Source: hard thresholding.
    """

    _shown = ("lambd",)

    def __init__(self, lambd: float = 0.5) -> None:
        self.lambd = plain("Hardshrink", "lambd", lambd)

    def execute(self, x: Any) -> Any:
        return neural.hardshrink(x, self.lambd)


class Threshold(Module):
    """``x`` where it is above ``threshold``, else ``value``.

    Example:
        >>> import metafuse as mf
        >>> mf.nn.Threshold(0.0, -1.0)(mf.array([-2.0, 0.5])).tolist()
        [-1.0, 0.5]

    Source: x if x > threshold else value.
    """

    _shown = ("threshold", "value")

    def __init__(self, threshold: float, value: float) -> None:
        self.threshold = plain("Threshold", "threshold", threshold)
        self.value = plain("Threshold", "value", value)

    def execute(self, x: Any) -> Any:
        return neural.threshold(x, self.threshold, self.value)


class GLU(Module):
    """The first half of dimension ``dim`` times the sigmoid of the second.

    Example:
        >>> import metafuse as mf
        >>> mf.nn.GLU()(mf.array([[1.0, 2.0, 0.0, 0.0]])).tolist()
        [[0.5, 1.0]]

    Source: Dauphin et al. 2016.
    """

    _shown = ("dim",)

    def __init__(self, dim: int = -1) -> None:
        self.dim = integer("GLU", "dim", dim, -(2**31))

    def execute(self, x: Any) -> Any:
        return neural.glu(x, self.dim)


class LogSigmoid(Module):
    """``log(sigmoid(x))``.

    Example:
        >>> import metafuse as mf
        >>> mf.nn.LogSigmoid()(mf.array([-2.0, 0.5])).numpy().round(3)
        array([-2.127, -0.474], dtype=float32)

    Source: -softplus(-x).
    """

    def execute(self, x: Any) -> Any:
        return neural.log_sigmoid(x)


class LogSoftmax(Module):
    """Logarithm of softmax over ``dim`` (``None``: over everything).

    Example:
        >>> import metafuse as mf
        >>> mf.nn.LogSoftmax(1)(mf.array([[0.0, 0.0]])).numpy().round(4)
        array([[-0.6931, -0.6931]], dtype=float32)

    Source: log(softmax(x)).
    """

    _shown = ("dim",)

    def __init__(self, dim: Any = None) -> None:
        self.dim = dim

    def execute(self, x: Any) -> Any:
        return neural.log_softmax(x, self.dim)
