"""Recurrent layers: plain, LSTM and GRU, as single steps and as sequences of several levels.

What it is: weights under PyTorch's names (``weight_ih_l0``, ``bias_hh_l1_reverse`` ...), their first values, first states,
and the order of levels and directions.
What it is not: the computation (``ops.neural.recurrent``).
Who calls it: users.
"""

from __future__ import annotations

from math import sqrt
from typing import Any

from .. import init
from ..errors import ArgumentError, ShapeError
from ..ops import neural
from ..ops.creation import zeros
from ..ops.meta import check_flag, check_var
from ..ops.neural.checks import choice, fraction, integer, need_ndim
from ..ops.shape import concat, stack, transpose
from .module import Module

__all__ = ["GRU", "LSTM", "RNN", "GRUCell", "LSTMCell", "RNNBase", "RNNCell"]


class _Cell(Module):
    """Weights of one step."""

    _gates = 1
    _shown = ("input_size", "hidden_size")

    def __init__(self, input_size: int, hidden_size: int, bias: bool = True) -> None:
        kind = type(self).__name__
        self.input_size = integer(kind, "input_size", input_size, 1)
        self.hidden_size = integer(kind, "hidden_size", hidden_size, 1)
        self.bias = check_flag(kind, "bias", bias)
        bound, rows = 1.0 / sqrt(self.hidden_size), self._gates * self.hidden_size
        self.weight_ih = init.uniform([rows, self.input_size], "float32", -bound, bound)
        self.weight_hh = init.uniform([rows, self.hidden_size], "float32", -bound, bound)
        self.bias_ih = init.uniform([rows], "float32", -bound, bound) if self.bias else None
        self.bias_hh = init.uniform([rows], "float32", -bound, bound) if self.bias else None

    def _state(self, input: Any, name: str, given: Any) -> Any:
        """The state, zeros if it is ``None``."""
        need_ndim(type(self).__name__, "input", input, [2], "(batch, input_size)")
        wanted = (input.shape[0], self.hidden_size)
        return _checked(type(self).__name__, name, given, wanted, input)

    def _weights(self) -> tuple[Any, Any, Any, Any]:
        return self.weight_ih, self.weight_hh, self.bias_ih, self.bias_hh


def _checked(kind: str, name: str, given: Any, wanted: tuple[int, ...], like: Any) -> Any:
    if given is None:
        return zeros(wanted, dtype=like.dtype)
    given = check_var(kind, name, given)
    if tuple(given.shape) != wanted:
        raise ShapeError(f"[{kind}] {name} must have shape {wanted}, got {tuple(given.shape)}")
    return given


def _pair(kind: str, hx: Any) -> tuple[Any, Any]:
    if hx is None:
        return None, None
    if not isinstance(hx, (tuple, list)) or len(hx) != 2:
        raise ArgumentError(f"[{kind}] hx must be a pair (h, c) or None, got {type(hx).__name__}")
    return hx[0], hx[1]


class RNNCell(_Cell):
    """One step of a plain recurrent network.

    Args:
        input_size, hidden_size: >= 1.
        bias: whether numbers are added to both products.
        nonlinearity: ``"tanh"`` or ``"relu"``.

    Called with input ``[batch, input_size]`` and a state ``[batch, hidden_size]`` (zeros if left out), answers the new state.

    Example:
        >>> import metafuse as mf
        >>> mf.nn.RNNCell(3, 4)(mf.ones([2, 3])).shape
        (2, 4)

    Source: Elman 1990.
    """

    def __init__(
        self, input_size: int, hidden_size: int, bias: bool = True, nonlinearity: str = "tanh"
    ) -> None:
        super().__init__(input_size, hidden_size, bias)
        self.nonlinearity = choice("RNNCell", "nonlinearity", nonlinearity, ("tanh", "relu"))

    def execute(self, input: Any, hx: Any = None) -> Any:
        return neural.rnn_cell(input, self._state(input, "hx", hx), *self._weights(), self.nonlinearity)


class LSTMCell(_Cell):
    """One step of an LSTM; arguments as in ``RNNCell``.

    Called with input ``[batch, input_size]`` and a pair of states (zeros if left out), answers the new pair ``(h, c)``.

    Example:
        >>> import metafuse as mf
        >>> h, c = mf.nn.LSTMCell(3, 4)(mf.ones([2, 3]))
        >>> h.shape, c.shape
        ((2, 4), (2, 4))

    Source: Hochreiter and Schmidhuber 1997.
    """

    _gates = 4

    def execute(self, input: Any, hx: Any = None) -> Any:
        h, c = _pair("LSTMCell", hx)
        h, c = self._state(input, "h", h), self._state(input, "c", c)
        return neural.lstm_cell(input, h, c, *self._weights())


class GRUCell(_Cell):
    """One step of a GRU; arguments and call as in ``RNNCell``.

    Example:
        >>> import metafuse as mf
        >>> mf.nn.GRUCell(3, 4)(mf.ones([2, 3])).shape
        (2, 4)

    Source: Cho et al. 2014.
    """

    _gates = 3

    def execute(self, input: Any, hx: Any = None) -> Any:
        return neural.gru_cell(input, self._state(input, "hx", hx), *self._weights())


