"""Comparison with the float64 oracle, and failures one can act on.

What it is: ``Case`` (one call of an operator with its arguments), ``run`` (evaluates many cases as one program and
compares each with NumPy in float64, in the order smoke, dtype, shape, value) and ``compare`` (one array with another).
What it is not: a choice of inputs (``strategies``).
Who calls it: every level.

A failure reads ``[tanh] float32[3,0] on cuda: max |diff| 3e-3 > 1e-6 at (2,1): got .., expected ..`` and ends with a
script that shows it again when it is pasted into a Python prompt.
"""

from __future__ import annotations

import base64
import warnings
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import reduce
from typing import Any

import numpy as np

from ..dtypes import DType, as_dtype, promote
from ..graph.node import state
from ..ops.creation import array64
from ..ops.registry import Operator
from ..var import Var, sync
from .errors import ConformanceError
from .kit import Kit
from .strategies import mapped, name_of, named

__all__ = ["Case", "compare", "describe", "quiet", "results", "run", "widened"]

Array = np.ndarray[Any, Any]


@dataclass
class Case:
    """One call: what is called by which name, with which host arrays and other values, and what NumPy says of it.

    ``expected`` is called with the arguments widened to float64 and int64. ``scale``: let errors grow with the largest
    value of the answer, as they do in sums; else each element is judged by itself.
    """

    name: str
    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any] = field(default_factory=dict)
    expected: Callable[..., Any] | None = None
    scale: bool = False
    #: how the call is written in a reproduction; ``None``: ``mf.<name>(...)``
    script: str | None = None
    #: the answers' dtype; ``None``: floating answers of floating arguments have the widest of their types
    dtype: str | None = None

    @classmethod
    def of(cls, record: Operator, args: tuple[Any, ...], kwargs: dict[str, Any] | None = None) -> Case:
        """A call of a record, compared with its own NumPy meaning."""
        return cls(record.name, record.function, args, kwargs or {}, record.numpy, scale=not record.arity)


def results(value: Any) -> tuple[Any, ...]:
    """An answer as a tuple."""
    return tuple(value) if isinstance(value, (tuple, list)) else (value,)


def describe(case: Case) -> str:
    """``float32[3,0], int32[4]``: the arrays among the arguments."""
    parts: list[str] = []

    def leaf(value: Any) -> None:
        if isinstance(value, np.ndarray):
            parts.append(f"{name_of(value)}[{','.join(map(str, value.shape))}]")
        elif not isinstance(value, Var):
            parts.append(repr(value))

    mapped((case.args, case.kwargs), leaf)
    return ", ".join(parts)


# -- the oracle ---------------------------------------------------------------------------------------------------
def widened(value: Any, bools: bool = True) -> Any:
    """Arrays in the widest type of their kind; bool as integers where ``bools``."""
    if not isinstance(value, (np.ndarray, np.generic)):
        return value
    kind = value.dtype.kind
    if kind == "f":
        return value.astype(np.float64)
    if kind in "iu" or (kind == "b" and bools):
        return value.astype(np.int64)
    return value


def _oracle(case: Case, answers: Sequence[Array]) -> tuple[Array, ...]:
    """What NumPy says; bool is a number only where the answer is no bool."""
    assert case.expected is not None
    keep_bools = all(a.dtype.kind == "b" for a in answers)
    args, kwargs = mapped((case.args, case.kwargs), lambda v: widened(v, not keep_bools))
    with quiet():
        return tuple(map(np.asarray, results(case.expected(*args, **kwargs))))


@contextmanager
def quiet() -> Iterator[None]:
    """What NumPy warns of, means of nothing for one, is what is asked for."""
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        yield


