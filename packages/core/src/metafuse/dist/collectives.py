"""Collectives as operators: recorded like any other, run inside programs, with gradients.

What it is: ``mpi_all_reduce``, ``mpi_reduce``, ``mpi_broadcast``, ``mpi_all_gather``, ``mpi_reduce_scatter``, ``mpi_send`` and
``mpi_recv``, as functions and methods of Var, and ``barrier``.
What it is not: what happens when they run (``execution``).
Who calls it: users, ``parallel`` and synchronised batch norm.

Ranks must run collectives in one order however differently they read values in between (``if rank == 0: print(loss)``). So a
recorded collective is held until it has run, and depends on the one recorded before it: it runs exactly once, in the order of
recording. In one process each of them answers what it was given.

Gradients take the sum of the losses of all ranks as what is differentiated.
"""

from __future__ import annotations

from typing import Any

from ..errors import ArgumentError, DTypeError, GradientError, ShapeError, brief
from ..graph.node import Node, Signature, signature, spec_of
from ..ops.meta import check_var, fill, identity
from ..ops.registry import Sample, Tensor, operator
from ..runtime import executor
from ..var import Var, record, wrap
from .context import register
from .contract import OPERATIONS, Communicator, check_rank
from .execution import Collective, compare
from .process import world

__all__ = [
    "barrier", "mpi_all_gather", "mpi_all_reduce", "mpi_broadcast", "mpi_recv", "mpi_reduce", "mpi_reduce_scatter", "mpi_send",
    "settle",
]  # fmt: skip

_NAMES = {"sum": "add", "max": "maximum", "min": "minimum", "mul": "multiply", "prod": "multiply"}


class _Recorded:
    """Collectives that have not run, oldest first."""

    def __init__(self) -> None:
        self.waiting: list[Var] = []


_recorded = _Recorded()


def _put(waiting: list[Var]) -> None:
    _recorded.waiting = waiting


register(lambda: _recorded.waiting, lambda rank: [], _put)


def record_in_order(call: Any, inputs: list[Node], spec: Any, rule: Any, name: str) -> Var:
    """Record an opaque node that runs once and after every collective recorded before it.

    The answer is a handle beside the one that is held, since its user may bind it anew."""
    forget_finished()
    waiting = _recorded.waiting
    if waiting:
        inputs = [*inputs, waiting[-1]._node]
    nodes = tuple(inputs)
    sig: Signature = signature("opaque", name, call, tuple(n.spec for n in nodes), spec, None, (), rule)
    result = record(sig, nodes)
    if result._node.buffer is None:
        waiting.append(result)
    return identity(result)


def forget_finished() -> None:
    """Let go of collectives that have run."""
    _recorded.waiting = [v for v in _recorded.waiting if v._node.buffer is None]


def settle() -> None:
    """Run every recorded collective, so that what comes next comes next on all ranks.

    Example:
        >>> import metafuse as mf
        >>> mf.dist.settle()
    """
    forget_finished()
    waiting = _recorded.waiting
    if waiting:
        executor.evaluate([v._node for v in waiting])
        _recorded.waiting = []


def _operation(name: str, op: Any, x: Var) -> str:
    chosen = _NAMES.get(op, op) if isinstance(op, str) else None
    if chosen not in OPERATIONS and chosen != "mean":
        raise ArgumentError(f"[{name}] op must be 'mean' or one of {', '.join(OPERATIONS)}, got {brief(op)}")
    if chosen == "mean" and not x.dtype.is_float:
        raise DTypeError(f"[{name}] a mean needs a floating type, got {x.dtype}; cast it with .float32()")
    return str(chosen)


def _record(name: str, x: Var, call: Collective, shape: tuple[int, ...], rule: Any) -> Var:
    return record_in_order(call, [x._node], spec_of(shape, x.dtype), rule, name)


def _rule(gradient: Any) -> Any:
    """A gradient rule; the further input, which keeps the order, takes none."""

    def rule(node: Node, upstream: Var) -> list[Var | None]:
        answer = gradient(node.sig.attrs, wrap(node.inputs[0]), wrap(node), upstream)
        return [answer, *([None] * (len(node.inputs) - 1))]

    return rule


# -- gradients --------------------------------------------------------------------------------------------------------
def _through(kind: str, call: Collective, upstream: Var, op: str = "", shape: Any = None) -> Var:
    back = Collective(kind, call.group, op, call.other)
    return _record(f"mpi_{kind}", upstream, back, tuple(shape or upstream.shape), _RULES[kind])


def _all_reduce_gradient(call: Collective, x: Var, y: Var, upstream: Var) -> Var:
    if call.op == "multiply":
        raise GradientError(
            f"[mpi_all_reduce] has no gradient for op='multiply'; use the sum of logarithms, got {brief(x._node.spec)}"
        )
    if call.op in ("add", "mean"):
        return _through("all_reduce", call, upstream, call.op)
    here = (x == y).cast(upstream.dtype)  # type: ignore[attr-defined]
    holders = _through("all_reduce", call, here, "add").stop_grad()
    return _through("all_reduce", call, upstream, "add") * here / holders


