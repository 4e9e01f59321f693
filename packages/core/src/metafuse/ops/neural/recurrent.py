"""Recurrent networks: one step, and whole sequences as one graph.

What it is: ``rnn_cell``, ``lstm_cell`` and ``gru_cell``, and their sequences. A sequence multiplies its input by the weights for
all steps at once; what is left of a step is one small product and element-wise work. Its gradient walks back over stored gate
values and ends in one large product per weight, not one per step.
What it is not: layers with parameters and several levels (``nn.recurrent``).
Who calls it: users and ``nn.recurrent``.

Gates are stacked in the weights' rows: LSTM input, forget, cell, output; GRU reset, update, new.
"""

from __future__ import annotations

from typing import Any

from ...errors import DTypeError, ShapeError
from ..meta import check_flag, check_var
from ..precision import in_float32
from ..recipe import recorded
from ..registry import Sample, Tensor, operator
from . import recurrent_oracles as oracles
from .basic import linear
from .checks import choice, need_ndim
from .recurrent_sequences import run_sequence
from .recurrent_steps import forward

__all__ = ["gru_cell", "gru_sequence", "lstm_cell", "lstm_sequence", "rnn_cell", "rnn_sequence"]


def _samples(gates: int, lstm: bool = False, sequence: bool = False, **more: Any) -> list[Sample]:
    """With and without bias."""
    samples = []
    for batch, inputs, hidden, bias in ((3, 4, 2, True), (1, 2, 3, False)):
        rows = gates * hidden
        x = Tensor((4, batch, inputs) if sequence else (batch, inputs))
        state = [Tensor((batch, hidden))] * (2 if lstm else 1)
        weights = [Tensor((rows, n), "float", -1.0, 1.0) for n in (inputs, hidden)]
        samples.append(Sample((x, *state, *weights, *[Tensor((rows,))] * (2 * bias)), more))
    return samples


#: arguments that are always there
_NEEDED = ("x", "h", "c", "weight_ih", "weight_hh")


# -- arguments ----------------------------------------------------------------------------------------------------
def _checked(op: str, gates: int, ndim: int, named: dict[str, Any]) -> dict[str, Any]:
    """All arguments as Vars of fitting shapes; those that are ``None`` stay so."""
    found: dict[str, Any] = {
        name: v if v is None and name not in _NEEDED else check_var(op, name, v) for name, v in named.items()
    }
    x, h, w_ih = (found[name] for name in ("x", "h", "weight_ih"))
    need_ndim(op, "x", x, [ndim], "([length,] batch, input size)")
    if not x.dtype.is_float:
        raise DTypeError(f"[{op}] x must be floating point, got {x.dtype}; cast it with .float32()")
    need_ndim(op, "weight_ih", w_ih, [2], "(gates * hidden size, input size)")
    batch, inputs = x.shape[-2:]
    rows = w_ih.shape[0]
    hidden = rows // gates
    width = h.shape[-1] if h.ndim else 0
    wanted = {
        "h": (batch, width), "c": (batch, hidden), "weight_ih": (gates * hidden, inputs),
        "weight_hh": (gates * hidden, width), "bias_ih": (rows,), "bias_hh": (rows,), "weight_hr": (width, hidden),
    }  # fmt: skip
    if found.get("weight_hr") is None and width != hidden:
        wanted["h"] = (batch, hidden)
    for name, shape in wanted.items():
        if found.get(name) is not None and tuple(found[name].shape) != shape:
            raise ShapeError(
                f"[{op}] {name} must have shape {shape} for x {tuple(x.shape)} and weight_ih {tuple(w_ih.shape)}, "
                f"got {tuple(found[name].shape)}"
            )
    return found


def _projected(*leading: int) -> Sample:
    """An LSTM with a projection; ``leading``: extents of x before the last."""
    state = [Tensor((leading[-1], 2)), Tensor((leading[-1], 5))]
    return Sample((Tensor((*leading, 2)), *state, *[Tensor((20, 2), "float", -1.0, 1.0)] * 2),
                  {"weight_hr": Tensor((2, 5), "float", -1.0, 1.0)})  # fmt: skip


# -- one step -----------------------------------------------------------------------------------------------------
@operator(category="nn", numpy=oracles.rnn_cell, samples=_samples(1) + _samples(1, nonlinearity="relu"),
          source="Elman 1990")  # fmt: skip
