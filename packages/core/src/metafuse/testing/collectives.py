"""Checks of a communicator: what every group of ranks must do, whatever connects it.

What it is: functions that all ranks of ``world()`` call together, and a command that runs them under a launcher::

    mpirun -n 3 python -m metafuse.testing.collectives

What it is not: tests for pytest (``levels.collectives`` calls these on the loopback).
Who calls it: the level "collectives" and authors of communicators.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ..config import flag_scope
from ..dist import parallel
from ..dist.collectives import (
    barrier,
    mpi_all_gather,
    mpi_all_reduce,
    mpi_broadcast,
    mpi_recv,
    mpi_reduce,
    mpi_reduce_scatter,
    mpi_send,
)
from ..dist.contract import OPERATIONS
from ..dist.process import set_world, world
from ..dtypes import DTYPES, DType, as_dtype
from ..errors import CollectiveMismatch
from ..ops.autograd import grad
from ..ops.creation import array64
from ..ops.elementwise import cast
from ..plugins.registry import registry
from ..var import Var, sync
from .errors import ConformanceError
from .kit import Kit

__all__ = ["CHECKS", "main"]

Array = np.ndarray[Any, Any]
SHAPES: tuple[tuple[int, ...], ...] = ((1,), (7,), (3, 5), (0,), (0, 2), (2, 3, 1), (1009,))


def _dtypes(kit: Kit) -> list[DType]:
    return [d for name, d in DTYPES.items() if kit.supports(name)]


def _drawn(kit: Kit, dtype: DType, shape: tuple[int, ...], *key: object) -> Array:
    """What every rank has, by rank; the same on all."""
    random = kit.random("collectives", dtype.name, shape, *key)
    whole = (world().size, *shape)
    if dtype.is_float:
        return dtype.convert(random.uniform(0.5, 2.0, whole) * random.choice([-1.0, 1.0], whole))
    return dtype.convert(random.integers(0, 2 if dtype.kind == "b" else 4, whole))


def _var(value: Array, dtype: DType) -> Var:
    return cast(array64(value), dtype)


def _expect(kit: Kit, what: str, got: Var, expected: Array) -> None:
    """Compare, exactly where nothing is computed."""
    value = got.numpy()
    if value.shape != expected.shape:
        raise ConformanceError(
            f"[{what}] rank {world().rank}: shape {value.shape}, expected {expected.shape}"
        )
    allowed = kit.tolerance(str(got.dtype))
    # floats of ranks are summed in any order: errors grow with the largest part
    room = allowed.absolute + allowed.relative * (float(np.abs(expected).max(initial=0)) + world().size)
    worst = float(np.abs(value.astype(np.float64) - expected).max(initial=0))
    if not worst <= (room if got.dtype.is_float else 0):
        raise ConformanceError(
            f"[{what}] rank {world().rank} of {world().size} on {kit.name}: max |diff| {worst:.3g} > {room:.3g}: got "
            f"{value.reshape(-1)[:4]}, expected {expected.reshape(-1)[:4]}"
        )


def _combined(values: Array, op: str) -> Array:
    if values.dtype == bool:
        return np.any(values, 0) if op in ("add", "maximum") else np.all(values, 0)
    if values.dtype.kind == "f":
        wide = values.astype(np.float64)
        return np.asarray(wide.mean(0) if op == "mean" else OPERATIONS[op].reduce(wide, 0))
    return np.asarray(OPERATIONS[op].reduce(values, 0, dtype=values.dtype))


def _cases(kit: Kit) -> Iterator[tuple[DType, tuple[int, ...], str]]:
    for dtype in _dtypes(kit):
        for shape in SHAPES:
            for op in (*OPERATIONS, *(("mean",) if dtype.is_float else ())):
                yield dtype, shape, op


# -- checks -----------------------------------------------------------------------------------------------------------
def check_reductions(kit: Kit) -> None:
    """all_reduce, reduce and reduce_scatter of every type, shape and operation."""
    group = world()
    for dtype in _dtypes(kit):
        found: list[tuple[str, Var, Array]] = []
        for kind, shape, op in _cases(kit):
            if kind is not dtype:
                continue
            values = _drawn(kit, dtype, shape, op)
            mine, whole = _var(values[group.rank], dtype), _combined(values, op)
            root = len(found) % group.size
            found.append((f"mpi_all_reduce {dtype}{list(shape)} {op}", mpi_all_reduce(mine, op), whole))
            at_root = whole if group.rank == root else np.zeros_like(whole)
            found.append((f"mpi_reduce {dtype}{list(shape)} {op}", mpi_reduce(mine, op, root), at_root))
            longer = (shape[0] * group.size, *shape[1:])
            values = _drawn(kit, dtype, longer, op, "scatter")
            part = np.split(_combined(values, op), group.size)[group.rank]
            scattered = mpi_reduce_scatter(_var(values[group.rank], dtype), op)
            found.append((f"mpi_reduce_scatter {dtype}{list(longer)} {op}", scattered, part))
        sync([got for _, got, _ in found])
        for what, got, expected in found:
            _expect(kit, what, got, expected)


def check_moves(kit: Kit) -> None:
    """broadcast and all_gather of every type and shape, from every root."""
    group = world()
    for dtype in _dtypes(kit):
        found: list[tuple[str, Var, Array]] = []
        for number, shape in enumerate(SHAPES):
            values = _drawn(kit, dtype, shape)
            mine, root = _var(values[group.rank], dtype), number % group.size
            found.append(
                (f"mpi_broadcast {dtype}{list(shape)} from {root}", mpi_broadcast(mine, root), values[root])
            )
            found.append(
                (f"mpi_all_gather {dtype}{list(shape)}", mpi_all_gather(mine), np.concatenate(list(values)))
            )
        sync([got for _, got, _ in found])
        for what, got, expected in found:
            _expect(kit, what, got, expected)


def check_gradients(kit: Kit) -> None:
    """Gradients of the sum of all ranks' losses ``sum(weight * f(x))``, in float64 where the backend has it."""
    group = world()
    dtype = as_dtype("float64" if kit.supports("float64") else "float32")
    shape = (2 * group.size, 3)
    x, w = _drawn(kit, dtype, shape, "x"), _drawn(kit, dtype, shape, "w")
    mine, weight = x[group.rank], _var(w[group.rank], dtype)
    long = _drawn(kit, dtype, (shape[0] * group.size, 3), "long")
    everywhere = w.sum(0)
    root = group.size - 1
    here = np.ones_like(mine) if group.rank == root else np.zeros_like(mine)
    first, last = 2 * group.rank, 2 * group.rank + 2
    ties = x == x.max(0)

    def found(function: Callable[[Var], Var]) -> Var:
        v = _var(mine, dtype).start_grad()
        return grad(function(v), v)  # type: ignore[no-any-return]

    cases: list[tuple[str, Var, Array]] = [
        ("add", found(lambda v: (mpi_all_reduce(v) * weight).sum()), everywhere),
        ("mean", found(lambda v: (mpi_all_reduce(v, "mean") * weight).sum()), everywhere / group.size),
        ("maximum", found(lambda v: (mpi_all_reduce(v, "maximum") * weight).sum()), everywhere * ties[group.rank] / ties.sum(0)),
        ("reduce", found(lambda v: (mpi_reduce(v, "add", root) * weight).sum()), w[root]),
        ("broadcast", found(lambda v: (mpi_broadcast(v, root) * weight).sum()), everywhere * here),
        ("all_gather", found(lambda v: (mpi_all_gather(v) * _var(long[group.rank], dtype)).sum()),
         np.split(long.sum(0), group.size)[group.rank]),
        ("reduce_scatter", found(lambda v: (mpi_reduce_scatter(v) * weight[first:last]).sum()),
         np.concatenate([w[r][2 * r : 2 * r + 2] for r in range(group.size)])),
        ("twice", found(lambda v: (mpi_all_reduce(mpi_all_reduce(v) * weight)).sum()), everywhere * group.size),
    ]  # fmt: skip
    sync([got for _, got, _ in cases])
    for what, got, expected in cases:
        _expect(kit, f"gradient of {what}", got, expected)


