"""The legality table of the kernel IR: legal kernels pass, and every single rule has a kernel that breaks it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from metafuse.dtypes import bool_, float32, float64, int32, int64, uint8
from metafuse.errors import KernelError
from metafuse.kernel.expr import INTRINSICS, Expr, axis, call, cast, const, load, select
from metafuse.kernel.ir import BufferParam, Contraction, DimIndex, Kernel, Operand, Stage
from metafuse.kernel.spec import SIGNATURES, IllegalKernel, verify

X = load(0, float32, axis(0))
ONE = const(1.0, float32)


def leaf(op: str, number: int, dtype: Any = int64) -> Expr:
    return Expr(op, (), dtype, number)


def kernel(*stages: Stage, **changes: Any) -> Kernel:
    """One outer and one inner axis; buffer 0 is read, 1 written, 2 both, 3 read (int64)."""
    buffers = (
        BufferParam(float32), BufferParam(float32, writes=True, reads=False), BufferParam(float32, writes=True),
        BufferParam(int64),
    )  # fmt: skip
    return replace(Kernel(1, 1, buffers, 4, (float32,), stages, name="test"), **changes)


def store(expr: Expr = X, level: str = "outer", phase: int = 0, **changes: Any) -> Stage:
    return replace(Stage("store", level, expr, phase, buffer=1, offset=axis(0)), **changes)


def reduce(expr: Expr = X, phase: int = 0, result: int = 0, **changes: Any) -> Stage:
    return replace(Stage("reduce", "inner", expr, phase, op="add", result=result), **changes)


def let(expr: Expr = X, phase: int = 0, result: int = 1, **changes: Any) -> Stage:
    return replace(Stage("let", "outer", expr, phase, result=result), **changes)


def scatter(**changes: Any) -> Stage:
    return replace(Stage("scatter", "inner", X, 0, op="add", buffer=2, offset=axis(1)), **changes)


V0, V1 = leaf("value", 0, float32), leaf("value", 1, float32)

LEGAL = [
    kernel(store()),
    kernel(store(level="inner", offset=axis(1))),
    kernel(reduce(), store(V0)),
    kernel(store(V0), reduce()),  # outer stages run after the inner ones of their phase
    kernel(reduce(), let(V0), reduce(call("mul", X, V1), 1, 2), store(leaf("value", 2, float32), phase=1)),
    kernel(reduce(), store(V0, level="inner", phase=1)),
    kernel(reduce(), store(V0), serial=1),
    kernel(scatter()),
    kernel(scatter(condition=call("lt", axis(1), leaf("size", 3)))),
    kernel(scatter(op="void", buffer=1)),
    kernel(store(load(0, float32, axis(0), call("lt", axis(0), const(3)), ONE))),
    kernel(store(cast(load(3, int64, axis(0)), float32))),
    kernel(store(select(call("isnan", X), leaf("scalar", 0, float32), X))),
    kernel(store(call("uniform", const(1), const(2), axis(0)))),
]


@pytest.mark.parametrize("legal", LEGAL)
def test_legal(legal: Kernel) -> None:
    verify(legal)


BROKEN = {
    "axes need as many sizes": (kernel(store(), sizes=1), -1),
    "no stage stores anything": (kernel(reduce()), -1),
    "unknown kind 'move'": (kernel(store(kind="move")), 0),
    "can't stand at level 'outer', only inner": (kernel(store(), reduce(level="outer")), 1),
    "can't stand at level 'inner', only outer": (kernel(store(), let(level="inner")), 1),
    "can't stand at level 'middle'": (kernel(store(level="middle")), 0),
    "phase -1 is negative": (kernel(store(phase=-1)), 0),
    "2 serial axes of 1 outer ones": (kernel(store(), serial=2), -1),
    "-1 serial axes": (kernel(store(), serial=-1), -1),
    "needs offset": (kernel(store(offset=None)), 0),
    "needs buffer": (kernel(store(buffer=-1)), 0),
    "needs op": (kernel(store(), reduce(op="")), 1),
    "needs result": (kernel(store(), let(result=-1)), 1),
    "has no condition": (kernel(store(condition=const(True, bool_))), 0),
    "has no result": (kernel(store(result=3)), 0),
    "has no buffer": (kernel(store(), reduce(buffer=1)), 1),
    # values
    "value 0 is used before it is defined": (kernel(store(V0), reduce(phase=1)), 0),
    "value 1 is used before": (kernel(store(V1), let()), 0),
    "value 0 is complete only after the inner loop of phase 0": (
        kernel(reduce(), store(V0, level="inner")),
        1,
    ),
    "value 0 is float32, not float64": (kernel(reduce(), store(cast(leaf("value", 0, float64), float32))), 1),
    "value 0 is defined twice": (kernel(reduce(), reduce(), store()), 1),
    "value -2 is negative": (kernel(let(result=-2), store()), 0),
    # leaves
    "axis 1 does not exist at level outer, which has 1": (kernel(store(load(0, float32, axis(1)))), 0),
    "axis 2 does not exist at level inner, which has 2": (kernel(store(level="inner", offset=axis(2))), 0),
    "axis 0 is int64, not int32": (kernel(store(offset=cast(leaf("axis", 0, int32), int64))), 0),
    "size 4 does not exist, there are 4": (kernel(store(offset=leaf("size", 4))), 0),
    "size 0 is int64, not int32": (kernel(store(offset=cast(leaf("size", 0, int32), int64))), 0),
    "scalar 1 does not exist, there are 1": (kernel(store(leaf("scalar", 1, float32))), 0),
    "scalar 0 is float32, not int64": (kernel(store(cast(leaf("scalar", 0), float32))), 0),
    "constant 256 is no uint8": (kernel(store(cast(const(256, uint8), float32))), 0),
    "constant 0.5 is no int64": (kernel(store(cast(const(0.5), float32))), 0),
    "constant 2 is no bool": (kernel(store(cast(const(2, bool_), float32))), 0),
    "constant nan is no int64": (kernel(store(cast(const(float("nan")), float32))), 0),
    "unknown operation 'magic'": (kernel(store(leaf("magic", 0, float32))), 0),
    "axis takes no arguments": (kernel(store(offset=Expr("axis", (const(0),), int64, 0))), 0),
    # loads
    "load from buffer 9, which does not exist": (kernel(store(load(9, float32, axis(0)))), 0),
    "load from buffer 1, which is declared without reads": (kernel(store(load(1, float32, axis(0)))), 0),
    "load of float64 from buffer 0 of float32": (kernel(store(cast(load(0, float64, axis(0)), float32))), 0),
    "must have an int64 offset": (kernel(store(load(0, float32, ONE))), 0),
    r"load\(int64, bool\) must have": (kernel(store(load(0, float32, axis(0), const(True, bool_)))), 0),
    r"load\(int64, int64, float32\) must have": (kernel(store(load(0, float32, axis(0), const(1), ONE))), 0),
    r"load\(int64, bool, int64\) must have": (
        kernel(store(load(0, float32, axis(0), const(True, bool_), const(1)))),
        0,
    ),
    # intrinsics
    r"add\(int64, float32\) needs operands of one dtype": (
        kernel(store(Expr("add", (axis(0), X), float32))),
        0,
    ),
    r"add\(float32\) takes 2 arguments": (kernel(store(Expr("add", (X,), float32))), 0),
    r"add\(float32, float32\) yields float32, not float64": (
        kernel(store(cast(Expr("add", (X, X), float64), float32))),
        0,
    ),
    r"lt\(float32, float32\) yields bool": (kernel(store(Expr("lt", (X, X), float32))), 0),
    "is not defined for int64": (kernel(store(cast(call("exp", axis(0)), float32))), 0),
    r"not\(float32\) is not defined": (kernel(store(Expr("not", (X,), float32))), 0),
    r"select\(float32": (kernel(store(select(X, X, X))), 0),
    r"select\(bool, int64, float32\) needs": (kernel(store(select(const(True, bool_), axis(0), X))), 0),
    r"uniform\(int64, int64, int64\) yields float32": (
        kernel(store(Expr("cast", (Expr("uniform", (axis(0),) * 3, int64),), float32))),
        0,
    ),
    # stores, scatters, folds
    "buffer 7 does not exist": (kernel(store(buffer=7)), 0),
    "writes buffer 0, which is declared without writes": (kernel(store(buffer=0)), 0),
    "writes int64 to buffer 1 of float32": (kernel(store(axis(0))), 0),
    "the offset is float32, not int64": (kernel(store(offset=X)), 0),
    "the condition is int64, not bool": (kernel(scatter(condition=axis(1))), 0),
    "folds into buffer 1, which is declared without reads": (kernel(scatter(buffer=1)), 0),
    "unknown reduction 'mean'": (kernel(reduce(op="mean"), store()), 0),
    "unknown reduction 'void'": (kernel(reduce(op="void"), store()), 0),
    "bitwise_and can't fold float32": (kernel(reduce(op="bitwise_and"), store()), 0),
    "logical_and can't fold float32": (kernel(scatter(op="logical_and")), 0),
}


@pytest.mark.parametrize("message", sorted(BROKEN))
def test_broken(message: str) -> None:
    broken, stage = BROKEN[message]
    with pytest.raises(IllegalKernel, match=message) as caught:
        verify(broken)
    assert caught.value.stage == stage
    assert str(caught.value).startswith("[test]" + (f" stage {stage} (" if stage >= 0 else ""))
    assert isinstance(caught.value, KernelError)


# -- contraction ----------------------------------------------------------------------------------------------------
def matmul(**changes: Any) -> Kernel:
    """y[m,n] = sum_k a[m,k] b[k,n]; sizes: M N K one."""
    a = load(0, float32, call("add", call("mul", axis(0), leaf("size", 2)), axis(2)))
    b = load(1, float32, call("add", call("mul", axis(2), leaf("size", 1)), axis(1)))
    y = call("add", call("mul", axis(0), leaf("size", 1)), axis(1))
    stages = (
        Stage("reduce", "inner", call("mul", a, b), 0, op="add", result=0),
        Stage("store", "outer", V0, 0, buffer=2, offset=y),
    )
    contraction = Contraction(
        (),
        (0,),
        (1,),
        (2,),
        Operand(0, (dim(0, 0, 2), dim(2, 2, 3))),
        Operand(1, (dim(2, 2, 1), dim(1, 1, 3))),
    )
    buffers = (BufferParam(float32), BufferParam(float32), BufferParam(float32, writes=True, reads=False))
    return replace(Kernel(2, 1, buffers, 4, (), stages, contraction, "test"), **changes)


def dim(number: int, extent: int, stride: int, **changes: Any) -> DimIndex:
    return replace(DimIndex(((number, 3),), None, None, False, extent, stride), **changes)


def test_contraction() -> None:
    verify(matmul())
    legal = matmul()
    contraction, stages = legal.contraction, legal.stages
    assert contraction is not None
    broken = {
        "stage 0 must be a reduce": replace(legal, stages=(replace(stages[0], op="maximum"), stages[1])),
        "with add over a mul": replace(legal, stages=(replace(stages[0], expr=stages[0].expr.args[0]), stages[1])),
        "a contraction has none": replace(legal, serial=1),
        "must share out the outer axes": replace(legal, contraction=replace(contraction, batch=(0,))),
        r"k \(\) the inner ones": replace(legal, contraction=replace(contraction, k=())),
        "the operands are 0 and 0": replace(legal, contraction=replace(contraction, b=replace(contraction.b, buffer=0))),
        "operand a is buffer 8": replace(legal, contraction=replace(contraction, a=replace(contraction.a, buffer=8))),
        "operand a, dimension 0: axis 1 has no part": replace(
            legal, contraction=replace(contraction, a=Operand(0, (dim(1, 0, 2), dim(2, 2, 3))))
        ),
        "operand b, dimension 1: size 9 does not exist": replace(
            legal, contraction=replace(contraction, b=Operand(1, (dim(2, 2, 1), dim(1, 1, 3, divisor=9))))
        ),
    }  # fmt: skip
    for message, kernel_ in broken.items():
        with pytest.raises(IllegalKernel, match=message):
            verify(kernel_)


def test_every_intrinsic_has_a_signature() -> None:
    assert {name: len(s.kinds) for name, s in SIGNATURES.items()} == INTRINSICS


def test_a_long_chain_verifies() -> None:
    x = X
    for _ in range(20_000):
        x = call("add", x, ONE)
    verify(kernel(store(x)))
