"""Var: the user's handle of a value that may not have been computed yet.

What it is: a thin handle with identity, name and hooks. Reading it (``numpy``, ``item``, ``data``, ``print``, ``bool``
...) runs what is needed; see ``docs/evaluation.md`` for the exact rules.
What it is not: an operator. Methods such as ``exp`` or ``reshape`` and the arithmetic operators are put on the class
by the operator records in ``ops``.
Who calls it: users, and every layer above ``graph``.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sized
from typing import TYPE_CHECKING, Any
from weakref import ref

import numpy as np

from .dtypes import DType, as_dtype
from .errors import ArgumentError, DTypeError, brief
from .extents import Shape, Size, spec_numel
from .finite import listed
from .graph.node import Node, Signature, leaf, new_node, next_order, spec_of, state
from .hot import compiled
from .runtime import executor
from .runtime.handover import hand_over

__all__ = ["Shape", "Size", "Var", "record", "spec_numel", "sync", "sync_all", "wrap"]

_new = object.__new__
_getframe = sys._getframe


class Var:
    """An n-dimensional value of one dtype. Make one with ``metafuse.array`` and its relatives.

    Example:
        >>> import metafuse as mf
        >>> x = mf.array([[1.0, 2.0], [3.0, 4.0]])
        >>> (x * 2 + 1).numpy()
        array([[3., 5.],
               [7., 9.]], dtype=float32)
    """

    __slots__ = ("_node", "__weakref__", "__dict__")
    _node: Node
    _name: str | None = None
    _hooks: tuple[Callable[[Any], Any], ...] = ()
    _origin: Any = None  # what `x[index]` was taken from: an `Origin` of `ops.indexing`
    __array_priority__ = 1000  # NumPy hands `ndarray * Var` to Var

    if TYPE_CHECKING:  # operator records put these on the class

        def __getattr__(self, name: str) -> Any: ...
        def __add__(self, other: Any) -> Var: ...
        def __radd__(self, other: Any) -> Var: ...
        def __sub__(self, other: Any) -> Var: ...
        def __rsub__(self, other: Any) -> Var: ...
        def __mul__(self, other: Any) -> Var: ...
        def __rmul__(self, other: Any) -> Var: ...
        def __truediv__(self, other: Any) -> Var: ...
        def __rtruediv__(self, other: Any) -> Var: ...
        def __floordiv__(self, other: Any) -> Var: ...
        def __mod__(self, other: Any) -> Var: ...
        def __pow__(self, other: Any) -> Var: ...
        def __rpow__(self, other: Any) -> Var: ...
        def __matmul__(self, other: Any) -> Var: ...
        def __rmatmul__(self, other: Any) -> Var: ...
        def __neg__(self) -> Var: ...
        def __and__(self, other: Any) -> Var: ...
        def __or__(self, other: Any) -> Var: ...
        def __xor__(self, other: Any) -> Var: ...
        def __invert__(self) -> Var: ...
        def __eq__(self, other: Any) -> Var: ...  # type: ignore[override]
        def __ne__(self, other: Any) -> Var: ...  # type: ignore[override]
        def __lt__(self, other: Any) -> Var: ...
        def __le__(self, other: Any) -> Var: ...
        def __gt__(self, other: Any) -> Var: ...
        def __ge__(self, other: Any) -> Var: ...
        def __getitem__(self, index: Any) -> Var: ...
        def __setitem__(self, index: Any, value: Any) -> None: ...

    def __init__(self, data: Any, dtype: Any = None) -> None:
        from .ops.creation import array

        self._bind(array(data, dtype)._node)

    # -- shape and type ---------------------------------------------------------------------------------------
    @property
    def shape(self) -> Shape:
        """Extents, a tuple that also equals lists; reading it runs nothing."""
        return Shape(self._node.spec.shape)

    @property
    def dtype(self) -> DType:
        """Element type."""
        return self._node.spec.dtype

    @property
    def ndim(self) -> int:
        """Number of dimensions."""
        return len(self._node.spec.shape)

    def numel(self) -> int:
        """Number of elements.

        Example:
            >>> import metafuse as mf
            >>> mf.zeros(2, 3).numel()
            6
        """
        return self._node.spec.size

    @property
    def size(self) -> Size:
        """Number of elements; called, it answers the shape, or with a dimension that dimension's extent."""
        return Size(self._node.spec.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of the stored value."""
        return self._node.spec.nbytes

    def __len__(self) -> int:
        if not self._node.spec.shape:
            raise DTypeError("[len] a Var without dimensions has no length")
        return self._node.spec.shape[0]

    # -- reading ---------------------------------------------------------------------------------------------
    def sync(self, device_sync: bool = False, weak_sync: bool = True) -> Var:
        """Compute the value now (and, unless ``weak_sync`` is false, every older pending value that is held); see ``mf.sync``.

        Example:
            >>> import metafuse as mf
            >>> (mf.ones(2) * 3).sync().tolist()
            [3.0, 3.0]
        """
        if device_sync is False and weak_sync is True:
            _evaluate(self._node)
        else:
            sync([self], device_sync, weak_sync)
        return self

    def numpy(self) -> np.ndarray[Any, Any]:
        """A copy of the value as a NumPy array of the same shape and dtype.

        Example:
            >>> import metafuse as mf
            >>> mf.array([[1, 2]]).numpy()
            array([[1, 2]], dtype=int32)
        """
        for watcher in executor.watchers:
            watcher.was_read(self._node)
        return executor.read(self._node)

    @property
    def data(self) -> np.ndarray[Any, Any]:
        """The value as a NumPy array that shares memory where the device allows it; writes go through there."""
        for watcher in executor.watchers:
            watcher.was_read(self._node)
        return executor.view(self._node)

    @data.setter
    def data(self, value: Any) -> None:
        self.assign(value)

    def item(self, *index: int) -> float | int | bool:
        """The only element as a Python number, or the one at ``index``: one number counts row-major, else one per dimension.

        Errors:
            ArgumentError: there is not exactly one, or none at ``index``.

        Example:
            >>> import metafuse as mf
            >>> mf.array([2.5]).item(), mf.array([[1, 2], [3, 4]]).item(1, 0)
            (2.5, 3)
        """
        if index:
            try:
                return self.numpy().item(*index)  # type: ignore[no-any-return]
            except (IndexError, TypeError, ValueError) as error:
                given = ", ".join(map(brief, index))
                raise ArgumentError(
                    f"[item] no element of shape {list(self.shape)} is at {given}: {error}"
                ) from None
        if self._node.spec.size != 1:
            raise ArgumentError(
                f"[item] needs exactly one element, got shape {list(self.shape)}; index it first"
            )
        return self.numpy().reshape(-1)[0].item()  # type: ignore[no-any-return]

    def tolist(self) -> Any:
        """The value as nested Python lists.

        Example:
            >>> import metafuse as mf
            >>> mf.array([[1, 2], [3, 4]]).tolist()
            [[1, 2], [3, 4]]
        """
        return self.numpy().tolist()

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray[Any, Any]:
        value = self.numpy()
        return value if dtype is None else value.astype(dtype)

    def __bool__(self) -> bool:
        return bool(self.item())

    def __float__(self) -> float:
        return float(self.item())

    def __int__(self) -> int:
        return int(self.item())

    def __index__(self) -> int:
        if self.dtype.is_float:
            raise DTypeError(f"[index] a Var of {self.dtype} can't be used as an index; cast it to int32")
        return int(self.item())

    def __iter__(self) -> Iterator[Var]:
        return (self[i] for i in range(len(self)))  # type: ignore[index]

    def __repr__(self) -> str:
        return f"metafuse.Var({np.array2string(self.numpy(), separator=', ')}, dtype={self.dtype})"

    __hash__ = object.__hash__

    # -- identity, assignment --------------------------------------------------------------------------------
    def name(self, value: str | None = None) -> Any:
        """The name, or with an argument: set it and answer the Var.

        Example:
            >>> import metafuse as mf
            >>> mf.ones(2).name("weight").name()
            'weight'
        """
        if value is None:
            return self._name or ""
        self._name = value if isinstance(value, str) else brief(value)
        return self

    def _bind(self, node: Node) -> None:
        """Make this handle hold ``node``."""
        for watcher in executor.watchers:
            watcher.rebinding(self)
        self._node = node
        handle = ref(self)
        node.handle = handle
        if node.buffer is None:
            state.pending.append(handle)

    def assign(self, value: Any) -> Var:
        """Make this Var hold ``value`` from now on (same shape; cast to its own dtype), gradient path included.

        Example:
            >>> import metafuse as mf
            >>> x = mf.zeros(2)
            >>> x.assign([1.0, 2.0]).tolist()
            [1.0, 2.0]
        """
        from .ops.creation import array
        from .ops.elementwise import cast
        from .ops.meta import identity

        new = value if type(value) is Var else array(value, self.dtype)
        if new.shape != self.shape:
            raise ArgumentError(f"[assign] shape must stay {list(self.shape)}, got {list(new.shape)}")
        new = cast(new, self.dtype)
        self._bind(identity(new)._node if new is value else new._node)
        return self

    def update(self, value: Any) -> Var:
        """``assign`` without a gradient path: what optimizers and running statistics do. The Var stays as trainable as it was.

        Example:
            >>> import metafuse as mf
            >>> x = mf.ones(2)
            >>> x.update(x * 3).tolist(), x.requires_grad
            ([3.0, 3.0], True)
        """
        if not self._node.requires_grad:
            return self.assign(value).stop_grad()
        self.assign(value.detach() if type(value) is Var else value)
        self._node.requires_grad = True
        return self

    def _renew(self, value: Var) -> None:
        """Hold what was recorded for this Var alone, as trainable as before. ``value`` may have the old one then."""
        if self._node.requires_grad:
            self._hold_as_leaf(value)
        else:
            self.swap(value)
            self._node.requires_grad = False

    def _hold_as_leaf(self, value: Var) -> None:
        """Hold ``value`` as something trainable that no gradient goes behind. If its own node were made trainable, what it was
        computed from (the old value of this very Var) would still be on the path."""
        self._bind(value.detach()._node)
        self._node.requires_grad = True

    def _rebind(self, node: Node) -> None:
        """Hold ``node`` after a change in place, which leaves a trainable Var trainable where gradients are off."""
        trainable = self._node.requires_grad and not state.grad_enabled and node.spec.dtype.is_float
        if trainable and (type(node) is not Node or any(x.requires_grad for x in node.inputs)):
            self._hold_as_leaf(wrap(node))
            return
        self._bind(node)
        if trainable:
            node.requires_grad = True

    def swap(self, other: Var) -> Var:
        """Exchange the values of two Vars.

        Example:
            >>> import metafuse as mf
            >>> x, y = mf.ones(1), mf.zeros(1)
            >>> _ = x.swap(y)
            >>> x.item(), y.item()
            (0.0, 1.0)
        """
        if not isinstance(other, Var):
            raise DTypeError(f"[swap] other must be a Var, got {type(other).__name__}")
        mine, theirs = self._node, other._node
        self._bind(theirs)
        other._bind(mine)
        return self

    def __copy__(self) -> Var:
        from .ops.meta import identity

        return identity(self)

    def __deepcopy__(self, memo: dict[int, Any]) -> Var:
        """A Var of its own with the same value, as a leaf."""
        return _rebuild(*self.__reduce__()[1])

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (self.numpy(), self.dtype.name, self.requires_grad, self._name)

    # -- gradient path --------------------------------------------------------------------------------------
    @property
    def requires_grad(self) -> bool:
        """Whether gradients may flow to or through this value."""
        return self._node.requires_grad

    @requires_grad.setter
    def requires_grad(self, value: bool) -> None:
        if value:
            self.start_grad()
        else:
            self.stop_grad()

    def is_stop_grad(self) -> bool:
        """Whether no gradient flows through this value.

        Example:
            >>> import metafuse as mf
            >>> mf.ones(2).is_stop_grad(), mf.ones(2).stop_grad().is_stop_grad()
            (False, True)
        """
        return not self._node.requires_grad

    def stop_grad(self) -> Var:
        """Cut the gradient path at this value; answers the Var itself.

        Example:
            >>> import metafuse as mf
            >>> x = mf.array([3.0])
            >>> mf.grad(x * x + (x * x).stop_grad(), x).item()
            6.0
        """
        self._node.requires_grad = False
        return self

    def start_grad(self) -> Var:
        """Make a floating-point value something gradients can be asked for.

        Example:
            >>> import metafuse as mf
            >>> mf.ones(2).stop_grad().start_grad().requires_grad
            True
        """
        if not self.dtype.is_float:
            raise DTypeError(f"[start_grad] only floating-point Vars have gradients, got {self.dtype}")
        self._node.requires_grad = True
        return self

    def detach(self) -> Var:
        """The same value without a gradient path, as a new Var.

        Example:
            >>> import metafuse as mf
            >>> mf.ones(2).detach().requires_grad
            False
        """
        from .ops.meta import detached

        return detached(self)

    def register_hook(self, hook: Callable[[Var], Var | None]) -> Var:
        """Call ``hook(gradient)`` when a gradient with respect to this Var is computed; it may answer a replacement.

        Hooks are called in the order of registration. Answers the Var.

        Example:
            >>> import metafuse as mf
            >>> x = mf.array([3.0])
            >>> _ = x.register_hook(lambda gradient: gradient * 10)
            >>> mf.grad(x * 2, x).item()
            20.0
        """
        if not callable(hook):
            raise DTypeError(f"[register_hook] hook must be callable, got {type(hook).__name__}")
        return self._set_hooks((*self._hooks, hook))

    def remove_hook(self, hook: Callable[[Var], Var | None] | None = None) -> Var:
        """Take back one ``hook``, or all of them.

        Example:
            >>> import metafuse as mf
            >>> x = mf.array([3.0])
            >>> _ = x.register_hook(lambda gradient: gradient * 10).remove_hook()
            >>> mf.grad(x * 2, x).item()
            2.0
        """
        if hook is not None and hook not in self._hooks:
            raise ArgumentError("[remove_hook] this hook is not registered")
        kept = list(self._hooks)
        kept.remove(hook) if hook is not None else kept.clear()
        return self._set_hooks(tuple(kept))

    def _set_hooks(self, hooks: tuple[Callable[[Any], Any], ...]) -> Var:
        self._hooks = hooks
        node = self._node
        if node.inputs:  # the graph keeps them where the Var goes
            rule = node.rule.rule if type(node.rule) is _Hooks else node.rule
            node.rule = _Hooks(rule, hooks) if hooks else rule
        return self


class _Hooks:
    """The hooks of a node that no handle may stand for any more, beside the rule that it may have of its own."""

    __slots__ = ("hooks", "rule")

    def __init__(self, rule: Callable[..., Any] | None, hooks: tuple[Callable[[Any], Any], ...]) -> None:
        self.rule = rule
        self.hooks = hooks

    def __call__(self, upstream: Var) -> Any:
        assert self.rule is not None
        return self.rule(upstream)


def record(sig: Signature, inputs: tuple[Node, ...], scalars: tuple[float | int, ...] = ()) -> Var:
    """Record an operation and hand back its handle. Everything here is on the path of every operation."""
    node = new_node(Node)
    node.sig = sig
    node.spec = sig.spec
    node.inputs = inputs
    node.scalars = scalars
    node.buffer = None
    node.released = False
    node.rule = None
    node.pos = 0
    node.order = next_order()
    requires = False
    if sig.differentiable and state.grad_enabled:
        for x in inputs:
            if x.requires_grad:
                requires = True
                break
    node.requires_grad = requires
    frame: Any = _getframe(2)
    while frame.f_globals.get("__name__", "")[:8] == "metafuse" and frame.f_back is not None:
        frame = frame.f_back
    node.origin = (frame.f_code, frame.f_lasti)
    var: Var = _new(Var)
    var._node = node
    handle = ref(var)
    node.handle = handle
    pending = state.pending
    pending.append(handle)
    if len(pending) > state.limit:
        sync_all()
    return var


def wrap(node: Node) -> Var:
    """The handle of ``node``: the existing one if it is alive, else a new one."""
    handle = node.handle
    var = handle() if handle is not None else None
    if var is None or var._node is not node:
        var = _new(Var)
        var._bind(node)
    return var  # type: ignore[no-any-return]


def from_host(value: np.ndarray[Any, Any], dtype: DType, requires_grad: bool) -> Var:
    """A Var over a copy of a host array that already has ``dtype``."""
    spec = spec_of(tuple(map(int, value.shape)), dtype)
    var: Var = _new(Var)
    node = leaf(spec, executor.upload(value, spec), requires_grad)
    frame: Any = _getframe(1)
    while frame.f_globals.get("__name__", "")[:8] == "metafuse" and frame.f_back is not None:
        frame = frame.f_back
    node.origin = (frame.f_code, frame.f_lasti)
    for watcher in executor.watchers:
        watcher.uploaded(node)
    var._bind(node)
    return var


def _rebuild(value: np.ndarray[Any, Any], dtype: str, requires_grad: bool, name: str | None) -> Var:
    """A leaf from what ``__reduce__`` keeps."""
    var = from_host(value, as_dtype(dtype), requires_grad)
    if name is not None:
        var._name = name
    return var


def sync(vh: Iterable[Var] = (), device_sync: bool = False, weak_sync: bool = True) -> None:
    """Compute several Vars as one program.

    Args:
        vh: Vars.
        device_sync: wait until the device is done; else the call may return while it still computes.
        weak_sync: the program also has every older pending value that is held; ``False``: nothing that ``vh`` does not need.

    Example:
        >>> import metafuse as mf
        >>> x, y = mf.ones(2) * 2, mf.ones(2) * 3
        >>> mf.sync([x, y])
        >>> x.tolist(), y.tolist()
        ([2.0, 2.0], [3.0, 3.0])
    """
    try:
        nodes = [v._node for v in (vh if isinstance(vh, Sized) else listed("sync", "vh", vh))]
    except (TypeError, AttributeError):
        raise DTypeError("[sync] vh must be a list of Vars; for one Var write var.sync()") from None
    executor.evaluate(nodes, weak_sync is not True and not _is_true("weak_sync", weak_sync))
    if device_sync is not False and _is_true("device_sync", device_sync):
        executor.device().backend.synchronize()


def _is_true(name: str, value: Any) -> bool:
    if not isinstance(value, (bool, int, np.bool_)):
        raise DTypeError(f"[sync] {name} must be True or False, got {type(value).__name__}")
    return bool(value)


def sync_all(device_sync: bool = False) -> None:
    """Compute every pending value that is still held; ``device_sync``: wait until the device is done.

    Example:
        >>> import metafuse as mf
        >>> x = mf.ones(2) * 2
        >>> mf.sync_all()
        >>> x.tolist()
        [2.0, 2.0]
    """
    executor.evaluate(None)
    if _is_true("device_sync", device_sync):
        executor.device().backend.synchronize()


def _evaluate(node: Node) -> None:
    """Compute one value, and what is pending and older."""
    executor.evaluate([node])


hand_over(Var, sync_all)
if compiled is not None:  # the same without Python
    record = compiled.record
    _evaluate = compiled.evaluate