def check_adders(kit: Kit) -> None:
    """Memory for sums: several of them under way together, over and over, taken in pieces and in any order."""
    group = world()
    for name in ("float32", "float64", "int64"):
        dtype = as_dtype(name)
        adders = [group.adder(size, dtype.numpy) for size in (1, 1009, 70001, 0)]
        for turn in range(5):
            drawn = [_drawn(kit, dtype, (a.array.size,), "adder", turn) for a in adders]
            for adder, values in zip(adders, drawn, strict=True):
                adder.array[...] = values[group.rank]
                adder.begin()
                adders[0].progress()
            for adder, values in list(zip(adders, drawn, strict=True))[:: -1 if turn % 2 else 1]:
                total = np.empty(values.shape[1], dtype.numpy)
                middle = total.size // 3
                adder.take(middle, total[middle:])
                adder.take(0, total[:middle])
                expected = values.sum(0)
                worst = float(np.abs(total - expected).max(initial=0))
                if worst > (1e-5 if name == "float32" else 0 if name == "int64" else 1e-12):
                    raise ConformanceError(
                        f"[adder] rank {group.rank}: sum {turn} of {name}[{total.size}] is off by {worst:.3g}"
                    )


def check_order(kit: Kit) -> None:
    """Values are read in another order on each rank, some by nobody; each collective runs once, in the order of recording."""
    group = world()
    dtype = as_dtype("float32")
    values = _drawn(kit, dtype, (5,), "order")
    x = _var(values[group.rank], dtype)
    total = values.sum(0, dtype=np.float64)
    first = mpi_all_reduce(x)
    second = mpi_all_reduce(first * 0.5)
    side = mpi_all_reduce(x * 3.0)  # nobody looks at it, and not every rank keeps it
    if group.rank:
        del side
    inner = mpi_all_reduce(x)
    early, late = inner * 2.0, inner * 3.0
    del inner
    if group.rank == 0:
        _expect(kit, "early, read first", early, total * 2)
    third = mpi_broadcast(x, 0) + second
    fourth = mpi_all_reduce(third, "mean")
    if group.rank % 2:
        _expect(kit, "third, read first", third, values[0] + total * group.size / 2)
    if group.rank == 0:
        _expect(kit, "first, read first", first, total)
    _expect(kit, "fourth", fourth, values[0] + total * group.size / 2)
    _expect(kit, "second", second, total * group.size / 2)
    _expect(kit, "late", late, total * 3)
    barrier()


