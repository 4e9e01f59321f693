"""Connectionist temporal classification: the loss of unaligned sequences.

What it is: Graves' forward recursion in logarithms over what each state emits, and its gradient, a recursion backwards over the
stored forward values. Both run as loops of their own (``ctc_loops``); gradients of gradients are those of the recursion composed
of operators, step by step.
What it is not: a decoder, or a layer (``nn.losses``).
Who calls it: users and ``nn.losses``.
"""

from __future__ import annotations

import math
import warnings
from functools import lru_cache
from typing import Any

import numpy as np

from ...errors import ArgumentError, DTypeError, ShapeError
from ...graph.index_map import IndexMap
from ...kernel.expr import add, axis, const
from ...var import Var, wrap
from ..autograd import grad, no_grad
from ..meta import check_flag, check_var, gather, identity, index, with_gradient
from ..precision import in_float32
from ..registry import Sample, Tensor, operator
from ..scalar import where
from . import ctc_oracles as oracles
from .checks import REDUCTIONS, choice, integer, need_ndim
from .ctc_loops import NEVER, emitted_gradient, forward_values
from .recurrent_steps import stacked, step_of

__all__ = ["ctc_loss"]

_SCORES = Tensor((5, 2, 4), "float", -3.0, -0.1)
_TARGETS = [[1, 2], [3, 3]]
_SAMPLES = [
    Sample((_SCORES, _TARGETS, [5, 5], [2, 2])),
    Sample((_SCORES, _TARGETS, [4, 3], [2, 1]), {"reduction": "none"}),
    Sample((_SCORES, [[0, 1], [2, 0]], [5, 2], [2, 0]), {"blank": 3, "reduction": "sum"}),
    Sample((_SCORES, [1, 2, 3, 3, 1], [5, 2], [2, 3]), {"zero_infinity": True}),
]


@operator(category="nn", numpy=oracles.ctc_loss, samples=_SAMPLES, source="Graves et al. 2006")
@in_float32
def ctc_loss(
    log_probs: Any,
    targets: Any,
    input_lengths: Any,
    target_lengths: Any,
    blank: int = 0,
    reduction: str = "mean",
    zero_infinity: bool = False,
) -> Any:
    """Minus the log probability of all alignments of a sequence of outputs with a shorter one of labels.

    Args:
        log_probs: ``[steps, batch, classes]``, logarithms of probabilities (``log_softmax``).
        targets: labels as integers, ``[batch, longest]``, what follows a sample's length being ignored; or all samples'
            labels one after the other (this reads ``target_lengths`` now).
        input_lengths, target_lengths: ``[batch]``: how many steps and labels count.
        blank: the class that means "no label".
        reduction: ``"mean"`` (each loss over its number of labels, then the mean), ``"sum"`` or ``"none"``.
        zero_infinity: a sample whose labels can't fit its steps counts 0 instead of infinity. Its gradient is 0 in either case.

    Example:
        >>> import metafuse as mf
        >>> scores = mf.nn.log_softmax(mf.zeros([3, 1, 2]), dim=2)
        >>> round(mf.nn.ctc_loss(scores, mf.array([[1]]), [3], [1]).item(), 4)  # 6 of 8 paths
        0.2877
    """
    log_probs = check_var("ctc_loss", "log_probs", log_probs)
    need_ndim("ctc_loss", "log_probs", log_probs, [3], "(steps, batch, classes)")
    choice("ctc_loss", "reduction", reduction, REDUCTIONS)
    steps, batch, classes = log_probs.shape
    if not log_probs.dtype.is_float or steps < 1:
        raise ShapeError(
            f"[ctc_loss] log_probs must be floating point with at least one step, got {log_probs.dtype} "
            f"{tuple(log_probs.shape)}"
        )
    if integer("ctc_loss", "blank", blank, 0) >= classes:
        raise ArgumentError(f"[ctc_loss] blank must be a class, 0..{classes - 1}, got {blank}")
    uses = _integers("input_lengths", input_lengths, (batch,))
    lengths = _integers("target_lengths", target_lengths, (batch,))
    labels = _labels(targets, lengths, batch)
    nll = _negative_log_likelihood(log_probs, labels, uses, lengths, blank)
    nll = where(
        nll > -0.5 * NEVER,
        0.0 if check_flag("ctc_loss", "zero_infinity", zero_infinity) else float("inf"),
        nll,
    )
    if reduction == "mean":
        return (nll / lengths.maximum(1).cast(nll.dtype)).mean()
    return nll.sum() if reduction == "sum" else nll


