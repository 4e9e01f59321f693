"""The steps of recurrent networks, and whole sequences of them as one node with a gradient of its own.

What it is: the element-wise part of one step forward and backward, and ``run_sequence``. The gradient walks back over stored gate
values and ends in one large product per weight, not one per step.
What it is not: checks of arguments or the product with the input (``recurrent``).
Who calls it: ``recurrent``.
"""

from __future__ import annotations

import warnings
from functools import lru_cache
from typing import Any

from ...dtypes import float32, float64
from ...graph.index_map import IndexMap
from ...kernel.expr import add, axis, const
from ...var import wrap
from ..autograd import grad, no_grad
from ..linalg import matmul
from ..meta import fill, gather, index, scatter, with_gradient
from ..scalar import sigmoid, tanh, where  # type: ignore[attr-defined]
from ..shape import transpose
from .basic import linear
from .lstm_loop import lstm_values

__all__ = ["forward", "run_sequence", "stacked", "step_of"]


def step_of(x: Any, t: int) -> Any:
    """``x[t]`` of a stack over steps."""
    rest = tuple(x.shape[1:])
    return gather(x, rest, _step(t, len(rest)), (), "step")


@lru_cache(maxsize=4096)
def _step(t: int, ndim: int) -> IndexMap:
    """Place ``t`` of a new first dimension. One object per place, so that it is compared by identity."""
    return IndexMap((const(t), *(axis(k) for k in range(ndim))))


@lru_cache(maxsize=16)
def _gate(k: int) -> IndexMap:
    return IndexMap((axis(0), const(k), axis(1)))


def _part(x: Any, k: int) -> Any:
    """``x[:, k]``: gate number ``k`` of ``[batch, gates, hidden]``."""
    batch, _, hidden = x.shape
    return gather(x, (batch, hidden), _gate(k), (), "gate")


