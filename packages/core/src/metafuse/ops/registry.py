"""The table of operators: one record each, from which everything else is derived.

What it is: the decorator and factory that register records, and the lookup. ``Operator``, ``Sample`` and ``Tensor`` are from
``operator_record``.
What it is not: code generation or recording; records hold the functions that do it.
Who calls it: the modules of ``ops`` and plugins register; ``metafuse.__init__``, the docs, the command line and the
conformance kit read.

Registering is the only step: the function appears in the ``metafuse`` namespace, as a ``Var`` method if the record
says so, in the operator table, and in the conformance tests. A method's name is a function's name too (``mf.permute(x)``),
and a method ``f`` whose answer is one Var has a variant ``f_`` that makes the Var hold the answer.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterable
from threading import RLock
from typing import Any, TypeVar

from ..errors import ArgumentError, DTypeError
from ..var import Var
from . import record_docs
from .operator_record import Operator, Sample, Tensor
from .other_names import takes_other_names
from .telling import REFUSALS, has_name, renamed, under

__all__ = [
    "Operator", "Sample", "Tensor", "all_operators", "find", "function_named", "function_names", "in_place", "later", "operator",
    "register", "show", "unregister",
]  # fmt: skip

F = TypeVar("F", bound=Callable[..., Any])


_PACKAGE = "metafuse"
_operators: dict[str, Operator] = {}
#: further names by which users find functions (methods, in-place variants): name -> (record, function)
_further: dict[str, tuple[str, Callable[..., Any]]] = {}


def in_place(name: str, function: Callable[..., Any]) -> Callable[..., Var]:
    """The variant of ``function`` after which its first argument holds the answer (whatever its shape and dtype)."""

    def apply(x: Any, *args: Any, **kwargs: Any) -> Var:
        if type(x) is not Var:
            raise DTypeError(f"[{name}] only a Var can be changed in place, got {type(x).__name__}")
        try:
            answer = function(x, *args, **kwargs)
        except REFUSALS as error:
            raise under(name, error) from None
        if type(answer) is not Var:
            raise DTypeError(f"[{name}] the answer is no single Var, got {type(answer).__name__}")
        if answer is not x:
            # an argument handed back keeps a node of its own
            shared = any(answer is a for a in (*args, *kwargs.values()))
            x._rebind(answer.__copy__()._node if shared else answer._node)
        return x

    apply.__name__ = apply.__qualname__ = name
    apply.__wrapped__ = function  # type: ignore[attr-defined]  # whose parameters it has
    apply.__doc__ = (
        f"``{function.__name__}`` in place: the Var holds the answer from now on, with its shape and dtype; answers the Var "
        f"itself.\n\nErrors:\n    DTypeError: the first argument is no Var. Else those of ``{function.__name__}``.\n"
    )
    return apply


def _called(name: str, record: Operator) -> Callable[..., Any]:
    """The record's function, or its namesake where it has another name."""
    own = record.name.rpartition(".")[2]
    return record.function if name == own or name.startswith("__") else renamed(name, record.function)


def _names(record: Operator) -> dict[str, Callable[..., Any]]:
    """What a record puts on ``Var``."""
    found = {m: _called(m, record) for m in record.methods}
    if record.rebinds:
        for m in record.methods:
            if not m.startswith("_") and not m.endswith("_"):
                variant = in_place(f"{m}_", record.function)
                variant.__doc__ = f"{variant.__doc__}{record_docs.in_place_example(f'{m}_', record)}"
                found.setdefault(f"{m}_", variant)
    return found


def register(record: Operator) -> Operator:
    """Enter ``record``. Errors: ``ArgumentError`` if the name is taken by another record."""
    if record.name in _operators:
        raise ArgumentError(f"[register] operator {record.name!r} exists already; choose another name")
    record_docs.complete(record)
    names = _names(record)
    for name in names:
        if name in record.methods and name in _further:
            owner = _further[name][0]
            raise ArgumentError(
                f"[register] {record.name!r}: {name!r} is a method of {owner!r}; choose another name"
            )
    _operators[record.name] = record
    _forget(record.name)
    for name, function in names.items():
        setattr(Var, name, function)
        _further[name] = (record.name, function)
    return record


