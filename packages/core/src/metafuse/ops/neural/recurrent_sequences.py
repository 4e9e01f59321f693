"""Whole sequences of recurrent networks as one node with a gradient of its own.

What it is: ``run_sequence``. Usually one loop does all steps and another one walks back (``recurrent_loops``); what differs from
that, a projection or 16-bit numbers, is a graph of steps, and so are gradients of gradients.
What it is not: checks of arguments or the product with the input (``recurrent``).
Who calls it: ``recurrent``.
"""

from __future__ import annotations

from functools import lru_cache
from math import prod
from typing import Any

from ...dtypes import float32, float64
from ...graph.index_map import IndexMap
from ...graph.node import state
from ...kernel.expr import add, axis, const
from ...var import wrap
from ..autograd import no_grad
from ..meta import fill, gather, index, with_gradient
from ..scalar import where  # type: ignore[attr-defined]
from ..shape import concat, stack
from . import recurrent_steps as steps
from .recurrent_loops import GATES, SAVED, all_values, inner_gradients
from .recurrent_steps import NAMES, Attrs, gate_of, slot, split_gates, step_of, walk_back, weights_gradients

__all__ = ["run_sequence"]


def run_sequence(mode: str, reverse: bool, values: dict[str, Any]) -> tuple[Any, Any, Any]:
    """All steps of one direction.

    Args:
        mode: ``"rnn_tanh"``, ``"rnn_relu"``, ``"lstm"`` or ``"gru"``.
        reverse: begin with the last step.
        values: ``xs`` ``[length, batch, gates * hidden]``, the input's product with its weights; ``h``, ``c`` (LSTM),
            ``w_hh``, ``b_hh`` and ``w_hr`` (projection), or ``None``.

    Returns:
        Outputs ``[length, batch, width]``, the last h and the last c (``None`` but for an LSTM).
    """
    present = tuple(n for n in NAMES if values.get(n) is not None)
    inputs = [values[n] for n in present]
    attrs: Attrs = (mode, reverse, present)
    run = _run_loop if _is_loop(attrs, inputs) else steps.run_steps
    ys, c = run(attrs, inputs)
    return ys, step_of(ys, 0 if reverse else ys.shape[0] - 1), c


def _is_loop(attrs: Attrs, inputs: list[Any]) -> bool:
    """Whether ``recurrent_loops`` does it."""
    return (
        "w_hr" not in attrs[2]
        and inputs[0].dtype in (float32, float64)
        and len({x.dtype for x in inputs}) == 1
    )


def _run_loop(attrs: Attrs, inputs: list[Any]) -> tuple[Any, Any]:
    """Outputs and last c as one loop instead of a graph of steps."""
    mode, reverse, present = attrs
    v: dict[str, Any] = dict.fromkeys(NAMES) | dict(zip(present, inputs, strict=True))
    keep = state.grad_enabled and any(x.requires_grad for x in inputs)
    with no_grad():
        values = all_values(mode, v, reverse, keep)
    length, batch, _ = v["xs"].shape
    answer, width = values, v["h"].shape[1]
    if keep:
        values = with_gradient(values, inputs, f"{mode}_values", attrs, _values_gradient)
        with no_grad():
            answer = _rows(values, 0, (length * batch + batch * (mode == "lstm"), width))
        answer = with_gradient(answer, [*inputs, values], mode, attrs, _loop_gradient)
    ys = _rows(answer, 0, (length, batch, width))
    return ys, _rows(answer, length * batch, (batch, width)) if mode == "lstm" else None


def _rows(x: Any, first: int, shape: tuple[int, ...]) -> Any:
    """``x[first : first + ...]`` as ``shape``; ``x`` has two dimensions."""
    count = prod(shape[:-1])
    return gather(x, (count, shape[-1]), _row(first), (), "rows").reshape(list(shape))


@lru_cache(maxsize=256)
def _row(first: int) -> IndexMap:
    return IndexMap((add(axis(0), const(first)) if first else axis(0), axis(1)))