def check_one_to_one(kit: Kit) -> None:
    """send and recv around a ring, values and gradients."""
    group = world()
    if group.size == 1:
        return
    after, before = (group.rank + 1) % group.size, (group.rank - 1) % group.size
    for dtype in _dtypes(kit):
        values = _drawn(kit, dtype, (3, 2), "ring")
        mine = _var(values[group.rank], dtype)
        sent = None
        if group.rank % 2 == 0:
            sent = mpi_send(mine, after)
        got = mpi_recv(mine, before)
        if group.rank % 2 or sent is None:
            sent = mpi_send(mine, after)
        sync([sent, got])
        _expect(kit, f"mpi_recv {dtype}", got, values[before])
        _expect(kit, f"mpi_send {dtype}", sent, values[group.rank])
    dtype = as_dtype("float32")
    x = _var(_drawn(kit, dtype, (4,), "pair")[group.rank], dtype).start_grad()
    if group.rank == 0:
        y = mpi_send(x, 1)
        _expect(kit, "gradient of mpi_send", grad((y * 0.0).sum(), x), np.full(4, 3.0))
    elif group.rank == 1:
        (grad((mpi_recv(x, 0) * 3.0).sum(), x)).sync()
    barrier()


def check_groups(kit: Kit) -> None:
    """Groups by parity of rank, in reverse order, and what is computed in them."""
    group = world()
    part = group.split(group.rank % 2, -group.rank)
    if part is None:
        raise ConformanceError("[split] a rank that gave a color got no group")
    members = [r for r in range(group.size) if r % 2 == group.rank % 2][::-1]
    if (part.size, part.rank) != (len(members), members.index(group.rank)):
        raise ConformanceError(
            f"[split] rank {group.rank} became {part.rank} of {part.size}, expected {members.index(group.rank)} of {len(members)}"
        )
    values = _drawn(kit, as_dtype("float32"), (3,), "groups")
    set_world(part)
    try:
        _expect(
            kit,
            "all_reduce in a part",
            mpi_all_reduce(_var(values[group.rank], as_dtype("float32"))),
            values[members].sum(0),
        )
    finally:
        set_world(group)
    if group.split(None if group.rank else 0) is None and group.rank == 0:
        raise ConformanceError("[split] rank 0 gave a color and got no group")


