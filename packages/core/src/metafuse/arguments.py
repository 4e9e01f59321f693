"""Arguments checked by their annotations: one place for what would otherwise be said in every function.

What it is: ``checked``, a decorator of functions and classes. An argument that is nothing its annotation allows is refused
when the call is made, in words that name the function, the argument and what was given.
What it is not: a check of values (ranges, shapes that fit together); each function knows its own. Operators, which are called
often and convert what they are given, check by themselves (``ops.meta``).
Who calls it: functions that are called now and then: ``init``, ``data``, ``debug``, schedulers and the like.
"""

from __future__ import annotations

import functools
import inspect
import re
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, repeat
from operator import index
from typing import Any, TypeVar

import numpy as np

from .dtypes import is_number
from .errors import ArgumentError, DTypeError, brief
from .var import Var

__all__ = ["WrongType", "checked"]

T = TypeVar("T")
Test = Callable[[Any], bool]


class WrongType(ArgumentError, DTypeError):
    """An argument of the wrong type: to those who expect wrong arguments an ``ArgumentError``, and a ``TypeError`` as well."""


@dataclass(frozen=True)
class _Kind:
    """What an annotation stands for: words for messages, the test, and what the elements of a list have to be.

    ``by_type``: objects of a class, so that a message names the class of what was given, not its value."""

    words: str
    test: Test
    element: _Kind | None = None
    by_type: bool = False


def _is_integer(value: Any) -> bool:
    if isinstance(value, (bool, np.bool_)) or not hasattr(value, "__index__"):
        return False
    try:
        index(value)
    except (TypeError, ValueError):  # an array, or a class
        return False
    return True


def _is_number(value: Any) -> bool:
    if type(value) is Var:
        return value.size == 1
    return is_number(value) or isinstance(value, (np.integer, np.floating))


#: integers that functions compute with as they are
_COMMON = (int, np.integer, type(None))
_ANYTHING = _Kind("anything", lambda value: True)
_KINDS: dict[str, _Kind] = {
    "Any": _ANYTHING,
    "object": _ANYTHING,
    "Image": _ANYTHING,  # whoever opens it says best what is wrong
    "None": _Kind("None", lambda value: value is None),
    "Var": _Kind("a Var", lambda value: isinstance(value, Var), None, True),
    "bool": _Kind("True or False", lambda value: isinstance(value, (bool, int, np.bool_))),
    "int": _Kind("an integer", _is_integer),
    "float": _Kind("a number", _is_number),
    "str": _Kind("a string", lambda value: isinstance(value, str)),
    "Callable": _Kind("a function", callable),
    "PathLike": _Kind(
        "a path", lambda value: isinstance(value, str) or hasattr(type(value), "__fspath__"), None, True
    ),
    "BinaryIO": _Kind("an open file", lambda value: hasattr(value, "read") or hasattr(value, "write")),
    "TextIO": _Kind("an open file", lambda value: hasattr(value, "write")),
    "Mapping": _Kind("a dictionary", lambda value: isinstance(value, Mapping)),
    "dict": _Kind("a dictionary", lambda value: isinstance(value, dict)),
    "ndarray": _Kind("a NumPy array", lambda value: isinstance(value, np.ndarray), None, True),
    "type": _Kind("a class", lambda value: isinstance(value, type)),
}
_SEVERAL = {
    "Sequence": (Sequence, np.ndarray, Var), "Iterable": (Iterable,), "list": (list, tuple), "tuple": (list, tuple),
    "Iterator": (Iterable,),
}  # fmt: skip


def _split(annotation: str, mark: str) -> list[str]:
    """Parts between marks that stand in no brackets."""
    parts, depth = [""], 0
    for letter in annotation:
        depth += (letter == "[") - (letter == "]")
        if letter == mark and not depth:
            parts.append("")
        else:
            parts[-1] += letter
    return [p.strip() for p in parts]


@functools.lru_cache(maxsize=None)
def _kind(annotation: str) -> _Kind:
    """What an annotation means, as it is written."""
    alternatives = list(dict.fromkeys(_split(annotation, "|")))
    if len(alternatives) > 1:
        return _either([_kind(a) for a in alternatives])
    match = re.fullmatch(r"(?:\w+\.)*(\w+)(?:\[(.*)\])?", annotation)
    if match is None:
        return _ANYTHING
    name, inside = match[1], match[2]
    if name in _KINDS:
        return _KINDS[name]
    if name in _SEVERAL:
        return _several(_SEVERAL[name], _kind(_split(inside, ",")[0] if inside else "Any"))
    # a class by its name, so that this module need not import it
    words = f"an {name}" if name[0] in "AEIO" or name.startswith("LR") else f"a {name}"
    return _Kind(words, lambda value: any(k.__name__ == name for k in type(value).__mro__), None, True)


def _either(kinds: list[_Kind]) -> _Kind:
    if any(k is _ANYTHING for k in kinds):
        return _ANYTHING
    words = " or ".join(dict.fromkeys(k.words for k in kinds))
    element = next((k.element for k in kinds if k.element is not None), None)
    return _Kind(
        words, lambda value: any(k.test(value) for k in kinds), element, any(k.by_type for k in kinds)
    )


#: what arrays have to hold to stand for a list of such elements: kinds of NumPy's
_ELEMENTS = {"an integer": "iu", "a number": "iuf"}


def _array_of(value: Any, kinds: str) -> bool:
    """Whether an array or a Var is a row of such elements."""
    dtype = value.dtype.numpy if isinstance(value, Var) else value.dtype
    return value.ndim == 1 and dtype.kind in kinds


