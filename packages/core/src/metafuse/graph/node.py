"""Nodes: what was asked for, recorded and not yet run.

What it is: ``Spec`` (shape and dtype of a value), ``Signature`` (everything structural about one operation),
``Node`` (one recorded operation or one stored array) and the list of pending handles.
What it is not: the user's handle (``var.Var``) or a plan (``passes``).
Who calls it: ``ops`` record nodes, ``runtime.executor`` collects pending ones and stores results in them.

Recording is on the path of every operation a user writes, so specs and signatures are interned: comparing and hashing
them is by identity, and the key of a whole pending graph is a flat tuple of them.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import lru_cache
from threading import local
from types import CodeType
from typing import TYPE_CHECKING, Any
from weakref import ReferenceType, WeakValueDictionary

from ..config import observe
from ..dtypes import DType
from ..errors import ShapeError
from ..kernel.expr import Expr, walk, weight

if TYPE_CHECKING:
    from ..runtime.buffer import Buffer

__all__ = [
    "BY_ITSELF",
    "KINDS",
    "Node",
    "Signature",
    "Spec",
    "describe_origin",
    "leaf",
    "make_node",
    "signature",
    "spec_of",
    "state",
    "stored",
]

#: name of an alias whose value is computed in a kernel of its own
BY_ITSELF = "by_itself"
#: kind of a node -> what its attributes mean. The set is closed; everything else is composed from it.
KINDS: dict[str, str] = {
    "leaf": "an array that exists; no attributes",
    "map": "one element from elements at the same (broadcast) place; attributes: none, `body` says how",
    "reindex": "y[i] = x[f(i)] or a constant; attributes: IndexMap",
    "reduce": "fold over dimensions; attributes: (operator, dimensions)",
    "scatter": "out = base, then out[f(i)] = op(out[f(i)], y[i]); attributes: (operator, IndexMap)",
    "alias": "the same elements under another shape; no attributes",
    "opaque": "user code or a host function; attributes: the Opaque record",
}


#: a value has fewer elements, computed or not: places in it are numbers of 64 bits
SIZE_LIMIT = 2**63
#: dimensions that a value may have: as many as every supported NumPy can show
RANK_LIMIT = 32


class Spec:
    """Shape and dtype of a value; interned, so compare with ``is``."""

    __slots__ = ("shape", "dtype", "size", "__weakref__")

    def __init__(self, shape: tuple[int, ...], dtype: DType) -> None:
        self.shape = shape
        self.dtype = dtype
        if len(shape) > RANK_LIMIT:
            raise ShapeError(
                f"[shape] a value may have at most {RANK_LIMIT} dimensions, got {len(shape)}: {list(shape)}; join some"
            )
        size = 1
        for extent in shape:
            size *= extent
        if size >= SIZE_LIMIT:
            raise ShapeError(
                f"[shape] a value of {dtype} and shape {list(shape)} would have {size} elements, the limit is 2**63 - 1; "
                "use smaller extents"
            )
        self.size = size

    @property
    def nbytes(self) -> int:
        """Bytes of the value when stored."""
        return self.size * self.dtype.itemsize

    def __repr__(self) -> str:
        return f"{self.dtype}[{','.join(map(str, self.shape))}]"


# Interned weakly: a program whose shapes or indexes change all the time leaves nothing behind.
_specs: WeakValueDictionary[tuple[tuple[int, ...], DType], Spec] = WeakValueDictionary()


def spec_of(shape: tuple[int, ...], dtype: DType) -> Spec:
    """The one ``Spec`` of this shape and dtype."""
    key = (shape, dtype)
    found = _specs.get(key)
    if found is None:
        found = _specs.setdefault(key, Spec(shape, dtype))
    return found


class Signature:
    """Everything structural about an operation: kind, attributes, specs of inputs and output; interned.

    ``name`` is the operator's name for people. ``body`` (map only) is the expression over ``load`` of input k (no
    arguments) and ``scalar`` k. ``scalars`` gives the dtypes of the run-time numbers. ``gradient`` is called as
    ``gradient(node, upstream) -> one gradient or None per input`` with handles.
    """

    __slots__ = (
        "kind", "name", "attrs", "inputs", "spec", "body", "scalars", "gradient", "differentiable", "cost", "reads_axis",
        "steps", "__weakref__",
    )  # fmt: skip

    def __init__(
        self,
        kind: str,
        name: str,
        attrs: Any,
        inputs: tuple[Spec, ...],
        spec: Spec,
        body: Expr | None = None,
        scalars: tuple[DType, ...] = (),
        gradient: Callable[..., Any] | None = None,
    ) -> None:
        self.kind = kind
        self.name = name
        self.attrs = attrs
        self.inputs = inputs
        self.spec = spec
        self.body = body
        self.scalars = scalars
        self.gradient = gradient
        self.differentiable = spec.dtype.is_float and gradient is not None
        self._study()

    def _study(self) -> None:
        """What passes ask of the body again and again: its cost, whether it reads axes, and its nodes in order.

        ``steps``: per node of the body, operands first: (node, positions of its operands among the steps)."""
        order = list(walk(self.body)) if self.body is not None else []
        place = {x: k for k, x in enumerate(order)}
        self.steps = [(x, [place[a] for a in x.args]) for x in order]
        self.cost = weight(self.body) if self.body is not None else 0
        self.reads_axis = any(x.op == "axis" for x in order)

    def __repr__(self) -> str:
        return f"{self.name}({', '.join(map(repr, self.inputs))}) -> {self.spec!r}"


_signatures: WeakValueDictionary[Any, Signature] = WeakValueDictionary()


def signature(
    kind: str,
    name: str,
    attrs: Any,
    inputs: tuple[Spec, ...],
    spec: Spec,
    body: Expr | None = None,
    scalars: tuple[DType, ...] = (),
    gradient: Callable[..., Any] | None = None,
) -> Signature:
    """The one ``Signature`` of these parts."""
    key = (kind, name, attrs, inputs, spec, body, scalars, gradient)
    found = _signatures.get(key)
    if found is None:
        found = _signatures.setdefault(key, Signature(*key))
    return found


class Node:
    """One recorded operation, or one stored array (kind "leaf" or already run: ``buffer`` is set).

    ``order`` grows with creation, so it is a topological order. ``handle`` refers weakly to the ``Var`` that holds the
    node. ``released`` is set once a gradient has consumed the graph behind it. ``rule`` is a gradient of this node alone (a
    user's ``Function``); otherwise the signature's counts.
    """

    __slots__ = (
        "sig", "spec", "inputs", "scalars", "requires_grad", "buffer", "order", "handle", "origin", "pos", "released",
        "rule", "__weakref__",
    )  # fmt: skip

    sig: Signature
    spec: Spec
    inputs: tuple[Node, ...]
    scalars: tuple[float | int, ...]
    requires_grad: bool
    buffer: Buffer | None
    order: float
    handle: ReferenceType[Any] | None
    origin: tuple[CodeType, int] | None
    pos: int
    released: bool
    rule: Callable[..., Any] | None

    def __repr__(self) -> str:
        stored = "stored" if self.buffer is not None else "pending"
        return f"<Node {self.order} {self.sig.name} {self.spec!r} {stored}>"


#: how many handles may be pending
PENDING_LIMIT = 100_000


class _Mode(local):
    """Whether gradient paths are recorded, for each thread apart: compositions switch it off for a while."""

    enabled = True


class _State:
    """What recording depends on beside its arguments."""

    __slots__ = ("mode", "pending", "limit", "flush")

    def __init__(self) -> None:
        self.mode = _Mode()
        #: weak references to the handles of nodes that have not run
        self.pending: list[ReferenceType[Any]] = []
        #: a pending graph longer than this is run by itself; 0 while ``flags.lazy_execution`` is 0
        self.limit = PENDING_LIMIT
        self.flush: Callable[[], None] | None = None

    @property
    def grad_enabled(self) -> bool:
        """Whether this thread records gradient paths."""
        return self.mode.enabled

    @grad_enabled.setter
    def grad_enabled(self, value: bool) -> None:
        self.mode.enabled = value


state = _State()


def _follow_lazy_execution(lazy: int) -> None:
    state.limit = PENDING_LIMIT if lazy else 0


observe("lazy_execution", _follow_lazy_execution)
next_order = itertools.count().__next__
new_node = Node.__new__


def make_node(
    sig: Signature, requires_grad: bool, order: float, origin: Any, kind: type[Node] = Node
) -> Node:
    """A node that waits to run, still without inputs and numbers.

    ``var.record`` says the same in place: it is on the path of every operation."""
    node = new_node(kind)
    node.sig = sig
    node.spec = sig.spec
    node.requires_grad = requires_grad
    node.buffer = None
    node.order = order
    node.handle = None
    node.origin = origin
    node.pos = 0
    node.released = False
    node.rule = None
    return node


@lru_cache(maxsize=4096)
def stored(spec: Spec) -> Signature:
    """The signature of an array that is already stored."""
    return signature("leaf", "array", None, (), spec)


def leaf(spec: Spec, buffer: Buffer, requires_grad: bool) -> Node:
    """A node for an array that is already stored."""
    node = make_node(stored(spec), requires_grad, next_order(), None)
    node.inputs = node.scalars = ()
    node.buffer = buffer
    return node


def describe_origin(node: Node) -> str:
    """``file:line`` of the user's code that recorded ``node``; worked out only when somebody asks."""
    if node.origin is None:
        return "unknown line"
    code, offset = node.origin
    line = code.co_firstlineno
    for start, end, number in code.co_lines():
        if start <= offset < end and number is not None:
            line = number
            break
    return f"{code.co_filename}:{line}"
