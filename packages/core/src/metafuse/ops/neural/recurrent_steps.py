"""The steps of recurrent networks, one by one.

What it is: the element-wise part of one step forward and backward, and a whole sequence as a graph of steps. The gradient walks
back over stored gate values and ends in one large product per weight, not one per step.
What it is not: the loop that usually does a sequence (``recurrent_sequences``).
Who calls it: ``recurrent`` for one step; ``recurrent_sequences``.
"""

from __future__ import annotations

import warnings
from functools import lru_cache
from typing import Any, NamedTuple

from ...graph.index_map import IndexMap
from ...kernel.expr import add, axis, const
from ...var import wrap
from ..autograd import grad, no_grad
from ..linalg import matmul
from ..meta import fill, gather, index, scatter, with_gradient
from ..scalar import sigmoid, tanh, where  # type: ignore[attr-defined]
from ..shape import transpose
from .basic import linear

__all__ = [
    "NAMES", "Attrs", "forward", "gate_of", "gradients_of", "run_again", "run_steps", "slot", "split_gates", "stand_ins",
    "step_of", "walk_back", "weights_gradients",
]  # fmt: skip


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


def gate_of(x: Any, k: int) -> Any:
    """``x[:, k]``: gate number ``k`` of ``[batch, gates, hidden]``."""
    batch, _, hidden = x.shape
    return gather(x, (batch, hidden), _gate(k), (), "gate")


def split_gates(x: Any, count: int) -> Any:
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
        sums = split_gates(from_x + from_h, 4)
        gates = where(index(sums.shape, 1) == 2, tanh(sums), sigmoid(sums))
        c = gate_of(gates, 1) * c + gate_of(gates, 0) * gate_of(gates, 2)
        h = gate_of(gates, 3) * tanh(c)
        return (h if weight_hr is None else linear(h, weight_hr)), c, (gates, c)
    if mode == "gru":
        a, b = split_gates(from_x, 3), split_gates(from_h, 3)
        reset = sigmoid(gate_of(a, 0) + gate_of(b, 0))
        update = sigmoid(gate_of(a, 1) + gate_of(b, 1))
        last = gate_of(b, 2)
        new = tanh(gate_of(a, 2) + reset * last)
        return new + update * (h - new), None, (reset, update, new, last)
    total = from_x + from_h
    return (tanh(total) if mode == "rnn_tanh" else total.maximum(0)), None, ()


def backward(
    mode: str, dh: Any, dc: Any, h: Any, h_before: Any, c_before: Any, saved: tuple[Any, ...]
) -> tuple[Any, Any, Any, Any]:
    """Gradients of both products, of c before, and the part of h before that goes by no product. ``dh`` is before projection."""
    if mode == "lstm":
        gates, c = saved
        i, f, g, o = (gate_of(gates, k) for k in range(4))
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
#: what goes into a sequence (``recurrent_sequences``); ``Attrs``: mode, whether it begins with the last step, what is there
NAMES = ("xs", "h", "c", "w_hh", "b_hh", "w_hr")
Attrs = tuple[str, bool, tuple[str, ...]]


def run_steps(attrs: Attrs, inputs: list[Any]) -> tuple[Any, Any]:
    """Outputs and last c as a graph of steps."""
    mode = attrs[0]
    with no_grad():
        ys, c, *stacks = run_again(attrs, inputs)
        shape = tuple(ys.shape)
        answer = ys if c is None else _flat(ys, c)
    saved = [
        with_gradient(s, inputs, f"{mode}_saved", (attrs, k), _saved_gradient) for k, s in enumerate(stacks)
    ]
    answer = with_gradient(answer, [*inputs, *saved], mode, (attrs, shape), _steps_gradient)
    return (answer, None) if c is None else _unflat(answer, shape, tuple(c.shape))


def _order(length: int, reverse: bool) -> list[int]:
    return list(range(length))[:: -1 if reverse else 1]