class RNNBase(Module):
    """Several levels of a recurrent network, each over a whole sequence.

    Args:
        mode: ``"RNN"``, ``"LSTM"`` or ``"GRU"``.
        input_size, hidden_size: >= 1.
        num_layers: levels; each takes the outputs of the one below.
        bias: whether numbers are added to both products.
        batch_first: input and output are ``[batch, length, ...]`` instead of ``[length, batch, ...]``.
        dropout: share of the outputs between levels that is zeroed in training.
        bidirectional: a second set of weights runs from the end; outputs stand side by side.
        proj_size: if > 0, an LSTM's outputs are projected to this size, which is below ``hidden_size``.
        nonlinearity: ``"tanh"`` or ``"relu"``, of an RNN.

    All weights start uniform in +-1/sqrt(hidden_size).

    Example:
        >>> import metafuse as mf
        >>> y, h = mf.nn.RNNBase("GRU", 3, 4)(mf.ones([5, 2, 3]))
        >>> y.shape, h.shape
        ((5, 2, 4), (1, 2, 4))

    Source: Elman 1990.
    """

    _shown = ("input_size", "hidden_size", "num_layers")

    def __init__(
        self,
        mode: str,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0,
        bidirectional: bool = False,
        proj_size: int = 0,
        nonlinearity: str | None = None,
    ) -> None:
        kind = type(self).__name__
        self.mode = choice(kind, "mode", mode, ("RNN", "LSTM", "GRU"))
        self.input_size = integer(kind, "input_size", input_size, 1)
        self.hidden_size = integer(kind, "hidden_size", hidden_size, 1)
        self.num_layers = integer(kind, "num_layers", num_layers, 1)
        self.bias = check_flag(kind, "bias", bias)
        self.batch_first = check_flag(kind, "batch_first", batch_first)
        self.dropout = fraction(kind, "dropout", dropout)
        self.bidirectional = check_flag(kind, "bidirectional", bidirectional)
        self.proj_size = integer(kind, "proj_size", proj_size, 0)
        self.nonlinearity = nonlinearity
        if mode == "RNN":
            self.nonlinearity = choice(kind, "nonlinearity", nonlinearity, ("tanh", "relu"))
        if self.proj_size and (mode != "LSTM" or self.proj_size >= self.hidden_size):
            raise ArgumentError(
                f"[{kind}] proj_size needs an LSTM and a size below hidden_size {hidden_size}, got {proj_size}"
            )
        for level in range(self.num_layers):
            for suffix in self._suffixes(level):
                self._make(level, suffix)

    def _suffixes(self, level: int) -> list[str]:
        """Ends of the parameters' names, per direction."""
        return [f"l{level}", f"l{level}_reverse"][: 2 if self.bidirectional else 1]

    def _make(self, level: int, suffix: str) -> None:
        width = self.proj_size or self.hidden_size
        inputs = self.input_size if level == 0 else width * (2 if self.bidirectional else 1)
        rows = self.hidden_size * {"RNN": 1, "LSTM": 4, "GRU": 3}[self.mode]
        shapes = {"weight_ih": [rows, inputs], "weight_hh": [rows, width]}
        if self.bias:
            shapes.update(bias_ih=[rows], bias_hh=[rows])
        if self.proj_size:
            shapes["weight_hr"] = [self.proj_size, self.hidden_size]
        bound = 1.0 / sqrt(self.hidden_size)
        for name, shape in shapes.items():
            setattr(self, f"{name}_{suffix}", init.uniform(shape, "float32", -bound, bound))

    def _weights(self, suffix: str) -> tuple[Any, Any, Any, Any]:
        names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        w_ih, w_hh, b_ih, b_hh = (getattr(self, f"{name}_{suffix}", None) for name in names)
        return w_ih, w_hh, b_ih, b_hh

    def call_rnn_cell(self, input: Any, hidden: Any, suffix: str) -> Any:
        """One step with the weights of this suffix (``"l0"``, ``"l0_reverse"`` ...)."""
        raise NotImplementedError(f"[{type(self).__name__}] has no call_rnn_cell; use RNN, LSTM or GRU")

    def call_rnn_sequence(self, input: Any, hidden: Any, suffix: str) -> tuple[Any, Any]:
        """All steps of one level and direction: outputs ``[length, batch, width]`` and the last state.

        ``hidden``: a state ``[batch, width]``, or a pair of states for an LSTM.
        """
        weights, reverse = self._weights(suffix), suffix.endswith("reverse")
        if self.mode == "LSTM":
            projection = getattr(self, f"weight_hr_{suffix}", None)
            h, c = hidden
            y, h, c = neural.lstm_sequence(input, h, c, *weights, projection, reverse)
            return y, (h, c)
        if self.mode == "GRU":
            y, h = neural.gru_sequence(input, hidden, *weights, reverse)
            return y, h
        y, h = neural.rnn_sequence(input, hidden, *weights, str(self.nonlinearity), reverse)
        return y, h

    def _first_states(self, input: Any, hx: Any) -> list[Any]:
        """Per level and direction, the state it begins with."""
        kind = type(self).__name__
        count = self.num_layers * (2 if self.bidirectional else 1)
        batch = input.shape[1]
        h, c = _pair(kind, hx) if self.mode == "LSTM" else (hx, None)
        h = self._rows_of("h", h, (count, batch, self.proj_size or self.hidden_size), input)
        if self.mode != "LSTM":
            return h
        c = self._rows_of("c", c, (count, batch, self.hidden_size), input)
        return list(zip(h, c, strict=True))

    def _rows_of(self, name: str, given: Any, wanted: tuple[int, ...], like: Any) -> list[Any]:
        """A state per level and direction, zeros if it is ``None``."""
        if given is None:
            return [zeros(wanted[1:], dtype=like.dtype) for _ in range(wanted[0])]
        given = _checked(type(self).__name__, name, given, wanted, like)
        return [given[k] for k in range(wanted[0])]

    def execute(self, input: Any, hx: Any = None) -> Any:
        kind = type(self).__name__
        input = check_var(kind, "input", input)
        order = "(batch, length, input_size)" if self.batch_first else "(length, batch, input_size)"
        need_ndim(kind, "input", input, [3], order)
        if input.shape[2] != self.input_size:
            raise ShapeError(
                f"[{kind}] input must be {order} with input_size {self.input_size}, got {tuple(input.shape)}"
            )
        x = transpose(input, 1, 0, 2) if self.batch_first else input
        if x.shape[0] < 1:
            raise ShapeError(f"[{kind}] input must have at least one step, got {tuple(input.shape)}")
        first = self._first_states(x, hx)
        last = []
        for level in range(self.num_layers):
            suffixes = self._suffixes(level)
            outputs = []
            for d, suffix in enumerate(suffixes):
                y, state = self.call_rnn_sequence(x, first[level * len(suffixes) + d], suffix)
                outputs.append(y)
                last.append(state)
            x = outputs[0] if len(outputs) == 1 else concat(outputs, 2)
            if self.dropout and self.is_train and level < self.num_layers - 1:
                x = neural.dropout(x, self.dropout, True)
        y = transpose(x, 1, 0, 2) if self.batch_first else x
        if self.mode == "LSTM":
            return y, (stack([h for h, _ in last]), stack([c for _, c in last]))
        return y, stack(last)