def check_helpers(kit: Kit) -> None:
    """Batches that the number of ranks does not divide, averages, objects."""
    group = world()
    for count in (0, 1, group.size - 1, group.size, 2 * group.size + 1, 17):
        own, share = parallel.shared_out(list(range(count)))
        everything = parallel.gather_objects((own, share.samples, share.total))
        counted = [k for part, samples, _ in everything for k in part[:samples]]
        if counted != list(range(count)) or any(total != count for _, _, total in everything):
            raise ConformanceError(f"[shared_out] {count} entries became {everything}")
        if count and max(s for _, s, _ in everything) - min(s for _, s, _ in everything) > 1:
            raise ConformanceError(f"[shared_out] uneven parts of {count}: {everything}")
    average = parallel.Average()
    for k in range(group.rank + 1):
        average.add(float(k), 2)
    expected = float(np.mean([k for r in range(group.size) for k in range(r + 1)]))
    if abs(average.value() - expected) > 1e-12:
        raise ConformanceError(f"[Average] {average.value()}, expected {expected}")
    if [len(text) for text in group.exchange(b"x" * (group.rank * 3))] != [3 * r for r in range(group.size)]:
        raise ConformanceError("[exchange] lengths differ from what was given")


def check_mismatches(kit: Kit) -> None:
    """Different calls, shapes and types are reported on every rank, with both sides named."""
    group = world()
    if group.size == 1:
        return
    odd = group.rank == group.size - 1
    cases: list[tuple[str, Callable[[], Var]]] = [
        ("float32[2]", lambda: mpi_all_reduce(array64(np.ones(2 if odd else 3, np.float32)))),
        ("int32", lambda: mpi_all_reduce(array64(np.ones(3, np.int32 if odd else np.float32)))),
        (
            "mpi_broadcast",
            lambda: (mpi_broadcast if odd else mpi_all_reduce)(array64(np.ones(3, np.float32))),
        ),
        ("root=1", lambda: mpi_reduce(array64(np.ones(3, np.float32)), "add", int(odd))),
    ]
    with flag_scope(dist_check=2):
        for named, call in cases:
            result = call()
            try:
                result.sync()
            except CollectiveMismatch as error:
                if named not in str(error) or "rank 0 called" not in str(error):
                    raise ConformanceError(f"[mismatch] {named!r} is not named: {error}") from error
            else:
                raise ConformanceError(f"[mismatch] rank {group.rank} was not told of {named!r}")
            _forget()


def _forget() -> None:
    """What was recorded and can't run is dropped."""
    from ..dist import collectives
    from ..graph.node import state

    collectives._recorded.waiting = []
    state.pending = []


CHECKS: dict[str, Callable[[Kit], None]] = {
    "reductions": check_reductions,
    "moves": check_moves,
    "gradients": check_gradients,
    "adders": check_adders,
    "order": check_order,
    "one to one": check_one_to_one,
    "groups": check_groups,
    "helpers": check_helpers,
    "mismatches": check_mismatches,
}


def main() -> int:
    """Run every check on the ranks that a launcher started; rank 0 tells."""
    parser = argparse.ArgumentParser(
        prog="metafuse.testing.collectives", description=__doc__.split("\n", 1)[0]
    )
    parser.add_argument("--backend", default="", help="compute on this backend; else the default one")
    options = parser.parse_args()
    kit = Kit(options.backend or registry().default_backend().name)
    with kit.active():
        for name, check in CHECKS.items():
            check(kit)
            barrier()
            if world().rank == 0:
                print(f"{name}: ok on {world().size} ranks by {world().name}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