# -- one array against another ------------------------------------------------------------------------------------
def compare(got: Array, expected: Array, kit: Kit, *, scale: bool = False, factor: float = 1.0) -> str:
    """What is wrong with ``got``, in the order dtype kind, shape, value; empty if nothing is."""
    expected = np.asarray(expected)
    wanted_shape = expected.shape or (1,)
    kinds = {"b": "b", "i": "iu", "u": "iu", "f": "f"}[expected.dtype.kind]
    if got.dtype.kind not in kinds and not (got.dtype.kind == "b" and expected.dtype.kind in "iu"):
        return f"dtype {got.dtype}, expected one of kind {expected.dtype.kind!r} ({expected.dtype} in NumPy)"
    if got.shape != wanted_shape:
        return f"shape {list(got.shape)}, expected {list(wanted_shape)}"
    expected = expected.reshape(wanted_shape)
    if not got.size:
        return ""
    if got.dtype.kind == "b":
        stored = got.view(np.uint8)
        if stored.max() > 1:
            return f"a bool is stored as {stored.max()}; 0 and 1 are what others rely on"
        return _differing(got, got != expected.astype(bool), expected)
    if got.dtype.kind != "f":
        return _differing(got, got != expected.astype(got.dtype), expected)
    return _compare_floats(got, expected.astype(np.float64), kit, scale, factor)


def _differing(got: Array, wrong: Array, expected: Array) -> str:
    if not wrong.any():
        return ""
    at = tuple(map(int, np.argwhere(wrong)[0]))
    return f"{int(wrong.sum())} of {wrong.size} elements differ, first {_at(at)}: got {got[at]}, expected {expected[at]}"


def _compare_floats(got: Array, expected: Array, kit: Kit, scale: bool, factor: float) -> str:
    kind = as_dtype(got.dtype)
    tolerance = kit.tolerance(kind.name)
    with np.errstate(all="ignore"):
        rounded = kind.convert(expected).astype(np.float64)  # beyond the type's range: infinity
        value = got.astype(np.float64)
        lost = np.isnan(expected) != np.isnan(value)
        if lost.any():
            return "NaN: " + _differing(got, lost, expected)
        # next to the largest number rounding decides whether it is infinity
        limit = float(np.finfo(got.dtype).max)
        infinite = np.isinf(rounded) != np.isinf(value)
        infinite &= ~(np.abs(np.abs(expected) / limit - 1) < 4 * tolerance.relative)
        infinite |= np.isinf(rounded) & np.isinf(value) & (rounded != value)
        if infinite.any():
            return "infinity: " + _differing(got, infinite, expected)
        finite = np.isfinite(value) & np.isfinite(expected)
        size = np.abs(np.where(finite, expected, 0.0))
        unit = max(1.0, float(size.max())) if scale else 1.0
        bound = factor * (
            tolerance.absolute * unit + tolerance.relative * (np.maximum(size, unit / 8) if scale else size)
        )
        difference = np.where(finite, np.abs(value - expected), 0.0)
        wrong = difference > bound
    if not wrong.any():
        return ""
    at = tuple(map(int, np.unravel_index(int(np.argmax(difference - bound)), got.shape)))
    return (
        f"max |diff| {difference[at]:.3g} > {bound[at]:.3g} {_at(at)}: got {got[at]!r}, expected {expected[at]!r} "
        f"({int(wrong.sum())} of {wrong.size} elements)"
    )


def _at(at: tuple[int, ...]) -> str:
    return f"at ({','.join(map(str, at))})"


# -- many cases at once --------------------------------------------------------------------------------------------
def run(kit: Kit, cases: Sequence[Case], limit: int = 5) -> None:
    """Evaluate all cases as one program and compare each; raise ``ConformanceError`` with the first ``limit`` failures."""
    built: list[tuple[Case, tuple[Var, ...]]] = []
    failures: list[str] = []
    for case in cases:
        try:
            built.append((case, _call(case)))
        except Exception as error:
            failures.append(_message(case, kit, f"raised {type(error).__name__}: {error}"))
    try:
        sync([v for _, answers in built for v in answers])
    except Exception as error:
        failures.append(_culprit(kit, [case for case, _ in built], error))
        built = []
    for case, answers in built:
        problem = _judge(kit, case, answers)
        if problem:
            failures.append(_message(case, kit, problem))
    if failures:
        rest = f"\n... and {len(failures) - limit} more" if len(failures) > limit else ""
        raise ConformanceError("\n".join(failures[:limit]) + rest)


