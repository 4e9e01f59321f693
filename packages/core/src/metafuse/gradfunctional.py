"""Derivatives of functions: products with Jacobians and Hessians, and these matrices themselves.

What it is: ``vjp``, ``jvp``, ``jacobian``, ``hessian`` and ``hvp`` on top of ``metafuse.grad``, for functions of one Var or
several that answer one Var or several.
What it is not: another way to differentiate; every derivative is a recorded graph that can be differentiated again.
Who calls it: users, as ``metafuse.gradfunctional``.

All take ``create_graph``: whether the answers have a gradient path back to ``inputs`` (without it they are constants); and
``strict``: whether it is an error that an answer does not depend on an input, instead of a derivative of zero.

Source: for ``jvp`` as a derivative of ``vjp`` with respect to its vector: Townsend, "A new trick for calculating Jacobian
vector products", 2017.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .arguments import checked
from .errors import ArgumentError, DTypeError, GradientError, ShapeError
from .ops.autograd import _backward
from .ops.creation import array
from .ops.elementwise import cast
from .ops.meta import check_var, fill, identity, reshape
from .ops.reduce import reduce
from .ops.shape import stack
from .var import Var, sync

__all__ = ["hessian", "hvp", "jacobian", "jvp", "vjp"]


# -- arguments --------------------------------------------------------------------------------------------------------
def _tuple(op: str, what: str, value: Any) -> tuple[tuple[Var, ...], bool]:
    """One Var or several as a tuple, and whether it was several."""
    several = isinstance(value, (tuple, list))
    found = tuple(value) if several else (value,)
    if not found:
        raise DTypeError(
            f"[{op}] {what} must be a Var or a tuple of Vars, got an empty {type(value).__name__}"
        )
    for k, x in enumerate(found):
        if type(x) is not Var:
            raise DTypeError(f"[{op}] {what} must be a Var or a tuple of Vars, got {type(x).__name__} at {k}")
    return found, several


class _Call:
    """One call of a user's function on copies of its inputs, from which derivatives are taken."""

    def __init__(self, op: str, func: Callable[..., Any], inputs: Any, create_graph: bool) -> None:
        self.op = op
        given, self.several_inputs = _tuple(op, "inputs", inputs)
        for k, x in enumerate(given):
            if not x.dtype.is_float:
                raise DTypeError(f"[{op}] inputs must be floating, got {x.dtype} at {k}; cast it first")
        self.inputs = tuple((identity(x) if create_graph else x.detach()).start_grad() for x in given)
        self.outputs, self.several_outputs = _tuple(op, "the answer of func", func(*self.inputs))
        self.create_graph = create_graph

    def vectors(self, v: Any, like: Sequence[Var], what: str) -> tuple[Var, ...]:
        """``v`` checked against ``like``; ``None`` stands for 1 where there is a single element."""
        if v is None:
            if len(like) != 1 or like[0].numel() != 1:
                shapes = ", ".join(str(list(x.shape)) for x in like)
                raise ArgumentError(
                    f"[{self.op}] v may only be None for one {what} of one element, got {shapes}; give v"
                )
            return (fill(tuple(like[0].shape), 1, like[0].dtype),)
        several = isinstance(v, (tuple, list)) and len(like) > 1
        found = (
            tuple(v) if several or (isinstance(v, (tuple, list)) and any(type(x) is Var for x in v)) else (v,)
        )
        if len(found) != len(like):
            raise ArgumentError(f"[{self.op}] v must have one part per {what}: {len(like)}, got {len(found)}")
        vectors = []
        for k, (x, wanted) in enumerate(zip(found, like, strict=True)):
            x = check_var(self.op, "v", x)
            if tuple(x.shape) != tuple(wanted.shape):
                raise ShapeError(
                    f"[{self.op}] v must have the shape of its {what} {list(wanted.shape)}, got {list(x.shape)} at {k}"
                )
            vectors.append(cast(x, wanted.dtype))
        return tuple(vectors)

    def pulled(
        self, v: Sequence[Var], outputs: Sequence[Var], targets: Sequence[Var], strict: bool
    ) -> list[Var]:
        """Gradients of ``sum(v * outputs)`` with respect to ``targets``; zeros where there is no path."""
        terms = [reduce(y * w, "add") for y, w in zip(outputs, v, strict=True) if y.dtype.is_float]
        if not terms:
            raise DTypeError(f"[{self.op}] func answers no floating Var; there is nothing to differentiate")
        loss = terms[0]
        for term in terms[1:]:
            loss = loss + term
        answers = []
        for k, (g, x) in enumerate(
            zip(_backward(loss._node, [t._node for t in targets], True), targets, strict=True)
        ):
            if g is None and strict:
                raise GradientError(
                    f"[{self.op}] the answer of func does not depend on input {k}; strict is set"
                )
            answers.append(fill(tuple(x.shape), 0, x.dtype) if g is None else identity(g))
        return answers

    def answered(self, values: Sequence[Var], several: bool) -> Any:
        """As the user gave them: one or several; constants unless the graph was asked for."""
        found = tuple(values if self.create_graph else [x.detach() for x in values])
        return found if several else found[0]


