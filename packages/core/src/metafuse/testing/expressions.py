"""Random sentences of the index language, each with its meaning in NumPy.

What it is: hypothesis strategies that build a text and, beside it, a function of the loop variables' arrays that says what
the text means, and NumPy's meaning of reindex and reindex_reduce for such functions.
What it is not: a parser: texts are only written here, so nothing of ``metafuse.index`` is believed.
Who calls it: the level "index".
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from hypothesis import strategies as st

__all__ = ["Sentence", "cdiv", "cmod", "gathered", "scattered", "sentences", "tests"]

Array = np.ndarray[Any, Any]
Function = Callable[[Sequence[Array]], Any]


@dataclass(frozen=True)
class Sentence:
    """A text of the index language and its value for given loop variables."""

    text: str
    value: Function

    def __repr__(self) -> str:
        return self.text


def cdiv(a: Any, b: Any) -> Any:
    """C's division: towards zero; by zero it is 0."""
    a, b = np.asarray(a, np.int64), np.asarray(b, np.int64)
    safe = np.where(b == 0, 1, b)
    return np.where(b == 0, 0, np.sign(a) * np.sign(safe) * (np.abs(a) // np.abs(safe)))


def cmod(a: Any, b: Any) -> Any:
    """C's remainder: the sign is that of ``a``; by zero it is 0."""
    a, b = np.asarray(a, np.int64), np.asarray(b, np.int64)
    return np.where(b == 0, 0, a - cdiv(a, b) * b)


_BINARY: tuple[tuple[str, Callable[[Any, Any], Any]], ...] = (
    ("({} + {})", lambda a, b: a + b),
    ("({} - {})", lambda a, b: a - b),
    ("{} * {}", lambda a, b: a * b),
    ("({} / {})", cdiv),
    ("({} % {})", cmod),
    ("({} & {})", lambda a, b: a & b),
    ("({} | {})", lambda a, b: a | b),
    ("({} ^ {})", lambda a, b: a ^ b),
    ("min({}, {})", np.minimum),
    ("max({}, {})", np.maximum),
    ("(({}) << ({} & 3))", lambda a, b: np.left_shift(a, b & 3)),
    ("(({}) >> ({} & 3))", lambda a, b: np.right_shift(a, b & 3)),
)
_UNARY: tuple[tuple[str, Callable[[Any], Any]], ...] = (
    ("(-{})", lambda a: -a),
    ("(~{})", lambda a: ~a),
    ("abs({})", np.abs),
    ("(int)({})", lambda a: a),
)
_TESTS: tuple[tuple[str, Callable[[Any, Any], Any]], ...] = (
    ("{} == {}", np.equal), ("{} != {}", np.not_equal), ("{} < {}", np.less), ("{} <= {}", np.less_equal),
    ("{} > {}", np.greater), ("{} >= {}", np.greater_equal),
)  # fmt: skip


def _leaves(axes: int, names: dict[str, int]) -> st.SearchStrategy[Sentence]:
    found = [Sentence(f"i{k}", lambda i, k=k: i[k]) for k in range(axes)]  # type: ignore[misc]
    found += [Sentence(name, lambda i, v=value: np.int64(v)) for name, value in names.items()]  # type: ignore[misc]
    numbers = st.integers(0, 5).map(lambda n: Sentence(str(n), lambda i: np.int64(n)))
    return st.one_of(st.sampled_from(found), numbers)


def sentences(axes: int, names: dict[str, int]) -> st.SearchStrategy[Sentence]:
    """Integer expressions over ``axes`` loop variables and ``names``."""
    leaves = _leaves(axes, names)

    def grown(inner: st.SearchStrategy[Sentence]) -> st.SearchStrategy[Sentence]:
        def binary(parts: Any) -> Sentence:
            (form, rule), a, b = parts
            return Sentence(f"({form.format(a.text, b.text)})", lambda i: rule(a.value(i), b.value(i)))

        def unary(parts: Any) -> Sentence:
            (form, rule), a = parts
            return Sentence(form.format(f"({a.text})"), lambda i: rule(a.value(i)))

        def choice(parts: Any) -> Sentence:
            test, a, b = parts
            return Sentence(
                f"({test.text} ? {a.text} : {b.text})",
                lambda i: np.where(test.value(i), a.value(i), b.value(i)),
            )

        return st.one_of(
            st.tuples(st.sampled_from(_BINARY), inner, inner).map(binary),
            st.tuples(st.sampled_from(_UNARY), inner).map(unary),
            st.tuples(_comparisons(inner), inner, inner).map(choice),
        )

    return st.recursive(leaves, grown, max_leaves=4)


def _comparisons(inner: st.SearchStrategy[Sentence]) -> st.SearchStrategy[Sentence]:
    def build(parts: Any) -> Sentence:
        (form, rule), a, b = parts
        return Sentence(f"({form.format(a.text, b.text)})", lambda i: rule(a.value(i), b.value(i)))

    return st.tuples(st.sampled_from(_TESTS), inner, inner).map(build)


def tests(axes: int, names: dict[str, int]) -> st.SearchStrategy[Sentence]:
    """Conditions: comparisons joined by ``&&``, ``||`` and ``!``."""

    def grown(inner: st.SearchStrategy[Sentence]) -> st.SearchStrategy[Sentence]:
        both = st.tuples(inner, inner)
        return st.one_of(
            both.map(
                lambda p: Sentence(f"({p[0].text} && {p[1].text})", lambda i: p[0].value(i) & p[1].value(i))
            ),
            both.map(
                lambda p: Sentence(f"({p[0].text} || {p[1].text})", lambda i: p[0].value(i) | p[1].value(i))
            ),
            inner.map(lambda p: Sentence(f"!{p.text}", lambda i: ~np.asarray(p.value(i), bool))),
        )

    return st.recursive(_comparisons(_leaves(axes, names)), grown, max_leaves=3)


# -- what reindex and reindex_reduce mean -----------------------------------------------------------------------
def _places(
    space: Sequence[int], extents: Sequence[int], indexes: Sequence[Function], conditions: Sequence[Function]
) -> Any:
    """Addresses as arrays over ``space``, and where they count."""
    axes = list(np.indices(tuple(space)).astype(np.int64))
    inside: Array = np.ones(tuple(space), bool)
    places = []
    for extent, index in zip(extents, indexes, strict=True):
        place = np.broadcast_to(np.asarray(index(axes)), tuple(space)).astype(np.int64)
        inside &= (place >= 0) & (place < extent)
        places.append(place)
    for condition in conditions:
        inside = inside & np.logical_not(np.broadcast_to(condition(axes), tuple(space)))
    return places, inside


def gathered(
    x: Array,
    space: Sequence[int],
    indexes: Sequence[Function],
    overflow: Any = 0,
    conditions: Sequence[Function] = (),
) -> Array:
    """``y[i] = x[indexes(i)]``, else ``overflow``."""
    places, inside = _places(space, x.shape, indexes, conditions)
    result = np.full(tuple(space), overflow).astype(x.dtype)
    result[inside] = x[tuple(p[inside] for p in places)]
    return result


def scattered(
    y: Array,
    op: str,
    shape: Sequence[int],
    start: Any,
    indexes: Sequence[Function],
    conditions: Sequence[Function] = (),
) -> Array:
    """``x[indexes(i)] = op(x[indexes(i)], y[i])`` in row-major order of ``i``; ``start`` is where ``x`` starts."""
    places, inside = _places(y.shape, shape, indexes, conditions)
    result = np.full(tuple(shape), start, y.dtype)
    fold = None if op == "void" else getattr(np, op)
    for at in np.argwhere(inside):
        target = tuple(int(p[tuple(at)]) for p in places)
        value = y[tuple(at)]
        result[target] = value if fold is None else fold(result[target], value)
    return result
