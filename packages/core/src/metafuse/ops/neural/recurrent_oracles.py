"""What recurrent steps and sequences mean, in plain NumPy.

What it is: one function per operator of ``recurrent``.
What it is not: fast, or used when a user computes something.
Who calls it: the operator records; through them the conformance kit and the tests.
"""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


def _sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


def _sums(x: Array, h: Array, w_ih: Array, w_hh: Array, b_ih: Any, b_hh: Any) -> tuple[Array, Array]:
    return x @ w_ih.T + (0 if b_ih is None else b_ih), h @ w_hh.T + (0 if b_hh is None else b_hh)


def rnn_cell(
    x: Array,
    h: Array,
    w_ih: Array,
    w_hh: Array,
    b_ih: Any = None,
    b_hh: Any = None,
    nonlinearity: str = "tanh",
) -> Array:
    """tanh or relu of the sum of both products."""
    total = sum(_sums(x, h, w_ih, w_hh, b_ih, b_hh))
    return np.tanh(total) if nonlinearity == "tanh" else np.maximum(total, 0)


def lstm_cell(
    x: Array,
    h: Array,
    c: Array,
    w_ih: Array,
    w_hh: Array,
    b_ih: Any = None,
    b_hh: Any = None,
    weight_hr: Any = None,
) -> tuple[Array, Array]:
    """The new h and c."""
    i, f, g, o = np.split(sum(_sums(x, h, w_ih, w_hh, b_ih, b_hh)), 4, -1)
    c = _sigmoid(f) * c + _sigmoid(i) * np.tanh(g)
    h = _sigmoid(o) * np.tanh(c)
    return (h if weight_hr is None else h @ weight_hr.T), c


def gru_cell(x: Array, h: Array, w_ih: Array, w_hh: Array, b_ih: Any = None, b_hh: Any = None) -> Array:
    """The new h."""
    a, b = (np.split(s, 3, -1) for s in _sums(x, h, w_ih, w_hh, b_ih, b_hh))
    reset, update = _sigmoid(a[0] + b[0]), _sigmoid(a[1] + b[1])
    return (1 - update) * np.tanh(a[2] + reset * b[2]) + update * h


def _steps(x: Array, reverse: bool) -> range:
    return range(len(x) - 1, -1, -1) if reverse else range(len(x))


def rnn_sequence(
    x: Array, h: Array, w_ih: Array, w_hh: Array, b_ih: Any = None, b_hh: Any = None, nonlinearity: str = "tanh",
    reverse: bool = False,
) -> tuple[Array, Array]:  # fmt: skip
    """Outputs and last h."""
    ys: list[Any] = [None] * len(x)
    for t in _steps(x, reverse):
        ys[t] = h = rnn_cell(x[t], h, w_ih, w_hh, b_ih, b_hh, nonlinearity)
    return np.stack(ys), h


def lstm_sequence(
    x: Array, h: Array, c: Array, w_ih: Array, w_hh: Array, b_ih: Any = None, b_hh: Any = None,
    weight_hr: Any = None, reverse: bool = False,
) -> tuple[Array, Array, Array]:  # fmt: skip
    """Outputs, last h and last c."""
    ys: list[Any] = [None] * len(x)
    for t in _steps(x, reverse):
        h, c = lstm_cell(x[t], h, c, w_ih, w_hh, b_ih, b_hh, weight_hr)
        ys[t] = h
    return np.stack(ys), h, c


def gru_sequence(
    x: Array, h: Array, w_ih: Array, w_hh: Array, b_ih: Any = None, b_hh: Any = None, reverse: bool = False
) -> tuple[Array, Array]:
    """Outputs and last h."""
    ys: list[Any] = [None] * len(x)
    for t in _steps(x, reverse):
        ys[t] = h = gru_cell(x[t], h, w_ih, w_hh, b_ih, b_hh)
    return np.stack(ys), h