# -- products ---------------------------------------------------------------------------------------------------------
@checked
def vjp(
    func: Callable[..., Any], inputs: Any, v: Any = None, create_graph: bool = False, strict: bool = False
) -> tuple[Any, Any]:
    """``v^T J``: a vector times the Jacobian of ``func`` at ``inputs``.

    Args:
        func: takes as many Vars as ``inputs`` has, answers a Var or a tuple of Vars.
        inputs: a floating Var or a tuple of them.
        v: of the shapes of what ``func`` answers; ``None`` if that is a single element.

    Returns:
        (what ``func`` answers, the product: of the shapes of ``inputs``).

    Errors:
        DTypeError, ShapeError, ArgumentError: arguments that do not fit. GradientError: with ``strict``, an input without path.

    Example:
        >>> import metafuse as mf
        >>> y, g = mf.gradfunctional.vjp(lambda x: x * x, mf.array([1.0, 2.0]), mf.array([1.0, 10.0]))
        >>> g.numpy()
        array([ 2., 40.], dtype=float32)
    """
    call = _Call("vjp", func, inputs, create_graph)
    vectors = call.vectors(v, call.outputs, "answer")
    found = call.pulled(vectors, call.outputs, call.inputs, strict)
    return call.answered(call.outputs, call.several_outputs), call.answered(found, call.several_inputs)


@checked
def jvp(
    func: Callable[..., Any], inputs: Any, v: Any = None, create_graph: bool = False, strict: bool = False
) -> tuple[Any, Any]:
    """``J v``: the Jacobian of ``func`` at ``inputs`` times a vector, the derivative along ``v``.

    Args:
        func, inputs: as for ``vjp``.
        v: of the shapes of ``inputs``; ``None`` if that is a single element.

    Returns:
        (what ``func`` answers, the product: of the shapes of that).

    Example:
        >>> import metafuse as mf
        >>> y, d = mf.gradfunctional.jvp(lambda x: (x * x).sum(), mf.array([1.0, 2.0]), mf.array([1.0, 0.0]))
        >>> d.item()
        2.0
    """
    call = _Call("jvp", func, inputs, create_graph)
    vectors = call.vectors(v, call.inputs, "input")
    # v^T J is linear in v, and its derivative with respect to v is J.
    dummies = [fill(tuple(y.shape), 0, y.dtype) for y in call.outputs]
    for dummy in dummies:
        if dummy.dtype.is_float:
            dummy.start_grad()
    pulled = call.pulled(dummies, call.outputs, call.inputs, strict)
    found = call.pulled(vectors, pulled, dummies, False)
    return call.answered(call.outputs, call.several_outputs), call.answered(found, call.several_outputs)


