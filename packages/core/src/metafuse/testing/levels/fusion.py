"""Level "fusion": programs of several operators, run together, again and again.

What it is: samples of composed operators, well-known compositions with many outputs, random graphs, and the promises of
evaluation: new data and new numbers in an old program, values that others still hold when memory is reused.
What it is not: single operators.
Who calls it: ``suite``.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ...dtypes import as_dtype
from ...ops.creation import array64
from ...ops.meta import broadcast_to, identity
from ...ops.reduce import max as maximum
from ...ops.reduce import mean
from ...ops.reduce import sum as total
from ...ops.registry import Operator
from ...ops.scalar import exp, log, sqrt
from ...var import Var, sync
from ..compare import Case, compare, run
from ..draws import drawn_checks
from ..errors import ConformanceError
from ..kit import Kit, level
from ..random_graphs import Graph, graphs, run_on_device, run_on_host
from ..strategies import dtypes_for
from .samples import check_samples, sampled

__all__ = [
    "test_composed_samples", "test_compositions", "test_many_parameters", "test_memory_of_dead_values",
    "test_new_numbers_in_an_old_program", "test_random_graphs", "test_updates_in_place", "test_values_that_others_hold",
]  # fmt: skip


@level("fusion", cases=sampled("fusion"))
def test_composed_samples(conformance: Kit, case: Operator) -> None:
    """Samples of records that are compositions: layers, losses, products."""
    check_samples(conformance, case)


# -- compositions -------------------------------------------------------------------------------------------------
def _softmax(m: Any, x: Any, dim: int) -> Any:
    e = m["exp"](x - m["max"](x, dim))
    return e / m["sum"](e, dim)


def _layer_norm(m: Any, x: Any, dim: int) -> Any:
    centre = x - m["mean"](x, dim)
    return centre / m["sqrt"](m["mean"](centre * centre, dim) + 1e-5)


def _cross_entropy(m: Any, x: Any, dim: int) -> Any:
    top = m["max"](x, dim)
    return (m["log"](m["sum"](m["exp"](x - top), dim)) + top) - m["mean"](x, dim)


def _batch_norm(m: Any, x: Any, dim: int) -> Any:
    """Normalised values and the statistics themselves: several outputs of one kernel."""
    centre, square = m["mean"](x, dim), m["mean"](x * x, dim)
    spread = square - centre * centre
    return (x - centre) / m["sqrt"](spread + 1e-3) * 1.5 + 0.25, centre, spread, centre * 0.1 + 0.9


def _two_folds(m: Any, x: Any, dim: int) -> Any:
    """A fold of a fold, and a fold along the other dimension of the same values."""
    rows = m["sum"](m["exp"](x * 0.5), dim)
    return m["max"](x / rows, 1 - dim), m["sum"](x * rows, 1 - dim), rows


_DEVICE = {
    "exp": exp, "log": log, "sqrt": sqrt, "max": lambda x, d: maximum(x, d, True), "sum": lambda x, d: total(x, d, True),
    "mean": lambda x, d: mean(x, d, True),
}  # fmt: skip
_HOST = {
    "exp": np.exp, "log": np.log, "sqrt": np.sqrt, "max": lambda x, d: np.max(x, d, keepdims=True),
    "sum": lambda x, d: np.sum(x, d, keepdims=True), "mean": lambda x, d: np.mean(x, d, keepdims=True),
}  # fmt: skip
COMPOSITIONS = (_softmax, _layer_norm, _cross_entropy, _batch_norm, _two_folds)


@level("fusion", cases=lambda: [(f.__name__.strip("_"), f) for f in COMPOSITIONS])
def test_compositions(conformance: Kit, case: Any) -> None:
    """Several phases in one kernel: rows and columns, long and short, one and none."""
    random = conformance.random("composition", case.__name__)
    cases = []
    for dtype in [
        d for d in dtypes_for("float", conformance) if not as_dtype(d).is_half
    ]:  # differences of squares need digits
        for shape in ((5, 7), (1, 1), (3, 67), (130, 9)):
            for dim in (0, 1):
                x = random.normal(0, 2, shape).astype(dtype)
                cases.append(
                    Case(case.__name__.strip("_"), lambda v, d: case(_DEVICE, v, d), (x, dim), {},
                         lambda v, d: case(_HOST, v, d), scale=True, script="# " + case.__name__)
                )  # fmt: skip
    run(conformance, cases)


# -- programs that run again ----------------------------------------------------------------------------------------
def _check(kit: Kit, what: str, got: Var, expected: Any) -> None:
    problem = compare(got.numpy(), np.asarray(expected), kit, scale=True)
    if problem:
        shape = ",".join(map(str, got.shape))
        raise ConformanceError(f"[{what}] {got.dtype}[{shape}] on {kit.name}: {problem}")


def _constant(values: Any) -> Var:
    """A float32 Var that no gradient is asked for: when it is dead, its memory may be used for a result."""
    return array64(np.asarray(values, np.float32)).stop_grad()


@level("fusion")
def test_new_numbers_in_an_old_program(conformance: Kit) -> None:
    """The same program with other data and other Python numbers gives other answers."""
    random = conformance.random("numbers")
    for step in range(4):
        x = random.uniform(-1, 1, (4, 9)).astype(np.float32)
        a, b = float(random.uniform(1, 2)), float(random.uniform(-2, -1))
        v = array64(x)
        y = (v * a - b) / (a + 3)
        wide = x.astype(np.float64)
        expected = (wide * a - b) / (a + 3)
        z = total(y, 1) * b
        sync([y, z])
        _check(conformance, f"step {step}: (x * a - b) / (a + 3)", y, expected)
        _check(conformance, f"step {step}: sum(..) * b", z, expected.sum(1) * b)


@level("fusion")
def test_updates_in_place(conformance: Kit) -> None:
    """``x = x + 1`` in a loop, alone and with others that read the old value in the same program."""
    x = _constant(np.arange(70))
    velocity = _constant(np.zeros(70))
    wide, speed = np.arange(70.0), np.zeros(70)
    for step in range(5):
        before = x
        velocity = velocity * 0.5 + x * 0.25
        x = x - velocity
        speed = speed * 0.5 + wide * 0.25
        old, wide = wide, wide - speed
        if step % 2:
            seen = before[::-1] * 2
            sync([x, velocity, seen])
            _check(conformance, f"step {step}: the old value, reversed", seen, old[::-1] * 2)
            del seen
        del before
        x.sync()
        _check(conformance, f"step {step}: x", x, wide)
        _check(conformance, f"step {step}: velocity", velocity, speed)


@level("fusion")
def test_values_that_others_hold(conformance: Kit) -> None:
    """Values stay what they are, however many programs run over their memory's neighbours."""
    held = []
    x = _constant(np.linspace(-1, 1, 33))
    wide = np.linspace(-1, 1, 33, dtype=np.float32).astype(np.float64)
    for step in range(6):
        x = x * 0.5 + 1
        wide = wide * 0.5 + 1
        held.append((step, x, identity(x), x[::2], wide))
        x.sync()
    for step, var, alias, half, expected in held:
        _check(conformance, f"value of step {step}", var, expected)
        _check(conformance, f"alias of step {step}", alias, expected)
        _check(conformance, f"every other element of step {step}", half, expected[::2])
    first = _constant(np.ones(16))
    second = identity(first)
    first[3] = 7.0  # type: ignore[index]
    _check(conformance, "assignment leaves an alias alone", second, np.ones(16))
    _check(conformance, "assignment", first, np.where(np.arange(16) == 3, 7.0, 1.0))