def _call(case: Case) -> tuple[Var, ...]:
    args, kwargs = mapped((case.args, case.kwargs), lambda v: array64(v) if isinstance(v, np.ndarray) else v)
    return results(case.function(*args, **kwargs))


def _judge(kit: Kit, case: Case, answers: tuple[Var, ...]) -> str:
    try:
        values = [named(v.numpy(), v.dtype.name) for v in answers]
    except Exception as error:
        return f"reading the answer raised {type(error).__name__}: {error}"
    expected = _oracle(case, values)
    if len(values) != len(expected):
        return f"{len(values)} answers, expected {len(expected)}"
    for number, (var, got, wanted) in enumerate(zip(answers, values, expected, strict=True)):
        problem = _wrong_dtype(case, var, got, wanted) or compare(got, wanted, kit, scale=case.scale)
        if problem:
            return problem if len(values) == 1 else f"answer {number}: {problem}"
    return ""


def _wrong_dtype(case: Case, var: Var, got: Array, expected: Array) -> str:
    """The array read has the Var's type, and that is what the case says or what follows from its arguments."""
    if got.dtype != var.dtype.numpy:
        return f"dtype {got.dtype} was read from a Var of {var.dtype}"
    if case.dtype is not None:
        return "" if name_of(got) == case.dtype else f"dtype {name_of(got)}, expected {case.dtype}"
    floats: list[DType] = []

    def leaf(value: Any) -> None:
        if isinstance(value, np.ndarray):
            floats.append(as_dtype(value.dtype))

    mapped((case.args, case.kwargs), leaf)
    if expected.dtype.kind == "f" and floats and all(f.is_float for f in floats):
        widest = reduce(promote, floats)
        if name_of(got) != widest:
            return f"dtype {name_of(got)}, expected {widest}"
    return ""


def _culprit(kit: Kit, cases: list[Case], error: Exception) -> str:
    """The case that fails by itself, else the failure of all together."""
    state.pending = []
    for case in cases:
        try:
            sync(_call(case))
        except Exception as own:
            return _message(case, kit, f"raised {type(own).__name__}: {own}")
    names = ", ".join(dict.fromkeys(case.name for case in cases))
    return (
        f"[{names}] {len(cases)} cases as one program on {kit.name}: raised {type(error).__name__}: {error}"
    )


# -- messages ------------------------------------------------------------------------------------------------------
def _message(case: Case, kit: Kit, problem: str) -> str:
    return f"[{case.name}] {describe(case)} on {kit.name}: {problem}\n{_script(case, kit)}"


def literal(value: Any) -> str:
    """Python source of a value; arrays exactly, long ones packed."""
    if isinstance(value, np.ndarray):
        plain = np.ascontiguousarray(value)
        if plain.size <= 64:
            text = f"np.array({plain.reshape(-1).tolist()}, {plain.dtype.name!r}).reshape({plain.shape})"
        else:
            packed = base64.b64encode(zlib.compress(plain.tobytes())).decode()
            text = (
                f"np.frombuffer(zlib.decompress(base64.b64decode({packed!r})), {plain.dtype.name!r})"
                f".reshape({plain.shape})"
            )
        return (
            f"mf.array64({text})"
            if name_of(plain) == plain.dtype.name
            else f"mf.array64({text}, {name_of(plain)!r})"
        )
    if isinstance(value, (list, tuple)):
        inner = ", ".join(map(literal, value)) + ("," if isinstance(value, tuple) and len(value) == 1 else "")
        return f"[{inner}]" if isinstance(value, list) else f"({inner})"
    return repr(value)


def _script(case: Case, kit: Kit) -> str:
    lines = ["    import base64, zlib", "    import numpy as np", "    import metafuse as mf", "    nan, inf = np.nan, np.inf",
             f"    mf.flags.backend = {kit.name!r}"]  # fmt: skip
    names = []
    for k, value in enumerate(case.args):
        lines.append(f"    x{k} = {literal(value)}")
        names.append(f"x{k}")
    for key, value in case.kwargs.items():
        names.append(f"{key}={literal(value)}")
    call = case.script or f"mf.{case.name}({', '.join(names)})"
    return "\n".join([*lines, f"    print({call})"])