@checked
def hvp(
    func: Callable[..., Any], inputs: Any, v: Any = None, create_graph: bool = False, strict: bool = False
) -> tuple[Any, Any]:
    """``H v``: the Hessian of a function with one single number as its answer, times a vector.

    Args:
        func: as for ``vjp``, answers a Var of one element.
        inputs: as for ``vjp``.
        v: of the shapes of ``inputs``; ``None`` if that is a single element.

    Returns:
        (what ``func`` answers, the product: of the shapes of ``inputs``).

    Example:
        >>> import metafuse as mf
        >>> y, h = mf.gradfunctional.hvp(lambda x: (x ** 3).sum(), mf.array([1.0, 2.0]), mf.array([1.0, 1.0]))
        >>> h.numpy()
        array([ 6., 12.], dtype=float32)
    """
    call = _Call("hvp", func, inputs, create_graph)
    vectors = call.vectors(v, call.inputs, "input")
    gradients = call.pulled(_one(call), call.outputs, call.inputs, strict)
    found = call.pulled(vectors, gradients, call.inputs, strict)
    return call.answered(call.outputs, call.several_outputs), call.answered(found, call.several_inputs)


def _one(call: _Call) -> tuple[Var, ...]:
    """The vector 1 for a function that must answer a single number."""
    if call.several_outputs or call.outputs[0].numel() != 1:
        shapes = ", ".join(str(list(y.shape)) for y in call.outputs)
        raise ArgumentError(f"[{call.op}] func must answer one Var of one element, got {shapes}; sum it")
    return call.vectors(None, call.outputs, "answer")


# -- matrices ---------------------------------------------------------------------------------------------------------
@checked
def jacobian(func: Callable[..., Any], inputs: Any, create_graph: bool = False, strict: bool = False) -> Any:
    """All derivatives of ``func`` at ``inputs``: one backward pass per element of what it answers.

    Without ``create_graph`` the passes run one after another, all by the same compiled program.

    Returns:
        A Var of shape ``[*shape of the answer, *shape of the input]``; a tuple per input if there are several, and a tuple of
        such per answer if there are several.

    Example:
        >>> import metafuse as mf
        >>> mf.gradfunctional.jacobian(lambda x: x * x, mf.array([1.0, 2.0])).numpy()
        array([[2., 0.],
               [0., 4.]], dtype=float32)
    """
    call = _Call("jacobian", func, inputs, create_graph)
    found = [_rows(call, y, call.inputs, strict) for y in call.outputs]
    answers = [tuple(blocks) if call.several_inputs else blocks[0] for blocks in found]
    return tuple(answers) if call.several_outputs else answers[0]


@checked
def hessian(func: Callable[..., Any], inputs: Any, create_graph: bool = False, strict: bool = False) -> Any:
    """All second derivatives of a function with one single number as its answer.

    Returns:
        A Var of shape ``[*shape of the input, *shape of the input]``; for several inputs a tuple of tuples, first by the input
        that is differentiated first.

    Example:
        >>> import metafuse as mf
        >>> mf.gradfunctional.hessian(lambda x: (x ** 3).sum(), mf.array([1.0, 2.0])).numpy()
        array([[ 6.,  0.],
               [ 0., 12.]], dtype=float32)
    """
    call = _Call("hessian", func, inputs, create_graph)
    gradients = call.pulled(_one(call), call.outputs, call.inputs, strict)
    found = [_rows(call, g, call.inputs, strict) for g in gradients]
    return tuple(tuple(blocks) for blocks in found) if call.several_inputs else found[0][0]


def _rows(call: _Call, y: Var, inputs: Sequence[Var], strict: bool) -> list[Var]:
    """The Jacobian of ``y``, a block per input."""
    size = y.numel()
    shape = tuple(y.shape)
    if not y.dtype.is_float:
        raise DTypeError(f"[{call.op}] func must answer floating Vars, got {y.dtype}")
    if not size:
        return [fill((*shape, *x.shape), 0, x.dtype) for x in inputs]
    rows: list[list[Any]] = [[] for _ in inputs]
    for k in range(size):
        chosen = np.zeros(size, y.dtype.numpy)
        chosen[k] = 1
        v = array(chosen.reshape(shape), y.dtype).stop_grad()
        row = call.pulled([v], [y], inputs, strict)
        if not call.create_graph:
            sync(row)  # every row is the same program
        for found, g in zip(rows, row, strict=True):
            found.append(g if call.create_graph else g.numpy())
    return [
        reshape(
            stack(found) if call.create_graph else array(np.stack(found), x.dtype).stop_grad(),
            (*shape, *x.shape),
        )
        for found, x in zip(rows, inputs, strict=True)
    ]