@recorded
@in_float32
def rnn_cell(
    x: Any,
    h: Any,
    weight_ih: Any,
    weight_hh: Any,
    bias_ih: Any = None,
    bias_hh: Any = None,
    nonlinearity: str = "tanh",
) -> Any:
    """One step of a plain recurrent network: ``tanh(x @ weight_ih.T + bias_ih + h @ weight_hh.T + bias_hh)``.

    Args:
        x: ``[batch, input size]``.
        h: ``[batch, hidden size]``.
        weight_ih, weight_hh: ``[hidden size, input size]`` and ``[hidden size, hidden size]``.
        bias_ih, bias_hh: ``[hidden size]`` or ``None``.
        nonlinearity: ``"tanh"`` or ``"relu"``.

    Example:
        >>> import metafuse as mf
        >>> mf.nn.rnn_cell(mf.ones([2, 3]), mf.zeros([2, 4]), mf.ones([4, 3]), mf.ones([4, 4])).shape
        (2, 4)
    """
    choice("rnn_cell", "nonlinearity", nonlinearity, ("tanh", "relu"))
    v = _checked("rnn_cell", 1, 2, {"x": x, "h": h, "weight_ih": weight_ih, "weight_hh": weight_hh,
                                    "bias_ih": bias_ih, "bias_hh": bias_hh})  # fmt: skip
    return _step(f"rnn_{nonlinearity}", v)[0]


@operator(category="nn", numpy=oracles.lstm_cell, samples=[*_samples(4, True), _projected(3)],
          source="Hochreiter and Schmidhuber 1997")  # fmt: skip
@recorded
@in_float32
def lstm_cell(
    x: Any,
    h: Any,
    c: Any,
    weight_ih: Any,
    weight_hh: Any,
    bias_ih: Any = None,
    bias_hh: Any = None,
    weight_hr: Any = None,
) -> Any:
    """One step of an LSTM: the new ``(h, c)``.

    ``i, f, o = sigmoid(...)`` and ``g = tanh(...)`` of ``x @ weight_ih.T + bias_ih + h @ weight_hh.T + bias_hh``;
    ``c' = f * c + i * g``; ``h' = o * tanh(c')``, with ``weight_hr`` multiplied by that. The rows of the weights are those
    of i, f, g, o.

    Example:
        >>> import metafuse as mf
        >>> h, c = mf.nn.lstm_cell(
        ...     mf.ones([2, 3]), mf.zeros([2, 4]), mf.zeros([2, 4]), mf.ones([16, 3]), mf.ones([16, 4]))
        >>> h.shape, c.shape
        ((2, 4), (2, 4))
    """
    v = _checked("lstm_cell", 4, 2, {
        "x": x, "h": h, "c": c, "weight_ih": weight_ih, "weight_hh": weight_hh, "bias_ih": bias_ih,
        "bias_hh": bias_hh, "weight_hr": weight_hr,
    })  # fmt: skip
    return _step("lstm", v)


@operator(category="nn", numpy=oracles.gru_cell, samples=_samples(3), source="Cho et al. 2014")
@recorded
@in_float32
def gru_cell(x: Any, h: Any, weight_ih: Any, weight_hh: Any, bias_ih: Any = None, bias_hh: Any = None) -> Any:
    """One step of a GRU.

    ``r, z = sigmoid(...)`` of both products; ``n = tanh(x part + r * h part)``; ``h' = (1 - z) * n + z * h``. The rows of the
    weights are those of r, z, n.

    Example:
        >>> import metafuse as mf
        >>> mf.nn.gru_cell(mf.ones([2, 3]), mf.zeros([2, 4]), mf.ones([12, 3]), mf.ones([12, 4])).shape
        (2, 4)
    """
    v = _checked("gru_cell", 3, 2, {"x": x, "h": h, "weight_ih": weight_ih, "weight_hh": weight_hh,
                                    "bias_ih": bias_ih, "bias_hh": bias_hh})  # fmt: skip
    return _step("gru", v)[0]


def _step(mode: str, v: dict[str, Any]) -> tuple[Any, Any]:
    from_x = linear(v["x"], v["weight_ih"], v["bias_ih"])
    from_h = linear(v["h"], v["weight_hh"], v["bias_hh"])
    return forward(mode, from_x, from_h, v["h"], v.get("c"), v.get("weight_hr"))[:2]


# -- sequences ----------------------------------------------------------------------------------------------------
def _sequence(mode: str, v: dict[str, Any], reverse: bool) -> tuple[Any, Any, Any]:
    """Outputs, last h, last c of checked arguments."""
    x, b_ih, b_hh = v["x"], v["bias_ih"], v["bias_hh"]
    if mode != "gru" and b_ih is not None and b_hh is not None:
        # GRU's new gate scales what it gets from h before it adds what it gets from x
        b_ih, b_hh = None, b_ih + b_hh
    length, batch, inputs = x.shape
    xs = linear(x.reshape([length * batch, inputs]), v["weight_ih"], b_ih)
    xs = xs.reshape([length, batch, xs.shape[1]])
    return run_sequence(mode, check_flag(mode, "reverse", reverse), {
        "xs": xs, "h": v["h"], "c": v.get("c"), "w_hh": v["weight_hh"], "b_hh": b_hh, "w_hr": v.get("weight_hr"),
    })  # fmt: skip


