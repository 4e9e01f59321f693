"""Level "code op": users' own snippets, where the backend inherits ``SupportsCodeOp``.

What it is: values, several and dynamic results, results in place, gradients, numbers and errors of ``metafuse.code``.
What it is not: required of a backend.
Who calls it: ``suite``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ...backend.optional import SupportsCodeOp
from ...errors import CompileError, MetafuseError
from ...ops.autograd import grad
from ...ops.code import code
from ...ops.creation import array64
from ..compare import Case, run
from ..errors import ConformanceError
from ..kit import Kit, level
from ..strategies import dtypes_for, typed

__all__ = [
    "test_code_dynamic", "test_code_errors", "test_code_gradient", "test_code_in_place", "test_code_numbers", "test_code_several",
    "test_code_values",
]  # fmt: skip

_LOOP = "for (int i = 0; i < in0_shape0; i++) for (int j = 0; j < in0_shape1; j++) "


def _needs_code(kit: Kit) -> None:
    backend = kit.backend
    if not isinstance(backend, SupportsCodeOp):
        pytest.skip("the backend does not inherit SupportsCodeOp")
    if backend.code_language != "cpu":
        pytest.skip(f"the snippets of this level are C++, the backend takes {backend.code_language!r}")


@level("code op")
def test_code_values(conformance: Kit) -> None:
    """Elements, extents and types of several inputs, beside ordinary operators."""
    _needs_code(conformance)
    random = conformance.random("code")
    cases = []
    usual = (
        ("float32", "int64", "float16", "bfloat16")
        if not conformance.profile.deep
        else dtypes_for("number", conformance)
    )
    for dtype in usual:
        if not conformance.supports(dtype):
            continue
        x = typed(random.integers(0, 9, (3, 5)), dtype)

        def twice(v: Any, d: str = dtype) -> Any:
            return code([3, 5], d, [v, v + v], cpu_src=f"{_LOOP} @out(i, j) = @in0(i, j) + @in1(i, j);") + v

        cases.append(
            Case("code", twice, (x,), {}, lambda v: 4 * v, script="# @out(i, j) = @in0(i, j) + @in1(i, j)")
        )
    run(conformance, cases)


@level("code op")
def test_code_numbers(conformance: Kit) -> None:
    """Numbers in ``data`` are arguments: another value needs no other code."""
    _needs_code(conformance)
    x = np.arange(12, dtype=np.float32).reshape(3, 4)
    for factor in (2.0, -0.5, 3.0):
        source = f'{_LOOP} @out(i, j) = @in0(i, j) * data["factor"];'

        def scaled(v: Any, source: str = source, factor: float = factor) -> Any:
            return code([3, 4], "float32", [v], cpu_src=source, data={"factor": factor})

        run(
            conformance,
            [Case("code", scaled, (x,), {}, lambda v, f=factor: v * f, script=f"# data = {factor}")],
        )  # type: ignore[misc]


@level("code op")
def test_code_gradient(conformance: Kit) -> None:
    """The user's gradient sources meet the gradients of the operators around."""
    _needs_code(conformance)
    x = conformance.random("code gradient").uniform(-2, 2, (3, 4)).astype(np.float32)
    y = x[::-1].copy()

    def slopes(a: Any, b: Any) -> Any:
        z = code([3, 4], "float32", [a, b], cpu_src=f"{_LOOP} @out(i, j) = @in0(i, j) * @in1(i, j);", cpu_grad_src=[
            f"{_LOOP} @out(i, j) = @dout(i, j) * @in1(i, j);", f"{_LOOP} @out(i, j) = @dout(i, j) * @in0(i, j);"])  # fmt: skip
        return tuple(grad((z * z).sum(), [a, b]))

    def expected(a: Any, b: Any) -> Any:
        return 2 * a * b * b, 2 * a * b * a

    run(conformance, [Case("code", slopes, (x, y), {}, expected, scale=True, script="# gradients of code")])