def _integers(name: str, value: Any, shape: tuple[int, ...] | None) -> Any:
    found = check_var("ctc_loss", name, value)
    if not found.dtype.is_integer and found.numel():
        raise DTypeError(f"[ctc_loss] {name} must hold integers, got {found.dtype}; cast it with .int32()")
    if shape is not None and tuple(found.shape) != shape:
        raise ShapeError(f"[ctc_loss] {name} must have shape {shape}, got {tuple(found.shape)}")
    return found.cast("int32")  # type: ignore[attr-defined]


def _labels(targets: Any, lengths: Var, batch: int) -> Any:
    """Labels as ``[batch, longest]``."""
    found = _integers("targets", targets, None)
    if found.ndim == 1 and not (batch == 1 and found.numel() == 0):
        counts = lengths.numpy()
        if counts.sum() > found.numel():
            raise ShapeError(
                f"[ctc_loss] targets must hold the {int(counts.sum())} labels that target_lengths counts, "
                f"got {found.numel()}"
            )
        starts = np.cumsum(counts) - counts
        places = starts[:, None] + np.arange(max(1, counts.max(initial=0)))
        return found.reindex(
            list(places.shape),
            ["@e0(i0,i1)"],
            0,
            [],
            [check_var("ctc_loss", "targets", places.astype(np.int32))],
        )
    need_ndim("ctc_loss", "targets", found, [2], "(batch, longest), or 1 (all labels)")
    if found.shape[0] != batch:
        raise ShapeError(f"[ctc_loss] targets must have {batch} rows, got shape {tuple(found.shape)}")
    return found


def _negative_log_likelihood(log_probs: Any, labels: Any, uses: Any, lengths: Any, blank: int) -> Any:
    steps, batch, _ = log_probs.shape
    states = 2 * labels.shape[1] + 1
    # blank, label, blank, label ... blank
    path = labels.reindex([batch, states], ["i0", "i1/2"], blank, ["i1%2 == 0"])
    jumps = (path != blank).logical_and(path != _moved(path, -2, blank))
    emitted = log_probs.reindex([steps, batch, states], ["i0", "i1", "@e0(i1,i2)"], -math.inf, [], [path])
    emitted = emitted.maximum(NEVER)
    with no_grad():
        forward = forward_values(emitted, jumps, uses)
    forward = with_gradient(forward, [emitted, jumps, uses], "ctc", None, _gradient)
    last = step_of(forward, steps - 1)
    a = last.reindex([batch], ["i0", "2*@e0(i0)"], NEVER, [], [lengths])
    b = last.reindex([batch], ["i0", "2*@e0(i0)-1"], NEVER, [], [lengths])
    top = a.maximum(b).detach()
    return -(top + ((a - top).exp() + (b - top).exp()).log())


def _moved(x: Any, by: int, outside: float) -> Any:
    """``x[:, s + by]``, ``outside`` where there is no such state."""
    return gather(x, tuple(x.shape), _move(by, outside), (), "moved")


@lru_cache(maxsize=64)
def _move(by: int, outside: float) -> IndexMap:
    """One object per move, so that it is compared by identity."""
    return IndexMap((axis(0), add(axis(1), const(by))), (), True, outside)


def _forward(emitted: Any, jumps: Any, uses: Any) -> Any:
    """``[steps, batch, states]``: log probability of having emitted so many steps and being in a state; a sample that has ended
    stays as it is."""
    first = step_of(emitted, 0)
    rows = [where(index(first.shape, 1) < 2, first, NEVER)]
    left = uses.reshape([-1, 1])
    for t in range(1, emitted.shape[0]):
        stay = rows[-1]
        step = _moved(stay, -1, NEVER)
        jump = where(jumps, _moved(stay, -2, NEVER), NEVER)
        top = stay.maximum(step).maximum(jump)
        total = top + ((stay - top).exp() + (step - top).exp() + (jump - top).exp()).log()
        rows.append(where(left > t, total + step_of(emitted, t), stay))
    return stacked(rows)


def _gradient(node: Any, upstream: Any) -> list[Any]:
    forward, (emitted, jumps, uses) = wrap(node), (wrap(x) for x in node.inputs[1:])
    with no_grad():
        found = emitted_gradient(forward, emitted, jumps, uses, upstream)
    found = with_gradient(found, [emitted, upstream, jumps, uses], "ctc_gradient", None, _second_gradient)
    return [None, found, None, None]


def _second_gradient(node: Any, upstream: Any) -> list[Any]:
    """Of the gradient, which only gradients of gradients ask for: that of the composed recursion."""
    # nodes of their own, through which no other path leads
    emitted, before = (identity(wrap(x)) for x in node.inputs[1:3])
    jumps, uses = (wrap(x) for x in node.inputs[3:])
    inner = grad((_forward(emitted, jumps, uses) * before).sum(), [emitted])[0]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of one step, nothing depends on what is emitted
        return [None, *grad((inner * upstream).sum(), [emitted, before]), None, None]