def _reduce_gradient(call: Collective, x: Var, y: Var, upstream: Var) -> Var:
    if call.op not in ("add", "mean"):
        raise GradientError(
            f"[mpi_reduce] has a gradient for 'add' and 'mean', not for op={call.op!r}; use mpi_all_reduce"
        )
    back = _through("broadcast", call, upstream)
    return back / call.group.size if call.op == "mean" else back


def _broadcast_gradient(call: Collective, x: Var, y: Var, upstream: Var) -> Var:
    return _through("reduce", call, upstream, "add")


def _all_gather_gradient(call: Collective, x: Var, y: Var, upstream: Var) -> Var:
    return _through("reduce_scatter", call, upstream, "add", x.shape)


def _reduce_scatter_gradient(call: Collective, x: Var, y: Var, upstream: Var) -> Var:
    if call.op not in ("add", "mean"):
        raise GradientError(
            f"[mpi_reduce_scatter] has a gradient for 'add' and 'mean', not for op={call.op!r}; use mpi_all_reduce"
        )
    back = _through("all_gather", call, upstream, "", x.shape)
    return back / call.group.size if call.op == "mean" else back


def _send_gradient(call: Collective, x: Var, y: Var, upstream: Var) -> Var:
    return upstream + _through("recv", call, upstream)


def _recv_gradient(call: Collective, x: Var, y: Var, upstream: Var) -> Var:
    _through("send", call, upstream)
    return fill(tuple(x.shape), 0, x.dtype)


_RULES = {
    "all_reduce": _rule(_all_reduce_gradient), "reduce": _rule(_reduce_gradient), "broadcast": _rule(_broadcast_gradient),
    "all_gather": _rule(_all_gather_gradient), "reduce_scatter": _rule(_reduce_scatter_gradient),
    "send": _rule(_send_gradient), "recv": _rule(_recv_gradient),
}  # fmt: skip

_SAMPLES = [
    Sample((Tensor((3, 5), "any"),)),
    Sample((Tensor((7,), "float"),)),
    Sample((Tensor((0, 2), "float"),)),
]


# -- operators --------------------------------------------------------------------------------------------------------
@operator(category="distributed", numpy=lambda x, op="add": x, samples=[*_SAMPLES, Sample((Tensor((4,)), "mean"))],
          method=True, rebinds=False)  # fmt: skip
def mpi_all_reduce(x: Any, op: str = "add") -> Var:
    """All ranks' ``x`` combined, on every rank.

    Args:
        x: of one shape and type on all ranks.
        op: "add", "mean" (of floating types), "maximum", "minimum" or "multiply". 16-bit floats are combined in float32.

    Returns:
        Var of the shape and type of ``x``. The gradient of a sum is the sum of all ranks' gradients.

    Example:
        >>> import metafuse as mf
        >>> mf.dist.loopback.run(2, lambda rank: mf.array([rank + 1.0]).mpi_all_reduce("mean").item())
        [1.5, 1.5]
    """
    x = check_var("mpi_all_reduce", "x", x)
    call = Collective("all_reduce", world(), _operation("mpi_all_reduce", op, x))
    return (
        identity(x)
        if call.group.size == 1
        else _record("mpi_all_reduce", x, call, tuple(x.shape), _RULES["all_reduce"])
    )


@operator(
    category="distributed", numpy=lambda x, op="add", root=0: x, samples=_SAMPLES, method=True, rebinds=False
)
def mpi_reduce(x: Any, op: str = "add", root: int = 0) -> Var:
    """All ranks' ``x`` combined, on rank ``root``; zeros elsewhere.

    Args:
        x, op: as in ``mpi_all_reduce``.
        root: the rank that gets the result.

    Returns:
        Var of the shape and type of ``x``. The gradient is that of ``root``, on every rank.

    Example:
        >>> import metafuse as mf
        >>> mf.dist.loopback.run(2, lambda rank: mf.array([rank + 1]).mpi_reduce("add", 0).tolist())
        [[3], [0]]
    """
    x = check_var("mpi_reduce", "x", x)
    group = world()
    call = Collective(
        "reduce", group, _operation("mpi_reduce", op, x), check_rank("mpi_reduce", "root", root, group.size)
    )
    return (
        identity(x) if group.size == 1 else _record("mpi_reduce", x, call, tuple(x.shape), _RULES["reduce"])
    )


@operator(category="distributed", numpy=lambda x, root=0: x, samples=_SAMPLES, method=True, rebinds=False)
def mpi_broadcast(x: Any, root: int = 0) -> Var:
    """The ``x`` of rank ``root``, on every rank.

    Args:
        x: of one shape and type on all ranks.
        root: the rank whose value counts; its gradient is the sum of all ranks' gradients, the others' is zero.

    Example:
        >>> import metafuse as mf
        >>> mf.dist.loopback.run(2, lambda rank: mf.array([rank]).mpi_broadcast(1).tolist())
        [[1], [1]]
    """
    x = check_var("mpi_broadcast", "x", x)
    group = world()
    call = Collective("broadcast", group, "", check_rank("mpi_broadcast", "root", root, group.size))
    return (
        identity(x)
        if group.size == 1
        else _record("mpi_broadcast", x, call, tuple(x.shape), _RULES["broadcast"])
    )


