"""What a recorded call left behind: values to hand out and changes of Python state, as templates that are filled at replay.

What it is: ``template`` (a nested value with holes for Vars and followed numbers), ``fill``, and ``changes``, which finds
what became different in the containers of a ``Walk``.
What it is not: the rebinding of Vars (``recorder`` watches that).
Who calls it: ``recorder`` and ``replay``.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..var import Var
from .numbers import Number
from .walk import Same, Unseen, Walk, typed

__all__ = ["DEEP", "Change", "Template", "changes", "concrete", "fill", "positions", "template"]

#: ("var", number) | ("number", number) | ("text", typed value, value) | ("held", position in the walk) | ("object", Same) |
#: (class, keys or None, templates)
Template = tuple[Any, ...]
#: (number of the container in the walk, "set" | "delete" | "items", key, value)
Change = tuple[int, str, Any, Any]

#: why a function whose answer no template describes runs uncaptured
DEEP = "what it answers is nested too deeply, or contains itself"

_TEXTS = (type(None), bool, int, float, complex, str, bytes)


def template(
    value: Any, var: Callable[[Var], int], number: Callable[[Number], int], held: Callable[[Any], int | None]
) -> Template:
    """The template of ``value``; ``var`` and ``number`` give every Var and followed number its own, ``held`` every object
    that was there before (``None``: it was not)."""
    kind = type(value)
    if kind is Var:
        return "var", var(value)
    if kind is Number:
        return "number", number(value)
    if kind in _TEXTS:
        return "text", typed(value), value
    position = held(value)
    if position is not None:
        return "held", position
    if kind is dict or kind is OrderedDict:
        return kind, tuple(value), tuple(template(v, var, number, held) for v in value.values())
    if kind is list or kind is tuple or (isinstance(value, tuple) and hasattr(value, "_make")):
        return kind, None, tuple(template(v, var, number, held) for v in value)
    return "object", Same(value)


def fill(shape: Template, vars: Sequence[Any], numbers: Sequence[Any], held: Mapping[int, Any]) -> Any:
    """The value of a template."""
    kind = shape[0]
    if kind == "var":
        return vars[shape[1]]
    if kind == "text":
        return shape[2]
    if kind == "number":
        return numbers[shape[1]]
    if kind == "held":
        return held[shape[1]]
    if kind == "object":
        return shape[1].thing
    parts = [fill(s, vars, numbers, held) for s in shape[2]]
    if shape[1] is not None:
        return kind(zip(shape[1], parts, strict=True))
    return parts if kind is list else tuple(parts) if kind is tuple else kind._make(parts)


def positions(shape: Template) -> set[int]:
    """Objects that were there before which a template hands out."""
    if shape[0] == "held":
        return {shape[1]}
    if isinstance(shape[0], type):
        return {k for s in shape[2] for k in positions(s)}
    return set()


def concrete(value: Any) -> Any:
    """``value`` with bare numbers in place of followed ones; itself if it has none."""
    if type(value) is Number:
        return value.value
    if type(value) in (list, tuple) or (isinstance(value, tuple) and hasattr(value, "_make")):
        parts = [concrete(v) for v in value]
        if all(a is b for a, b in zip(parts, value, strict=True)):
            return value
        return value._make(parts) if hasattr(value, "_make") else type(value)(parts)
    if type(value) is dict:
        found = {k: concrete(v) for k, v in value.items()}
        return value if all(found[k] is v for k, v in value.items()) else found
    return value


def changes(walk: Walk, now: Walk, followed: set[tuple[int, Any]]) -> list[Change]:
    """What became different between ``walk`` and ``now``. ``followed``: (identity of the container, key) of places looked
    after elsewhere. What happened to containers that are no longer there does not matter.

    Errors: ``Unseen`` for changes that can't be made again."""
    former = {id(c): (keys, values) for kind, c, keys, values in walk.containers if kind in ("dict", "list")}
    still = {id(container) for _, container, _, _ in now.containers}
    found: list[Change] = []
    for number, (kind, container, keys, values) in enumerate(walk.containers):
        if id(container) not in still:
            continue
        if kind in ("dict", "globals", "cell"):
            found.extend(
                _entries(number, kind, container, dict(zip(keys, values, strict=True)), former, followed)
            )
        elif kind == "list":
            items = list(container)
            if len(items) != len(values):
                found.append((number, "items", None, items))
            else:
                found.extend(
                    (number, "set", k, b)
                    for k, (a, b) in enumerate(zip(values, items, strict=True))
                    if (id(container), k) not in followed and not _same(a, b, former)
                )
        else:
            live = container.__dict__.values() if kind == "class" else container
            items = [getattr(container, k, None) for k in keys] if kind == "slots" else list(live)
            if len(items) != len(values) or any(a is not b for a, b in zip(items, values, strict=True)):
                raise Unseen(f"a change of a {type(container).__name__}")
    return found


def _entries(
    number: int, kind: str, container: Any, before: dict[Any, Any], former: dict[int, Any], followed: set[Any]
) -> list[Change]:
    found: list[Change] = []
    if kind == "cell":
        live = dict.fromkeys(before, container.cell_contents)
    elif kind == "globals":
        live = {key: container.get(key) for key in before}
    else:
        live = dict(container)
    for key, value in live.items():
        if (id(container), key) in followed:
            continue
        if key not in before or not _same(before[key], value, former):
            found.append((number, "set", key, value))
    found.extend((number, "delete", key, None) for key in before if key not in live)
    return found


def _same(a: Any, b: Any, former: dict[int, Any]) -> bool:
    """Whether ``b`` says the same as ``a`` did, though it may be another object."""
    if a is b:
        return True
    if type(a) is not type(b):
        return False
    if type(a) in _TEXTS:
        return typed(a) == typed(b)
    if type(a) in (list, tuple):
        items = former[id(a)][1] if id(a) in former else a
        return len(items) == len(b) and all(_same(x, y, former) for x, y in zip(items, b, strict=True))
    if type(a) is dict and id(a) in former:
        keys, values = former[id(a)]
        return keys == tuple(b) and all(_same(x, y, former) for x, y in zip(values, b.values(), strict=True))
    return False