#: the gates among what an LSTM saves
_GATES = IndexMap(tuple(axis(k) for k in range(4)))


def _saved_values(mode: str, v: dict[str, Any], values: Any) -> list[Any]:
    """The stacks that ``backward`` reads, out of all values."""
    length, (batch, width) = v["xs"].shape[0], v["h"].shape
    if not SAVED[mode]:
        return []
    first = length * batch + batch * (mode == "lstm")
    saved = _rows(values, first, (length, batch, SAVED[mode], width))
    if mode == "lstm":
        return [gather(saved, (length, batch, 4, width), _GATES, (), "gates"), slot(saved, 4)]
    return [slot(saved, k) for k in range(SAVED[mode])]


def _values_gradient(node: Any, upstream: Any) -> list[Any]:
    """Of all values; as of stored stacks."""
    attrs: Attrs = node.sig.attrs
    mode, inputs = attrs[0], steps.stand_ins(node)
    ys, c, *stacks = steps.run_again(attrs, inputs)
    length, batch, width = ys.shape
    parts = [ys.reshape([length * batch, width])]
    if mode == "lstm":
        parts.append(c)
        stacks = [*(slot(stacks[0], k) for k in range(4)), stacks[1]]
    if stacks:
        parts.append(stack(stacks, 2).reshape([length * batch * len(stacks), width]))
    return [None, *steps.gradients_of(concat(parts, 0), inputs, upstream)]


def _loop_gradient(node: Any, upstream: Any) -> list[Any]:
    attrs: Attrs = node.sig.attrs
    mode, reverse, present = attrs
    *inputs, values = (wrap(x) for x in node.inputs[1:])
    v: dict[str, Any] = dict.fromkeys(NAMES) | dict(zip(present, inputs, strict=True))
    with no_grad():
        inner = inner_gradients(mode, upstream, values, v, reverse)
    inner = with_gradient(inner, [upstream, values, *inputs], f"{mode}_back", attrs, _inner_gradient)
    length, batch, rows = v["xs"].shape
    width = v["h"].shape[1]
    first = split_gates(step_of(inner, length), GATES[mode])
    d_xs = _rows(inner.reshape([(length + 1) * batch, rows]), 0, (length, batch, rows))
    d_hs = d_xs
    if mode == "gru":  # what new gets from h is multiplied by reset
        spread = _saved_values(mode, v, values)[0].broadcast([length, batch, 3, width], [2])
        four = d_xs.reshape([length, batch, 3, width])
        d_hs = where(index(four.shape, 2) == 2, four * spread, four).reshape([length, batch, rows])
    ys = _rows(values, 0, (length, batch, width))
    found = {"h": gate_of(first, 0)} | weights_gradients(mode, reverse, v, ys, d_xs, d_hs)
    if mode == "lstm":
        found["c"] = gate_of(first, 1)
    return [None, *(found[n] for n in present), None]


def _inner_gradient(node: Any, upstream: Any) -> list[Any]:
    """Of the loop back, which only gradients of gradients ask for: of the same steps, recorded one by one."""
    mode, reverse, present = node.sig.attrs
    inputs = steps.stand_ins(node)
    d_answer, values, *given = inputs
    v: dict[str, Any] = dict.fromkeys(NAMES) | dict(zip(present, given, strict=True))
    length, batch, rows = v["xs"].shape
    width = v["h"].shape[1]
    ys, d_ys = (_rows(x, 0, (length, batch, width)) for x in (values, d_answer))
    dc = _rows(d_answer, length * batch, (batch, width)) if mode == "lstm" else None
    walk = walk_back(mode, reverse, v, ys, d_ys, dc, _saved_values(mode, v, values))
    last = [walk.h] if walk.c is None else [walk.h, walk.c]
    nothing = fill((batch, width), 0, ys.dtype)
    last = stack([*last, *[nothing] * (GATES[mode] - len(last))], 1).reshape([1, batch, rows])
    return [None, *steps.gradients_of(concat([walk.xs, last], 0), inputs, upstream)]
