"""Dropout layers: act in training mode only.

What it is: ``Dropout``, ``Dropout2d`` and ``DropPath``.
What it is not: the computation (``ops.neural.basic``).
Who calls it: users.

As in the reference API they begin *not* in training mode; ``Module.train()`` of the network turns them on.
"""

from __future__ import annotations

from typing import Any

from ..ops import neural
from ..ops.meta import check_flag
from ..ops.neural.checks import fraction
from .module import Module

__all__ = ["DropPath", "Dropout", "Dropout2d"]


class Dropout(Module):
    """In training, zero each element with probability ``p`` and divide the others by ``1 - p``.

    Example:
        >>> import metafuse as mf
        >>> mf.nn.Dropout(0.5)(mf.ones([3])).numpy()
        array([1., 1., 1.], dtype=float32)

    Source: Srivastava et al. 2014.
    """

    _shown = ("p",)

    def __init__(self, p: float = 0.5, is_train: bool = False) -> None:
        self.p = fraction(type(self).__name__, "p", p)
        self.is_train = check_flag(type(self).__name__, "is_train", is_train)

    def execute(self, input: Any) -> Any:
        return neural.dropout(input, self.p, self.is_train)


class Dropout2d(Dropout):
    """As ``Dropout``, but whole channels are zeroed.

    Example:
        >>> import metafuse as mf
        >>> mf.nn.Dropout2d(0.5).eval()(mf.ones([1, 2, 2, 2])).shape
        (1, 2, 2, 2)

    Source: Tompson et al. 2015.
    """

    def execute(self, input: Any) -> Any:
        return neural.dropout2d(input, self.p, self.is_train)


class DropPath(Dropout):
    """As ``Dropout``, but whole samples are zeroed.

    Example:
        >>> import metafuse as mf
        >>> mf.nn.DropPath(0.5).eval()(mf.ones([2, 3])).tolist()
        [[1.0, 1.0, 1.0], [1.0, 1.0, 1.0]]

    Source: Huang et al. 2016, stochastic depth.
    """

    def execute(self, x: Any) -> Any:
        return neural.droppath(x, self.p, self.is_train)