def _several(types_: tuple[type, ...], element: _Kind) -> _Kind:
    def holds(value: Any) -> bool:
        if not isinstance(value, types_) or isinstance(value, (str, bytes)) or getattr(value, "ndim", 1) == 0:
            return False
        if isinstance(value, (np.ndarray, Var)):
            if element.words in _ELEMENTS:
                return _array_of(value, _ELEMENTS[element.words])
            return not element.by_type or element.words == "a Var"  # no array holds other objects
        return not isinstance(value, (list, tuple)) or all(element.test(v) for v in value)

    return _Kind("a list", holds, element, element.by_type)


def _written_out(annotation: str, names: dict[str, Any]) -> str:
    """An annotation with the names of other annotations (``Size = int | Sequence[int]``) replaced by those."""

    def meaning(match: re.Match[str]) -> str:
        value = names.get(match[0])
        if isinstance(value, TypeVar):
            return "Any"
        return str(value) if isinstance(value, (types.UnionType, types.GenericAlias)) else match[0]

    return re.sub(r"\w+", meaning, annotation)


def checked(target: T) -> T:
    """Have the arguments of a function, or of a class's public methods, checked by their annotations.

    Args:
        target: a function or class whose annotations are text (``from __future__ import annotations``). ``Any`` allows
            everything; ``int`` any integer but bool; ``float`` any number, also a Var of one element; ``Sequence[int]``
            lists, tuples, ranges and arrays; the name of a class its objects.

    Returns:
        The function with the same name and signature, or the same class.

    Errors:
        The function raises ``WrongType`` (an ``ArgumentError`` and a ``DTypeError``) when it is called with something else.
        Too few or unknown arguments get Python's own ``TypeError``.

    Example:
        >>> from metafuse.arguments import checked
        >>> @checked
        ... def repeat(text: str, times: int = 2) -> str:
        ...     return text * times
        >>> repeat("ab")
        'abab'
        >>> repeat("ab", 0.5)
        Traceback (most recent call last):
        ...
        metafuse.arguments.WrongType: [repeat] times must be an integer, got 0.5
    """
    if isinstance(target, type):
        for name, value in list(vars(target).items()):
            if name.startswith("_") and name not in ("__init__", "__call__"):
                continue
            if inspect.isfunction(value):
                setattr(target, name, _checked(value))
            elif isinstance(value, staticmethod):
                setattr(target, name, staticmethod(_checked(value.__func__)))
        target.__doc__ = _with_errors(target.__doc__)
        return target
    return _checked(target)  # type: ignore[arg-type,return-value]


def _checked(function: Callable[..., Any]) -> Callable[..., Any]:
    parameters = list(inspect.signature(function).parameters.values())
    kinds: dict[str, _Kind] = {}
    for p in parameters:
        if isinstance(p.annotation, str) and p.kind is not p.VAR_KEYWORD:
            annotation = _written_out(p.annotation, function.__globals__)
            kind = _kind(annotation if p.default is not None else f"{annotation} | None")
            if kind is not _ANYTHING:
                kinds[p.name] = kind
    if not kinds:
        return function
    places = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    rest = next((p.name for p in parameters if p.kind is p.VAR_POSITIONAL), "")
    whole = {name for name, kind in kinds.items() if kind.words in ("an integer", "an integer or None")}

    def whole_of(name: str, value: Any) -> Any:
        return index(value) if name in whole and not isinstance(value, _COMMON) else value

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        given = [*zip(places, args), *((rest, value) for value in args[len(places) :]), *kwargs.items()]
        strange = False
        for name, value in given:
            kind = kinds.get(name)
            if kind is not None and not kind.test(value):
                raise _refusal(function, args, name, kind, value)
            strange = strange or (name in whole and not isinstance(value, _COMMON))
        if strange:  # what only stands for an integer becomes one
            args = tuple(whole_of(name, value) for name, value in zip(chain(places, repeat(rest)), args))
            kwargs = {name: whole_of(name, value) for name, value in kwargs.items()}
        return function(*args, **kwargs)

    call.__doc__ = _with_errors(function.__doc__)
    return call


def _with_errors(text: str | None) -> str | None:
    """A docstring that says what every checked function raises, unless it speaks of errors itself."""
    if not text or "Errors:" in text:
        return text
    return f"{text.rstrip()}\n\n    Errors:\n        WrongType: an argument is nothing that its annotation allows.\n    "


def _refusal(
    function: Callable[..., Any], args: tuple[Any, ...], name: str, kind: _Kind, value: Any
) -> WrongType:
    owner, _, own = function.__qualname__.rpartition(".")
    if own in ("__init__", "__call__") and args:
        label = type(args[0]).__name__
    else:
        label = f"{owner}.{own}" if owner and "<locals>" not in owner else own
    if kind.element is not None and isinstance(value, (list, tuple)):
        for k, v in enumerate(value):
            if not kind.element.test(v):
                return WrongType(f"[{label}] {name}[{k}] must be {kind.element.words}, got {_brief(v, kind)}")
    return WrongType(f"[{label}] {name} must be {kind.words}, got {_brief(value, kind)}")


def _brief(value: Any, kind: _Kind) -> str:
    """A short text for messages; a Var is not computed for it."""
    if isinstance(value, Var):
        return f"a Var of {value.dtype} and shape {list(value.shape)}"
    return type(value).__name__ if kind.by_type else brief(value)
