"""Activation layers.

What it is: modules without state that call one function, and ``PReLU``, which learns its slope.
What it is not: the functions (``ops.neural.activation``, ``ops.scalar``).
Who calls it: users.
"""

from __future__ import annotations

from typing import Any

from .. import init
from ..errors import ArgumentError, brief
from ..ops import neural
from ..ops.meta import check_flag
from ..ops.neural.checks import integer, plain
from ..ops.scalar import sigmoid, tanh
from .module import Module

__all__ = [
    "ELU",
    "GELU",
    "LeakyReLU",
    "Leaky_relu",
    "Mish",
    "PReLU",
    "ReLU",
    "ReLU6",
    "Relu",
    "SiLU",
    "Sigmoid",
    "Softmax",
    "Softplus",
    "Tanh",
]


class ReLU(Module):
    """``max(x, 0)``.

    Example:
        >>> import metafuse as mf
        >>> mf.nn.ReLU()(mf.array([-2.0, 0.5])).numpy().round(3)
        array([0. , 0.5], dtype=float32)

    Source: max(x, 0).
    """

    def execute(self, x: Any) -> Any:
        return neural.relu(x)


Relu = ReLU


class ReLU6(Module):
    """``min(max(x, 0), 6)``.

    Example:
        >>> import metafuse as mf
        >>> mf.nn.ReLU6()(mf.array([-2.0, 0.5])).numpy().round(3)
        array([0. , 0.5], dtype=float32)

    Source: min(max(x, 0), 6).
    """

    def execute(self, x: Any) -> Any:
        return neural.relu6(x)


class LeakyReLU(Module):
    """``x`` where it is positive, else ``scale * x``.

    Example:
        >>> import metafuse as mf
        >>> mf.nn.LeakyReLU(0.1)(mf.array([-2.0, 0.5])).numpy().round(3)
        array([-0.2,  0.5], dtype=float32)

    Source: x if x > 0 else scale * x.
    """

    _shown = ("scale",)

    def __init__(self, scale: float = 0.01) -> None:
        self.scale = plain("LeakyReLU", "scale", scale)

    def execute(self, x: Any) -> Any:
        return neural.leaky_relu(x, self.scale)


Leaky_relu = LeakyReLU


class PReLU(Module):
    """``x`` where it is positive, else ``weight * x`` with learned weights: one, or one per channel.

    Args:
        num_parameters: 1 or the number of channels.
        init_: the first value of the weights.

    Example:
        >>> import metafuse as mf
        >>> mf.nn.PReLU()(mf.array([-2.0, 0.5])).numpy().round(3)
        array([-0.5,  0.5], dtype=float32)

    Source: x if x > 0 else weight * x.
    """

    _shown = ("num_parameters",)

    def __init__(self, num_parameters: int = 1, init_: float = 0.25) -> None:
        self.num_parameters = integer("PReLU", "num_parameters", num_parameters, 1)
        self.weight = init.constant([self.num_parameters], "float32", plain("PReLU", "init_", init_))

    def execute(self, x: Any) -> Any:
        return neural.prelu(x, self.weight)


class ELU(Module):
    """``x`` where it is positive, else ``alpha * (exp(x) - 1)``.

    Example:
        >>> import metafuse as mf
        >>> mf.nn.ELU()(mf.array([-2.0, 0.5])).numpy().round(3)
        array([-0.865,  0.5  ], dtype=float32)

    Source: Clevert et al. 2015.
    """

    _shown = ("alpha",)

    def __init__(self, alpha: float = 1.0) -> None:
        self.alpha = plain("ELU", "alpha", alpha)

    def execute(self, x: Any) -> Any:
        return neural.elu(x, self.alpha)


class GELU(Module):
    """``x`` times the standard normal distribution function of ``x``.

    Example:
        >>> import metafuse as mf
        >>> mf.nn.GELU()(mf.array([-2.0, 0.5])).numpy().round(3)
        array([-0.046,  0.346], dtype=float32)

    Source: Hendrycks and Gimpel 2016, the exact form.
    """

    def execute(self, x: Any) -> Any:
        return neural.gelu(x)


class SiLU(Module):
    """``x * sigmoid(x)``.

    Example:
        >>> import metafuse as mf
        >>> mf.nn.SiLU()(mf.array([-2.0, 0.5])).numpy().round(3)
        array([-0.238,  0.311], dtype=float32)

    Source: Elfwing et al. 2017.
    """

    def execute(self, x: Any) -> Any:
        return neural.silu(x)


class Mish(Module):
    """``x * tanh(softplus(x))``; ``inplace`` has no effect.

    Example:
        >>> import metafuse as mf
        >>> mf.nn.Mish()(mf.array([-2.0, 0.5])).numpy().round(3)
        array([-0.253,  0.375], dtype=float32)

    Source: Misra 2019.
    """

    def __init__(self, inplace: bool = False) -> None:
        self.inplace = inplace

    def execute(self, x: Any) -> Any:
        return neural.mish(x)


class Sigmoid(Module):
    """``1 / (1 + exp(-x))``.

    Example:
        >>> import metafuse as mf
        >>> mf.nn.Sigmoid()(mf.array([-2.0, 0.5])).numpy().round(3)
        array([0.119, 0.622], dtype=float32)

    Source: logistic function.
    """

    def execute(self, x: Any) -> Any:
        return sigmoid(x)


class Tanh(Module):
    """Hyperbolic tangent.

    Example:
        >>> import metafuse as mf
        >>> mf.nn.Tanh()(mf.array([-2.0, 0.5])).numpy().round(3)
        array([-0.964,  0.462], dtype=float32)

    Source: NumPy.
    """

    def execute(self, x: Any) -> Any:
        return tanh(x)


class Softplus(Module):
    """``log(1 + exp(beta * x)) / beta``, and ``x`` itself where ``beta * x > threshold``.

    Example:
        >>> import metafuse as mf
        >>> mf.nn.Softplus()(mf.array([-2.0, 0.5])).numpy().round(3)
        array([0.127, 0.974], dtype=float32)

    Source: log(1 + exp(x)).
    """

    _shown = ("beta", "threshold")

    def __init__(self, beta: float = 1, threshold: float = 20) -> None:
        self.beta = plain("Softplus", "beta", beta)
        self.threshold = plain("Softplus", "threshold", threshold)
        if beta == 0:
            raise ArgumentError(f"[Softplus] beta must not be 0, got {brief(beta)}")

    def execute(self, x: Any) -> Any:
        return neural.softplus(x, self.beta, self.threshold)


class Softmax(Module):
    """Softmax over ``dim`` (``None``: over everything); with ``log`` its logarithm.

    Example:
        >>> import metafuse as mf
        >>> mf.nn.Softmax(1)(mf.array([[0.0, 0.0]])).tolist()
        [[0.5, 0.5]]

    Source: exp(x - max) / sum(exp(x - max)).
    """

    _shown = ("dim",)

    def __init__(self, dim: Any = None, log: bool = False) -> None:
        self.dim = dim
        self.log = check_flag(type(self).__name__, "log", log)

    def execute(self, x: Any) -> Any:
        return neural.softmax(x, self.dim, self.log)
