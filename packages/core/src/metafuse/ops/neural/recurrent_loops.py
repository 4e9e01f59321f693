"""The steps of recurrent networks as one loop, forward and back: in C++ the product of a step and everything behind it without a
launch in between.

What it is: for plain networks, LSTM and GRU, all values of a sequence that its outputs and its gradient need, and the gradient of
what goes into the gates.
What it is not: the product of the input with its weights, the gradients of weights (``recurrent_sequences``), or projections.
Who calls it: ``recurrent_sequences``.

Weights are read in the order in which they lie: ``[units, depth, gates, span]``, a unit being ``span`` columns of the result.
"""

from __future__ import annotations

from functools import lru_cache
from math import prod
from typing import Any

import numpy as np

from ...graph.index_map import IndexMap
from ...graph.node import spec_of
from ...kernel.expr import add, axis, const, mul
from ..meta import fill, gather
from ..native_loop import native_loop
from .recurrent_texts import BACKWARD, FORWARD, HEADER, STEPS, STEPS_BACK

__all__ = ["GATES", "SAVED", "all_values", "inner_gradients"]

Array = np.ndarray[Any, Any]
#: gates of a mode, in the order of the weights' rows
GATES = {"rnn_tanh": 1, "rnn_relu": 1, "lstm": 4, "gru": 3}
#: values per hidden element that the gradient needs beside the outputs: an LSTM's gates and c; a GRU's reset, update, new, and
#: what reset is multiplied by
SAVED = {"rnn_tanh": 0, "rnn_relu": 0, "lstm": 5, "gru": 4}
_MODES = tuple(GATES)


def _span(gates: int) -> int:
    """Columns of a unit: with all gates, what the accumulators of a vector unit hold of one row."""
    return 16 if gates > 1 else 64


# -- values -------------------------------------------------------------------------------------------------------
def _sigmoid(x: Array) -> Array:
    return np.asarray(0.5 * (np.tanh(0.5 * x) + 1))


def _step(mode: str, x: Array, from_h: Array, h: Array, c: Array) -> tuple[Array, Array, list[Array]]:
    """New h, new c, saved values; ``x`` and ``from_h`` are ``[batch, gates, hidden]``."""
    if mode == "lstm":
        i, f, o = (_sigmoid(x[:, k] + from_h[:, k]) for k in (0, 1, 3))
        g = np.tanh(x[:, 2] + from_h[:, 2])
        c = f * c + i * g
        return o * np.tanh(c), c, [i, f, g, o, c]
    if mode == "gru":
        reset, update = (_sigmoid(x[:, k] + from_h[:, k]) for k in (0, 1))
        new = np.tanh(x[:, 2] + reset * from_h[:, 2])
        return new + update * (h - new), c, [reset, update, new, from_h[:, 2]]
    total = x[:, 0] + from_h[:, 0]
    return (np.tanh(total) if mode == "rnn_tanh" else np.maximum(total, 0)), c, []


def _values(
    xs: Array, packed: Array, bias: Array, h: Array, *rest: Array, mode: int, reverse: int, keep: int
) -> Array:
    name, (steps, batch, _), hidden = _MODES[mode], xs.shape, h.shape[1]
    gates = GATES[name]
    weight = (
        packed.transpose(2, 0, 3, 1)
        .reshape(gates, packed.shape[0] * packed.shape[3], hidden)[:, :hidden]
        .reshape(gates * hidden, hidden)
    )
    c = rest[0] if rest else h
    ys = np.empty((steps, batch, hidden), xs.dtype)
    saved = np.empty((steps, batch, SAVED[name] * keep, hidden), xs.dtype)
    for t in range(steps)[:: -1 if reverse else 1]:
        from_h = (h @ weight.T + bias).reshape(batch, gates, hidden)
        h, c, found = _step(name, xs[t].reshape(batch, gates, hidden), from_h, h, c)
        ys[t] = h
        for k, value in enumerate(found if keep else ()):
            saved[t, :, k] = value
    return np.concatenate(
        [part.reshape(prod(part.shape[:-1]), hidden) for part in (ys, *([c] if rest else []), saved)]
    )


