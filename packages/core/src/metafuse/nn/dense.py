"""Linear and bilinear layers, and the layer that does nothing.

What it is: weights, their first values, and the call of the operator.
What it is not: the computation (``ops.neural.basic``).
Who calls it: users.
"""

from __future__ import annotations

from math import sqrt
from typing import Any

from .. import init
from ..ops import neural
from ..ops.neural.checks import integer
from .module import Module

__all__ = ["Bilinear", "Identity", "Linear"]


class Linear(Module):
    """``x @ weight.T + bias`` on the last dimension.

    Args:
        in_features, out_features: extents of the last dimension before and after.
        bias: whether a number per output feature is added.

    Weights and biases start uniform in +-1/sqrt(in_features).

    Example:
        >>> import metafuse as mf
        >>> mf.nn.Linear(4, 2)(mf.ones([3, 4])).shape
        (3, 2)

    Source: x @ weight.T + bias.
    """

    _shown = ("in_features", "out_features")

    def __init__(self, in_features: int, out_features: int, bias: bool = True) -> None:
        self.in_features = integer("Linear", "in_features", in_features, 1)
        self.out_features = integer("Linear", "out_features", out_features, 1)
        self.weight = init.invariant_uniform([self.out_features, self.in_features], "float32")
        bound = 1.0 / sqrt(self.in_features)
        self.bias = init.uniform([self.out_features], "float32", -bound, bound) if bias else None

    def execute(self, x: Any) -> Any:
        return neural.linear(x, self.weight, self.bias)


class Bilinear(Module):
    """``in1 @ weight[o] @ in2 + bias[o]`` for each output feature o.

    Example:
        >>> import metafuse as mf
        >>> mf.nn.Bilinear(3, 4, 5)(mf.ones([2, 3]), mf.ones([2, 4])).shape
        (2, 5)

    Source: in1 @ weight[o] @ in2.
    """

    _shown = ("in1_features", "in2_features", "out_features")

    def __init__(
        self,
        in1_features: int,
        in2_features: int,
        out_features: int,
        bias: bool = True,
        dtype: Any = "float32",
    ) -> None:
        self.in1_features = integer("Bilinear", "in1_features", in1_features, 1)
        self.in2_features = integer("Bilinear", "in2_features", in2_features, 1)
        self.out_features = integer("Bilinear", "out_features", out_features, 1)
        bound = 1.0 / sqrt(self.in1_features)
        shape = [self.out_features, self.in1_features, self.in2_features]
        self.weight = init.uniform(shape, dtype, -bound, bound)
        self.bias = init.uniform([self.out_features], dtype, -bound, bound) if bias else None

    def execute(self, in1: Any, in2: Any) -> Any:
        return neural.bilinear(in1, in2, self.weight, self.bias)


class Identity(Module):
    """Answers its input; any arguments are accepted.

    Example:
        >>> import metafuse as mf
        >>> mf.nn.Identity()(7)
        7

    Source: y = x.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def execute(self, input: Any) -> Any:
        return input