@operator(category="nn", numpy=oracles.rnn_sequence, source="Elman 1990",
          samples=_samples(1, sequence=True) + _samples(1, sequence=True, nonlinearity="relu", reverse=True))  # fmt: skip
@recorded
@in_float32
def rnn_sequence(
    x: Any,
    h: Any,
    weight_ih: Any,
    weight_hh: Any,
    bias_ih: Any = None,
    bias_hh: Any = None,
    nonlinearity: str = "tanh",
    reverse: bool = False,
) -> Any:
    """``rnn_cell`` over all steps.

    Args:
        x: ``[length, batch, input size]``.
        h: the first state, ``[batch, hidden size]``.
        weight_ih, weight_hh, bias_ih, bias_hh, nonlinearity: as in ``rnn_cell``.
        reverse: begin with the last step.

    Returns:
        Outputs ``[length, batch, hidden size]`` and the state after the last step done.

    Example:
        >>> import metafuse as mf
        >>> y, h = mf.nn.rnn_sequence(mf.ones([5, 2, 3]), mf.zeros([2, 4]), mf.ones([4, 3]), mf.ones([4, 4]))
        >>> y.shape, h.shape
        ((5, 2, 4), (2, 4))
    """
    choice("rnn_sequence", "nonlinearity", nonlinearity, ("tanh", "relu"))
    v = _checked("rnn_sequence", 1, 3, {"x": x, "h": h, "weight_ih": weight_ih, "weight_hh": weight_hh,
                                        "bias_ih": bias_ih, "bias_hh": bias_hh})  # fmt: skip
    return _sequence(f"rnn_{nonlinearity}", v, reverse)[:2]


@operator(category="nn", numpy=oracles.lstm_sequence, source="Hochreiter and Schmidhuber 1997",
          samples=[*_samples(4, True, True), *_samples(4, True, True, reverse=True), _projected(4, 3)])  # fmt: skip
@recorded
@in_float32
def lstm_sequence(
    x: Any,
    h: Any,
    c: Any,
    weight_ih: Any,
    weight_hh: Any,
    bias_ih: Any = None,
    bias_hh: Any = None,
    weight_hr: Any = None,
    reverse: bool = False,
) -> Any:
    """``lstm_cell`` over all steps.

    Args:
        x: ``[length, batch, input size]``.
        h, c: the first state, ``[batch, hidden size]`` each.
        weight_ih, weight_hh, bias_ih, bias_hh: as in ``lstm_cell``.
        weight_hr: ``[projection, hidden size]``: outputs (and h) are multiplied by it, Sak et al. 2014; weight_hh then has
            ``projection`` columns.
        reverse: begin with the last step.

    Returns:
        Outputs ``[length, batch, hidden size]``, and h and c after the last step done.

    Example:
        >>> import metafuse as mf
        >>> y, h, c = mf.nn.lstm_sequence(
        ...     mf.ones([5, 2, 3]), mf.zeros([2, 4]), mf.zeros([2, 4]), mf.ones([16, 3]), mf.ones([16, 4]))
        >>> y.shape, c.shape
        ((5, 2, 4), (2, 4))
    """
    v = _checked("lstm_sequence", 4, 3, {
        "x": x, "h": h, "c": c, "weight_ih": weight_ih, "weight_hh": weight_hh, "bias_ih": bias_ih,
        "bias_hh": bias_hh, "weight_hr": weight_hr,
    })  # fmt: skip
    return _sequence("lstm", v, reverse)


@operator(category="nn", numpy=oracles.gru_sequence, source="Cho et al. 2014",
          samples=_samples(3, sequence=True) + _samples(3, sequence=True, reverse=True))  # fmt: skip
@recorded
@in_float32
def gru_sequence(
    x: Any,
    h: Any,
    weight_ih: Any,
    weight_hh: Any,
    bias_ih: Any = None,
    bias_hh: Any = None,
    reverse: bool = False,
) -> Any:
    """``gru_cell`` over all steps; arguments and result as in ``rnn_sequence``.

    Example:
        >>> import metafuse as mf
        >>> y, h = mf.nn.gru_sequence(mf.ones([5, 2, 3]), mf.zeros([2, 4]), mf.ones([12, 3]), mf.ones([12, 4]))
        >>> y.shape, h.shape
        ((5, 2, 4), (2, 4))
    """
    v = _checked("gru_sequence", 3, 3, {"x": x, "h": h, "weight_ih": weight_ih, "weight_hh": weight_hh,
                                        "bias_ih": bias_ih, "bias_hh": bias_hh})  # fmt: skip
    return _sequence("gru", v, reverse)[:2]