@operator(category="distributed", numpy=lambda x: x, samples=_SAMPLES, method=True, rebinds=False)
def mpi_all_gather(x: Any) -> Var:
    """All ranks' ``x`` one after another along dimension 0: ``[size * n, ...]`` from ``[n, ...]``, on every rank.

    Args:
        x: of at least one dimension, of one shape and type on all ranks.

    Returns:
        Var. The gradient is the sum over ranks of what belongs to this rank.

    Example:
        >>> import metafuse as mf
        >>> mf.dist.loopback.run(2, lambda rank: mf.array([rank]).mpi_all_gather().tolist())
        [[0, 1], [0, 1]]
    """
    x = check_var("mpi_all_gather", "x", x)
    if not x.ndim:
        raise ShapeError(
            "[mpi_all_gather] x must have at least one dimension, got shape (); write x.reshape([1])"
        )
    group = world()
    shape = (x.shape[0] * group.size, *x.shape[1:])
    return (
        identity(x)
        if group.size == 1
        else _record("mpi_all_gather", x, Collective("all_gather", group), shape, _RULES["all_gather"])
    )


@operator(category="distributed", numpy=lambda x, op="add": x, samples=_SAMPLES, method=True, rebinds=False)
def mpi_reduce_scatter(x: Any, op: str = "add") -> Var:
    """All ranks' ``x`` combined and cut along dimension 0: this rank's part, ``[n / size, ...]`` of ``[n, ...]``.

    Args:
        x: of one shape and type on all ranks; the number of ranks divides its first extent.
        op: as in ``mpi_all_reduce``.

    Returns:
        Var. The gradient is that of all parts, one after another.

    Example:
        >>> import metafuse as mf
        >>> mf.dist.loopback.run(2, lambda rank: mf.array([1, 2]).mpi_reduce_scatter().tolist())
        [[2], [4]]
    """
    x = check_var("mpi_reduce_scatter", "x", x)
    group = world()
    if not x.ndim or x.shape[0] % group.size:
        raise ShapeError(
            f"[mpi_reduce_scatter] the first extent of x must be a multiple of the {group.size} ranks, got shape "
            f"{tuple(x.shape)}; pad it"
        )
    call = Collective("reduce_scatter", group, _operation("mpi_reduce_scatter", op, x))
    shape = (x.shape[0] // group.size, *x.shape[1:])
    return (
        identity(x)
        if group.size == 1
        else _record("mpi_reduce_scatter", x, call, shape, _RULES["reduce_scatter"])
    )


@operator(category="distributed", numpy=None, method=True, rebinds=False)
def mpi_send(x: Any, dest: int) -> Var:
    """Send ``x`` to rank ``dest``, which calls ``mpi_recv``.

    Returns:
        ``x`` again. A loss that is computed from it gets, beside its own gradient, the one that the receiver sends back.

    Example:
        >>> import metafuse as mf
        >>> def rank_main(rank):
        ...     if rank == 0:
        ...         return mf.array([5.0]).mpi_send(1).item()
        ...     return mf.zeros(1).mpi_recv(0).item()
        >>> mf.dist.loopback.run(2, rank_main)
        [5.0, 5.0]
    """
    x = check_var("mpi_send", "x", x)
    call = Collective("send", world(), "", _other("mpi_send", "dest", dest))
    return _record("mpi_send", x, call, tuple(x.shape), _RULES["send"])


@operator(category="distributed", numpy=None, method=True, rebinds=False)
def mpi_recv(like: Any, source: int) -> Var:
    """What rank ``source`` has sent.

    Args:
        like: a Var of the shape and type that is sent; its values do not matter. Where it takes a gradient, a backward pass sends
            the gradient of what was received back to ``source``.
        source: the rank that calls ``mpi_send``.

    Example:
        >>> import metafuse as mf
        >>> def rank_main(rank):
        ...     if rank == 0:
        ...         return mf.array([5.0]).mpi_send(1).item()
        ...     return mf.zeros(1).mpi_recv(0).item()
        >>> mf.dist.loopback.run(2, rank_main)
        [5.0, 5.0]
    """
    like = check_var("mpi_recv", "like", like)
    call = Collective("recv", world(), "", _other("mpi_recv", "source", source))
    return _record("mpi_recv", like, call, tuple(like.shape), _RULES["recv"])


def _other(op: str, name: str, value: Any) -> int:
    group: Communicator = world()
    other = check_rank(op, name, value, group.size)
    if other == group.rank and group.size > 1:
        raise ArgumentError(f"[{op}] {name} must be another rank, got this one, {other}")
    return other


def barrier() -> None:
    """Compute everything that is recorded, then wait for all ranks.

    Example:
        >>> import metafuse as mf
        >>> mf.dist.barrier()
    """
    settle()
    executor.evaluate(None)
    group = world()
    compare(group, "barrier()")
    group.barrier()