def _gates(x: Any, count: int) -> Any:
    """``[batch, gates * hidden]`` as ``[batch, gates, hidden]``."""
    return x.reshape([x.shape[0], count, x.shape[1] // count])


def _choose(parts: list[Any]) -> Any:
    """``[batch, hidden]`` arrays as ``[batch, gates, hidden]``."""
    batch, hidden = parts[0].shape
    shape = [batch, len(parts), hidden]
    number = index(shape, 1)
    spread = [p.broadcast(shape, [1]) for p in parts]
    chosen = spread[-1]
    for k in range(len(parts) - 2, -1, -1):
        chosen = where(number <= k, spread[k], chosen)
    return chosen


def forward(
    mode: str, from_x: Any, from_h: Any, h: Any, c: Any, weight_hr: Any
) -> tuple[Any, Any, tuple[Any, ...]]:
    """New h, new c and what the gradient needs, from both products of a step."""
    if mode == "lstm":
        sums = _gates(from_x + from_h, 4)
        gates = where(index(sums.shape, 1) == 2, tanh(sums), sigmoid(sums))
        c = _part(gates, 1) * c + _part(gates, 0) * _part(gates, 2)
        h = _part(gates, 3) * tanh(c)
        return (h if weight_hr is None else linear(h, weight_hr)), c, (gates, c)
    if mode == "gru":
        a, b = _gates(from_x, 3), _gates(from_h, 3)
        reset = sigmoid(_part(a, 0) + _part(b, 0))
        update = sigmoid(_part(a, 1) + _part(b, 1))
        last = _part(b, 2)
        new = tanh(_part(a, 2) + reset * last)
        return new + update * (h - new), None, (reset, update, new, last)
    total = from_x + from_h
    return (tanh(total) if mode == "rnn_tanh" else total.maximum(0)), None, ()


def backward(
    mode: str, dh: Any, dc: Any, h: Any, h_before: Any, c_before: Any, saved: tuple[Any, ...]
) -> tuple[Any, Any, Any, Any]:
    """Gradients of both products, of c before, and the part of h before that goes by no product. ``dh`` is before projection."""
    if mode == "lstm":
        gates, c = saved
        i, f, g, o = (_part(gates, k) for k in range(4))
        bent = tanh(c)
        dc = dc + dh * o * (1.0 - bent * bent)
        slope = where(index(gates.shape, 1) == 2, 1.0 - gates * gates, gates * (1.0 - gates))
        d = (_choose([dc * g, dc * c_before, dc * i, dh * bent]) * slope).reshape(
            [gates.shape[0], 4 * dh.shape[1]]
        )
        return d, d, dc * f, None
    if mode == "gru":
        reset, update, new, last = saved
        d_new = dh * (1.0 - update) * (1.0 - new * new)
        d_reset = d_new * last * reset * (1.0 - reset)
        d_update = dh * (h_before - new) * update * (1.0 - update)
        batch = dh.shape[0]
        d_x = _choose([d_reset, d_update, d_new]).reshape([batch, 3 * dh.shape[1]])
        d_h = _choose([d_reset, d_update, d_new * reset]).reshape([batch, 3 * dh.shape[1]])
        return d_x, d_h, None, dh * update
    d = dh * (1.0 - h * h) if mode == "rnn_tanh" else where(h > 0, dh, 0.0)
    return d, d, None, None


# -- sequences ----------------------------------------------------------------------------------------------------
_NAMES = ("xs", "h", "c", "w_hh", "b_hh", "w_hr")
Attrs = tuple[str, bool, tuple[str, ...]]


def run_sequence(mode: str, reverse: bool, values: dict[str, Any]) -> tuple[Any, Any, Any]:
    """All steps of one direction.

    Args:
        mode: ``"rnn_tanh"``, ``"rnn_relu"``, ``"lstm"`` or ``"gru"``.
        reverse: begin with the last step.
        values: ``xs`` ``[length, batch, gates * hidden]``, the input's product with its weights; ``h``, ``c`` (LSTM),
            ``w_hh``, ``b_hh`` (GRU) and ``w_hr`` (projection), or ``None``.

    Returns:
        Outputs ``[length, batch, width]``, the last h and the last c (``None`` but for an LSTM).
    """
    present = tuple(n for n in _NAMES if values.get(n) is not None)
    inputs = [values[n] for n in present]
    attrs: Attrs = (mode, reverse, present)
    with no_grad():
        ys, c, *stacks = (_run_lstm if _is_loop(attrs, inputs) else _run)(attrs, inputs)
        shape = tuple(ys.shape)
        answer = ys if c is None else _flat(ys, c)
    saved = [
        with_gradient(s, inputs, f"{mode}_saved", (attrs, k), _saved_gradient) for k, s in enumerate(stacks)
    ]
    answer = with_gradient(answer, [*inputs, *saved], mode, (attrs, shape), _sequence_gradient)
    ys, c = (answer, None) if c is None else _unflat(answer, shape, tuple(c.shape))
    return ys, step_of(ys, 0 if reverse else shape[0] - 1), c


def _order(length: int, reverse: bool) -> list[int]:
    return list(range(length))[:: -1 if reverse else 1]


def _run(attrs: Attrs, inputs: list[Any]) -> list[Any]:
    """The outputs, the last c, and the stacks that the gradient needs."""
    mode, reverse, present = attrs
    v: dict[str, Any] = dict.fromkeys(_NAMES) | dict(zip(present, inputs, strict=True))
    h, c = v["h"], v["c"]
    length = v["xs"].shape[0]
    outputs: list[Any] = [None] * length
    saved: list[Any] = [None] * length
    for t in _order(length, reverse):
        h, c, saved[t] = forward(mode, step_of(v["xs"], t), linear(h, v["w_hh"], v["b_hh"]), h, c, v["w_hr"])
        outputs[t] = h
    return [stacked(outputs), c, *(stacked(list(column)) for column in zip(*saved, strict=True))]


def _is_loop(attrs: Attrs, inputs: list[Any]) -> bool:
    """Whether ``_run_lstm`` does it."""
    plain = attrs[0] == "lstm" and "w_hr" not in attrs[2]
    return plain and inputs[0].dtype in (float32, float64) and len({x.dtype for x in inputs}) == 1


def _run_lstm(attrs: Attrs, inputs: list[Any]) -> list[Any]:
    """As ``_run``, in one loop instead of a graph of steps."""
    _, reverse, present = attrs
    v = dict(zip(present, inputs, strict=True))
    values = lstm_values(v["xs"], v["h"], v["c"], v["w_hh"], reverse)
    length, batch, _, hidden = values.shape
    gates = gather(
        values, (length, batch, 4, hidden), IndexMap(tuple(axis(k) for k in range(4))), (), "gates"
    )
    ys, c = _slot(values, 5), _slot(values, 4)
    return [ys, step_of(c, 0 if reverse else length - 1), gates, c]


def _saved_gradient(node: Any, upstream: Any) -> list[Any]:
    """Of a stored stack, which only gradients of gradients ask for: of the same steps, recorded one by one."""
    attrs, k = node.sig.attrs
    inputs = [wrap(x) for x in node.inputs[1:]]
    again = _run(attrs, inputs)[2 + k]
    again.register_hook(lambda ones: upstream)  # a factor would be differentiated too
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of one step, nothing depends on a projection
        return [None, *grad(again, inputs)]


def _sequence_gradient(node: Any, upstream: Any) -> list[Any]:
    (mode, reverse, present), shape = node.sig.attrs
    given = [wrap(x) for x in node.inputs[1:]]
    saved = given[len(present) :]
    v: dict[str, Any] = dict.fromkeys(_NAMES) | dict(zip(present, given, strict=False))
    ys: Any = wrap(node)
    d_ys, dc = upstream, None
    if mode == "lstm":
        ys, _ = _unflat(ys, shape, tuple(v["c"].shape))
        d_ys, dc = _unflat(upstream, shape, tuple(v["c"].shape))
    length = shape[0]
    d_x: list[Any] = [None] * length
    d_h: list[Any] = [None] * length
    d_out: list[Any] = [None] * length
    dh: Any = None
    order = _order(length, reverse)
    for k in range(length - 1, -1, -1):
        t = order[k]
        before = step_of(ys, order[k - 1]) if k else v["h"]
        c_before = None if dc is None else step_of(saved[1], order[k - 1]) if k else v["c"]
        d_out[t] = step_of(d_ys, t) if dh is None else step_of(d_ys, t) + dh
        inner = d_out[t] if v["w_hr"] is None else matmul(d_out[t], v["w_hr"])
        d_x[t], d_h[t], dc, rest = backward(
            mode, inner, dc, step_of(ys, t), before, c_before, tuple(step_of(s, t) for s in saved)
        )
        dh = matmul(d_h[t], v["w_hh"])
        dh = dh if rest is None else dh + rest
    d_xs = stacked(d_x)
    d_hs = d_xs if d_h[0] is d_x[0] else stacked(d_h)
    found = {"xs": d_xs, "h": dh, "c": dc, "w_hh": _product(d_hs, _before(ys, v["h"], reverse))}
    if v["b_hh"] is not None:
        found["b_hh"] = d_hs.sum((0, 1))
    if v["w_hr"] is not None:
        found["w_hr"] = _product(stacked(d_out), _slot(saved[0], 3) * tanh(saved[1]))
    return [None, *(found[n] for n in present), *[None] * len(saved)]


def _product(a: Any, b: Any) -> Any:
    """``sum over steps and batch of a[t, b, i] * c[t, b, j]``."""
    rows = a.shape[0] * a.shape[1]
    return matmul(transpose(a.reshape([rows, a.shape[2]])), b.reshape([rows, b.shape[2]]))


def _slot(gates: Any, k: int) -> Any:
    """``gates[:, :, k]``."""
    length, batch, _, hidden = gates.shape
    return gather(gates, (length, batch, hidden), IndexMap((axis(0), axis(1), const(k), axis(2))), (), "gate")


def stacked(rows: list[Any]) -> Any:
    """Arrays of one shape along a new first dimension."""
    stack = fill((len(rows), *rows[0].shape), 0, rows[0].dtype)
    for t, row in enumerate(rows):
        stack = scatter(stack, "void", row, _step(t, row.ndim), (), "stack")
    return stack


def _before(ys: Any, first: Any, reverse: bool) -> Any:
    """What each step began with: ``first``, and the outputs moved on by one step."""
    length, batch, width = ys.shape
    moved = add(axis(0), const(1 if reverse else -1))
    inside = gather(
        ys, (length, batch, width), IndexMap((moved, axis(1), axis(2)), (), True, 0), (), "before"
    )
    begins = index([length, 1, 1], 0) == (length - 1 if reverse else 0)
    return where(begins, first.broadcast([length, batch, width], [0]), inside)


def _flat(ys: Any, c: Any) -> Any:
    """Outputs and last c in one array, so that one walk back serves both."""
    count = ys.numel()
    flat = fill((count + c.numel(),), 0, ys.dtype)
    flat = scatter(flat, "void", ys.reshape([count]), IndexMap((axis(0),)), (), "pack")
    return scatter(flat, "void", c.reshape([c.numel()]), IndexMap((add(axis(0), const(count)),)), (), "pack")


def _unflat(flat: Any, shape: tuple[int, ...], c_shape: tuple[int, ...]) -> tuple[Any, Any]:
    """The parts of ``_flat``."""
    tail = c_shape[0] * c_shape[1]
    count = flat.shape[0] - tail
    ys = gather(flat, (count,), IndexMap((axis(0),)), (), "unpack")
    c = gather(flat, (tail,), IndexMap((add(axis(0), const(count)),)), (), "unpack")
    return ys.reshape(list(shape)), c.reshape(list(c_shape))