class RNN(RNNBase):
    """Plain recurrent network over sequences; arguments as in ``RNNBase``.

    Called with input ``[length, batch, input_size]`` and a first state ``[num_layers * directions, batch, hidden_size]``
    (zeros if left out), answers outputs ``[length, batch, directions * hidden_size]`` and the last states.

    Example:
        >>> import metafuse as mf
        >>> y, h = mf.nn.RNN(3, 4, num_layers=2)(mf.ones([5, 2, 3]))
        >>> y.shape, h.shape
        ((5, 2, 4), (2, 2, 4))

    Source: Elman 1990.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        nonlinearity: str = "tanh",
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0,
        bidirectional: bool = False,
    ) -> None:
        super().__init__("RNN", input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, 0,
                         nonlinearity)  # fmt: skip

    def call_rnn_cell(self, input: Any, hidden: Any, suffix: str) -> Any:
        return neural.rnn_cell(input, hidden, *self._weights(suffix), str(self.nonlinearity))


class LSTM(RNNBase):
    """LSTM over sequences; arguments as in ``RNNBase``.

    Called with input ``[length, batch, input_size]`` and a pair of first states ``(h, c)``, each
    ``[num_layers * directions, batch, hidden_size]`` (zeros if left out; with ``proj_size`` that is h's last extent),
    answers outputs ``[length, batch, directions * hidden_size]`` and the pair of last states.

    Example:
        >>> import metafuse as mf
        >>> y, (h, c) = mf.nn.LSTM(3, 4, batch_first=True, bidirectional=True)(mf.ones([2, 5, 3]))
        >>> y.shape, h.shape
        ((2, 5, 8), (2, 2, 4))

    Source: Hochreiter and Schmidhuber 1997.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0,
        bidirectional: bool = False,
        proj_size: int = 0,
    ) -> None:
        super().__init__("LSTM", input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional,
                         proj_size)  # fmt: skip

    def call_rnn_cell(self, input: Any, hidden: Any, suffix: str) -> Any:
        projection = getattr(self, f"weight_hr_{suffix}", None)
        h, c = hidden
        return neural.lstm_cell(input, h, c, *self._weights(suffix), projection)


class GRU(RNNBase):
    """GRU over sequences; arguments as in ``RNNBase``, call as in ``RNN``.

    Example:
        >>> import metafuse as mf
        >>> y, h = mf.nn.GRU(3, 4)(mf.ones([5, 2, 3]))
        >>> y.shape, h.shape
        ((5, 2, 4), (1, 2, 4))

    Source: Cho et al. 2014.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0,
        bidirectional: bool = False,
    ) -> None:
        super().__init__(
            "GRU", input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional
        )

    def call_rnn_cell(self, input: Any, hidden: Any, suffix: str) -> Any:
        return neural.gru_cell(input, hidden, *self._weights(suffix))