def unregister(name: str) -> None:
    """Take an operator out again (plugins that are unloaded, tests)."""
    del _operators[name]
    _forget(name)
    for other in [other for other, (owner, _) in _further.items() if owner == name]:
        _forget(other)
        if getattr(Var, other, None) is _further.pop(other)[1]:
            delattr(Var, other)


#: what the package was asked for, kept among its own names so that it is found at once the next time
_shown: dict[str, Callable[..., Any]] = {}


def function_named(name: str) -> Callable[..., Any] | None:
    """The function that users find as ``metafuse.<name>`` through the records, or ``None``."""
    record = find(name)
    if record is not None:
        return record.function
    return None if name.startswith("_") else _further.get(name, ("", None))[1]


def show(name: str, function: Callable[..., Any]) -> None:
    """Keep ``function`` as ``metafuse.<name>`` as long as the records say so."""
    _shown[name] = function
    setattr(sys.modules[_PACKAGE], name, function)


def _forget(name: str) -> None:
    """The package has to ask again for ``name``."""
    function = _shown.pop(name, None)
    names = vars(sys.modules[_PACKAGE])
    if function is not None and names.get(name) is function:
        del names[name]


def function_names() -> list[str]:
    """Every name that ``function_named`` knows."""
    _enter_later()
    own = (name for name in _operators if "." not in name)  # `linalg.inv` is found in `metafuse.linalg`
    return sorted({*own, *(name for name in _further if not name.startswith("_"))})


#: modules of records that are imported when somebody asks for them: `import metafuse` need not pay for them
_later: list[str] = []
#: what has been named, but is not entered completely; the thread that enters it
_unfinished: list[str] = []
_entering = RLock()


def later(*modules: str) -> None:
    """Name modules whose records and methods are entered when somebody asks for a name that is not there yet."""
    _unfinished.extend(modules)
    _later.extend(modules)


def _enter_later() -> None:
    """Enter all of them; a thread that comes while another is at it waits. A module that asks for a name gets those after it."""
    with _entering:
        while _later:
            module = _later.pop(0)
            try:
                importlib.import_module(module)
            finally:
                _unfinished.remove(module)


def _late_method(self: Var, name: str) -> Any:
    """``Var.__getattr__``: a method of a record that is entered on demand."""
    if _unfinished and not name.startswith("__"):
        _enter_later()
        if hasattr(Var, name):
            return getattr(self, name)
    return object.__getattribute__(self, name)  # raises the error, which may be a property's own


Var.__getattr__ = _late_method  # type: ignore[method-assign]


def find(name: str) -> Operator | None:
    """The record of ``name``, or ``None``."""
    record = _operators.get(name)
    if record is None and _unfinished and not name.startswith("_"):
        _enter_later()
        record = _operators.get(name)
    return record


def all_operators() -> list[Operator]:
    """Every record, by category and name."""
    _enter_later()
    return sorted(_operators.values(), key=lambda record: (record.category, record.name))


def operator(
    *,
    category: str,
    numpy: Callable[..., Any] | None,
    samples: Iterable[Sample] = (),
    source: str = "",
    method: bool | str | tuple[str, ...] = False,
    differentiable: bool = True,
    name: str = "",
    rebinds: bool = True,
) -> Callable[[F], F]:
    """Register a function of Vars as an operator.

    Example:
        >>> import numpy as np
        >>> from metafuse.ops.registry import Sample, Tensor, operator, unregister
        >>> @operator(category="example", numpy=lambda x: 2 * x, samples=[Sample((Tensor((3,)),))], method=True)
        ... def twice(x):
        ...     "Two times ``x``."
        ...     return x + x
        >>> import metafuse as mf
        >>> mf.twice(mf.array([1.0, 2.0])).numpy()
        array([2., 4.], dtype=float32)
        >>> unregister("twice")
    """

    def decorate(function: F) -> F:
        function = takes_other_names(function)
        own = name or function.__name__
        if has_name(function):
            function = renamed(own, function)
        methods = (own,) if method is True else (method,) if isinstance(method, str) else method or ()
        register(
            Operator(
                own, category, function, numpy, tuple(samples), source, differentiable, tuple(methods), rebinds=rebinds
            )
        )  # fmt: skip
        return function

    return decorate