@level("code op")
def test_code_several(conformance: Kit) -> None:
    """Several results of different types and sizes, used together, and the gradients of each."""
    _needs_code(conformance)
    x = conformance.random("several").uniform(-2, 2, (3, 5)).astype(np.float32)
    source = f'{_LOOP} {{ @out0(i, j) = 2 * @in0(i, j); @out1(i) = 10 * i; @out2(j, i) = @in0(i, j) * data["k"]; }}'
    slope = f'{_LOOP} @out(i, j) = data["out_index"] == 0 ? 2 * @dout(i, j) : data["k"] * dout_p[j * in0_shape0 + i];'

    def split(v: Any) -> Any:
        a, b, c = code(
            [[3, 5], [3], [5, 3]], ["float32", "int32", "float32"], [v], source, [slope], data={"k": 3}
        )
        return a, b, c, a + c.transpose(), grad((a * a).sum() + (c * c).sum(), v)

    def expected(v: Any) -> Any:
        return 2 * v, np.arange(3) * 10, 3 * v.T, 5 * v, 2 * (4 + 9) * v

    run(conformance, [Case("code", split, (x,), {}, expected, scale=True, script="# three results")])


@level("code op")
def test_code_dynamic(conformance: Kit) -> None:
    """Results whose number of rows the values decide, down to none."""
    _needs_code(conformance)
    source = """
    int n = 0;
    for (int i = 0; i < in0_shape0; i++)
        if (@in0(i, 0) > 0) {
            for (int j = 0; j < in0_shape1; j++) @out0(n, j) = @in0(i, j);
            @out1(n++) = i;
        }
    out0->set_shape({n, in0_shape1});
    out1->set_shape({n});
    """
    x = conformance.random("dynamic").uniform(-2, 2, (9, 4)).astype(np.float32)
    for value in (x, -np.abs(x)):

        def kept(v: Any) -> Any:
            rows, places = code([[-9, 4], [-9]], ["float32", "int64"], [v], cpu_src=source)
            return rows + rows, places

        def expected(v: Any) -> Any:
            return 2 * v[v[:, 0] > 0], np.flatnonzero(v[:, 0] > 0)

        run(conformance, [Case("code", kept, (value,), {}, expected, script="# dynamic results")])


@level("code op")
def test_code_in_place(conformance: Kit) -> None:
    """Results that begin as what Vars hold, and replace it, while values taken before stay."""
    _needs_code(conformance)
    x = np.arange(12, dtype=np.float32).reshape(3, 4)

    def changed(v: Any) -> Any:
        total, count = v * 1, array64(np.arange(3, dtype=np.int32))
        before = total + 1
        code([v], [total, count], cpu_src=f"{_LOOP} {{ @out0(i, j) += 2 * @in0(i, j); @out1(i)++; }}")
        return total, count, before

    def expected(v: Any) -> Any:
        return 3 * v, np.arange(3) + 4, v + 1

    run(conformance, [Case("code", changed, (x,), {}, expected, script="# in place")])


@level("code op")
def test_code_errors(conformance: Kit) -> None:
    """A snippet that does not compile is a ``CompileError`` that shows the compiler's words, and leaves all else alone."""
    _needs_code(conformance)
    bad = code([2], "float32", [array64(np.ones(2, np.float32))], cpu_src="no_such_name += 1;")
    try:
        bad.sync()
    except CompileError as error:
        if "no_such_name" not in str(error):
            raise ConformanceError(
                f"[code] on {conformance.name}: the message does not show the source: {error}"
            ) from None
    except MetafuseError as error:
        raise ConformanceError(
            f"[code] on {conformance.name}: {type(error).__name__} instead of CompileError"
        ) from error
    else:
        raise ConformanceError(f"[code] on {conformance.name}: a snippet that is no C++ was accepted")
    del bad
    test_code_numbers(conformance)