@level("fusion")
def test_memory_of_dead_values(conformance: Kit) -> None:
    """Several results of one program, each of which may be written over an argument that nobody needs any more."""
    forms: tuple[tuple[str, Any], ...] = (
        ("x*2, x+y", lambda m, x, y, z: (m(x) * 2.0, m(x) + y)),
        ("y+1, x-y", lambda m, x, y, z: (y + 1.0, m(x) - y)),
        ("y+z, y-z, y*z", lambda m, x, y, z: (y + z, y - z, y * z)),
        ("reversed", lambda m, x, y, z: (y[::-1] + z, z + 1.0, y * 3.0)),
        ("chain", lambda m, x, y, z: (y + z, (y + z) * y, (y + z) * y - z)),
        ("shifted", lambda m, x, y, z: (y * 2.0, (y * 2.0)[::2] + z[1::2], y + m(x))),
        ("sum", lambda m, x, y, z: (y - y.sum(), z * z.sum(), y + z)),
    )
    wide = (np.ones(1), np.arange(70.0) * 10, np.arange(70.0) / 8)
    for name, form in forms:
        for repeat in range(2):
            arguments = [_constant(v) for v in wide]
            answers = form(lambda v: broadcast_to(v, (70,)), *arguments)
            del arguments
            sync(answers)
            expected = form(lambda v: np.broadcast_to(v, (70,)), *wide)
            for number, (got, value) in enumerate(zip(answers, expected, strict=True)):
                _check(conformance, f"{name}, run {repeat}, answer {number}", got, value)


@level("fusion")
def test_many_parameters(conformance: Kit) -> None:
    """One kernel for all parameters of an optimizer: several calls of different sizes in one launch."""
    random = conformance.random("parameters")
    shapes = ((3, 4), (4,), (7, 2, 3), (1,), (65,), (2, 2))
    values = [random.uniform(-1, 1, s).astype(np.float32) for s in shapes]
    slopes = [random.uniform(-1, 1, s).astype(np.float32) for s in shapes]
    parameters = [_constant(v) for v in values]
    wide = [v.astype(np.float64) for v in values]
    for step in range(3):
        rate = 0.1 / (step + 1)
        parameters = [p - _constant(g) * rate for p, g in zip(parameters, slopes, strict=True)]
        wide = [p - g.astype(np.float64) * rate for p, g in zip(wide, slopes, strict=True)]
        sync(parameters)
    for number, (p, expected) in enumerate(zip(parameters, wide, strict=True)):
        _check(conformance, f"parameter {number}", p, expected)


@level("fusion")
def test_random_graphs(conformance: Kit) -> None:
    """Programs that nobody wrote."""

    def check(graph: Graph) -> None:
        with conformance.active():
            outputs = run_on_device(graph)
            sync(outputs)
            for number, var, expected in zip(graph.outputs, outputs, run_on_host(graph), strict=True):
                problem = compare(var.numpy(), expected, conformance, scale=True, factor=100.0)
                if problem:
                    raise ConformanceError(
                        f"[random graph] v{number} on {conformance.name}: {problem}\n{graph!r}"
                    )

    drawn_checks(conformance, conformance.profile.graphs, check, graphs(conformance))