def run_again(attrs: Attrs, inputs: list[Any]) -> list[Any]:
    """The outputs, the last c, and the stacks that the gradient needs."""
    mode, reverse, present = attrs
    v: dict[str, Any] = dict.fromkeys(NAMES) | dict(zip(present, inputs, strict=True))
    h, c = v["h"], v["c"]
    length = v["xs"].shape[0]
    outputs: list[Any] = [None] * length
    saved: list[Any] = [None] * length
    for t in _order(length, reverse):
        h, c, saved[t] = forward(mode, step_of(v["xs"], t), linear(h, v["w_hh"], v["b_hh"]), h, c, v["w_hr"])
        outputs[t] = h
    return [stacked(outputs), c, *(stacked(list(column)) for column in zip(*saved, strict=True))]


def _saved_gradient(node: Any, upstream: Any) -> list[Any]:
    """Of a stored stack, which only gradients of gradients ask for: of the same steps, recorded one by one."""
    attrs, k = node.sig.attrs
    inputs = stand_ins(node)
    return [None, *gradients_of(run_again(attrs, inputs)[2 + k], inputs, upstream)]


def stand_ins(node: Any) -> list[Any]:
    """Its inputs but the first, each as a value of its own: where one was computed from another one, that is no path here."""
    return [with_gradient(x, [x], "stand_in", None, _of_stand_in) for x in map(wrap, node.inputs[1:])]


def _of_stand_in(node: Any, upstream: Any) -> list[Any]:
    return [None, upstream]


def gradients_of(again: Any, inputs: list[Any], upstream: Any) -> list[Any]:
    """Of what was recorded a second time for this."""
    again.register_hook(lambda ones: upstream)  # a factor would be differentiated too
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of one step, nothing depends on a projection
        return list(grad(again, inputs))


def _steps_gradient(node: Any, upstream: Any) -> list[Any]:
    (mode, reverse, present), shape = node.sig.attrs
    given = [wrap(x) for x in node.inputs[1:]]
    saved = given[len(present) :]
    v: dict[str, Any] = dict.fromkeys(NAMES) | dict(zip(present, given, strict=False))
    ys: Any = wrap(node)
    d_ys, dc = upstream, None
    if mode == "lstm":
        ys, _ = _unflat(ys, shape, tuple(v["c"].shape))
        d_ys, dc = _unflat(upstream, shape, tuple(v["c"].shape))
    walk = walk_back(mode, reverse, v, ys, d_ys, dc, saved)
    found = {"h": walk.h, "c": walk.c} | weights_gradients(mode, reverse, v, ys, walk.xs, walk.hs)
    if v["w_hr"] is not None:
        found["w_hr"] = _product(walk.outputs, slot(saved[0], 3) * tanh(saved[1]))
    return [None, *(found[n] for n in present), *[None] * len(saved)]


class _Walk(NamedTuple):
    """Gradients of all products with x and with h, of outputs, and of the first states."""

    xs: Any
    hs: Any
    outputs: Any
    h: Any
    c: Any


def walk_back(
    mode: str, reverse: bool, v: dict[str, Any], ys: Any, d_ys: Any, dc: Any, saved: list[Any]
) -> _Walk:
    """From the last step to the first."""
    length = ys.shape[0]
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
    return _Walk(d_xs, d_xs if d_h[0] is d_x[0] else stacked(d_h), stacked(d_out), dh, dc)


def weights_gradients(
    mode: str, reverse: bool, v: dict[str, Any], ys: Any, d_xs: Any, d_hs: Any
) -> dict[str, Any]:
    """Gradients that are one product or sum over all steps."""
    found = {"xs": d_xs, "w_hh": _product(d_hs, _before(ys, v["h"], reverse))}
    if v["b_hh"] is not None:
        found["b_hh"] = d_hs.reshape([d_hs.shape[0] * d_hs.shape[1], d_hs.shape[2]]).sum(0)
    return found


# -- stacks -------------------------------------------------------------------------------------------------------
def _product(a: Any, b: Any) -> Any:
    """``sum over steps and batch of a[t, b, i] * c[t, b, j]``."""
    rows = a.shape[0] * a.shape[1]
    return matmul(transpose(a.reshape([rows, a.shape[2]])), b.reshape([rows, b.shape[2]]))


def slot(gates: Any, k: int) -> Any:
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