def all_values(mode: str, v: dict[str, Any], reverse: bool, keep: bool) -> Any:
    """``[rows, hidden]``: outputs ``[steps, batch]``, an LSTM's last c ``[batch]``, and with ``keep`` saved values
    ``[steps, batch, SAVED[mode]]``, one behind the other.

    Args:
        mode: a key of ``GATES``.
        v: ``xs`` ``[steps, batch, gates * hidden]``, the input's part of the gates; ``h`` and an LSTM's ``c``, the first state,
            ``[batch, hidden]``; ``w_hh`` ``[gates * hidden, hidden]``; ``b_hh`` ``[gates * hidden]`` or ``None``.
        reverse: begin with the last step.
        keep: whether a gradient may follow.
    """
    steps, batch, _ = v["xs"].shape
    gates, hidden, dtype = GATES[mode], v["h"].shape[1], v["xs"].dtype
    span = _span(gates)
    packed = gather(v["w_hh"], (-(-hidden // span), hidden, gates, span), _across(hidden, span), (), "pack")
    bias = fill((gates * hidden,), 0, dtype) if v["b_hh"] is None else v["b_hh"]
    states = [v["h"], v["c"]] if mode == "lstm" else [v["h"]]
    rows = steps * batch * (1 + SAVED[mode] * keep) + batch * (mode == "lstm")
    return native_loop(
        f"{mode}_steps", FORWARD.replace("STEP", STEPS[mode]), _values, [v["xs"], packed, bias, *states],
        spec_of((rows, hidden), dtype), _header(gates, gates), mode=_MODES.index(mode), reverse=int(reverse), keep=int(keep),
    )  # fmt: skip


# of a unit's columns beyond the last nothing is ever used
@lru_cache(maxsize=256)
def _across(hidden: int, span: int) -> IndexMap:
    """Where a row of weights stands that makes a column of the result."""
    row = add(mul(axis(2), const(hidden)), add(mul(axis(0), const(span)), axis(3)))
    return IndexMap((row, axis(1)), (), True, 0)


@lru_cache(maxsize=256)
def _along(span: int) -> IndexMap:
    """Of the product with the weights as they are."""
    return IndexMap((axis(1), add(mul(axis(0), const(span)), axis(3))), (), True, 0)


def _header(gates: int, every: int) -> str:
    """``gates`` of a unit, and ``every`` gate of the mode."""
    return f"#define GATES {gates}\n#define SPAN {_span(gates)}\n#define ALL {every}\n{HEADER}"


# -- gradient -----------------------------------------------------------------------------------------------------
def _step_back(
    mode: str, dh: Array, carry: Array, h: Array, before: Array, saved: Array
) -> tuple[list[Array], list[Array], Array]:
    """Gradients of what x and h give to the gates, and what is carried to the step before. ``before``: h, of an LSTM c."""
    if mode == "lstm":
        i, f, g, o, c = saved.transpose(1, 0, 2)
        bent = np.tanh(c)
        carry = carry + dh * o * (1 - bent * bent)
        d = [
            carry * g * i * (1 - i),
            carry * before * f * (1 - f),
            carry * i * (1 - g * g),
            dh * bent * o * (1 - o),
        ]
        return d, d, carry * f
    if mode == "gru":
        reset, update, new, last = saved.transpose(1, 0, 2)
        dh = dh + carry
        d_new = dh * (1 - update) * (1 - new * new)
        d = [d_new * last * reset * (1 - reset), dh * (before - new) * update * (1 - update)]
        return [*d, d_new], [*d, d_new * reset], dh * update
    d_sum = dh * (1 - h * h) if mode == "rnn_tanh" else np.where(h > 0, dh, 0)
    return [d_sum], [d_sum], carry


def _gradients(
    upstream: Array, values: Array, packed: Array, *states: Array, mode: int, reverse: int, steps: int
) -> Array:
    name, (batch, hidden) = _MODES[mode], states[0].shape
    gates, lstm = GATES[name], len(states) > 1
    weight = packed.transpose(1, 0, 2, 3).reshape(gates * hidden, packed.shape[0] * packed.shape[3])[
        :, :hidden
    ]
    rows = steps * batch
    ys, d_ys = (a[:rows].reshape(steps, batch, hidden) for a in (values, upstream))
    saved = values[rows + lstm * batch :].reshape(steps, batch, SAVED[name], hidden)
    found = np.zeros((steps + 1, batch, gates, hidden), values.dtype)
    dh, carry = np.zeros_like(states[0]), upstream[rows:] if lstm else np.zeros_like(states[0])
    order = range(steps)[:: -1 if reverse else 1]
    for k in range(steps - 1, -1, -1):
        t = order[k]
        stack, first = (saved[:, :, 4], states[1]) if lstm else (ys, states[0])
        d_x, d_h, carry = _step_back(
            name, dh + d_ys[t], carry, ys[t], stack[order[k - 1]] if k else first, saved[t]
        )
        found[t] = np.stack(d_x, 1)
        dh = np.concatenate(d_h, 1) @ weight
    found[steps, :, 0] = dh + carry if name == "gru" else dh
    if lstm:
        found[steps, :, 1] = carry
    return found.reshape(steps + 1, batch, gates * hidden)


def inner_gradients(mode: str, upstream: Any, values: Any, v: dict[str, Any], reverse: bool) -> Any:
    """``[steps + 1, batch, gates * hidden]``: gradients of ``xs``, and behind them of the first h and c, a gate's place each.

    Args:
        mode, v, reverse: as in ``all_values``.
        upstream: gradients of outputs and an LSTM's last c, as they lie in ``values``.
        values: what ``all_values`` answered, with saved values.
    """
    steps, batch, rows = v["xs"].shape
    hidden, span = v["h"].shape[1], _span(1)
    packed = gather(v["w_hh"], (-(-hidden // span), rows, 1, span), _along(span), (), "pack")
    states = [v["h"], v["c"]] if mode == "lstm" else [v["h"]]
    return native_loop(
        f"{mode}_steps_back", BACKWARD.replace("STEP", STEPS_BACK[mode]), _gradients, [upstream, values, packed, *states],
        spec_of((steps + 1, batch, rows), values.dtype), _header(1, GATES[mode]),
        mode=_MODES.index(mode), reverse=int(reverse), steps=steps,
    )  # fmt: skip
