"""Operators that are no layers, on 1,024 x 1,024 elements, against PyTorch eager: arithmetic, folds, scans, sorting, moves.

    python benchmarks/bench_operators.py [--only NAME[;NAME]]

Every case is recorded and evaluated alone, so that what it costs in Python counts. What has several right answers (random
numbers, places of equal elements) is compared by what is the same in all of them, or only measured.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import harness

OPTIONS = harness.start(
    __doc__ or "",
    runs=9,
    seconds=1.0,
    only={"default": "", "help": "cases whose name holds one of these texts, separated by semicolons"},
)

import numpy as np  # noqa: E402
import torch  # noqa: E402

import metafuse as mf  # noqa: E402

N = 1024
RANDOM = np.random.default_rng(0)


@dataclass
class Case:
    """``ours`` and ``theirs`` answer arrays that agree, unless ``differs`` says why they need not."""

    name: str
    ours: Callable[[], Any]
    theirs: Callable[[], Any]
    differs: str = ""


def both(values: np.ndarray[Any, Any]) -> tuple[mf.Var, torch.Tensor]:
    """One array in both frameworks."""
    return mf.array(values, str(values.dtype)), torch.from_numpy(values.copy())


def arithmetic() -> list[Case]:
    x, t = both(RANDOM.standard_normal((N, N)).astype(np.float32))
    p, tp = both(RANDOM.uniform(0.1, 3, (N, N)).astype(np.float32))
    i, ti = both(RANDOM.integers(0, 1000, (N, N)).astype(np.int32))
    j, tj = both(RANDOM.integers(1, 50, (N, N)).astype(np.int32))
    h, th = both(RANDOM.standard_normal((N, N)).astype(np.float16))
    d, td = both(RANDOM.standard_normal((N, N)))
    mask, tmask = both(RANDOM.random((N, N)) > 0.5)
    return [
        Case("add", lambda: x + p, lambda: t + tp),
        Case("maximum", lambda: mf.maximum(x, p), lambda: torch.maximum(t, tp)),
        Case("remainder, float32", lambda: x % p, lambda: t % tp),
        Case("floor division, float32", lambda: x // p, lambda: t // tp),
        Case("power", lambda: p**x, lambda: tp**t),
        Case("int32 add", lambda: i + j, lambda: ti + tj),
        Case("int32 floor division", lambda: i // j, lambda: ti // tj),
        Case("int32 remainder", lambda: i % j, lambda: ti % tj),
        Case("int32 true division", lambda: i / j, lambda: ti / tj),
        Case("comparison", lambda: x > 0.5, lambda: t > 0.5),
        Case("choice", lambda: mf.where(mask, x, p), lambda: torch.where(tmask, t, tp)),
        Case("isnan", lambda: mf.isnan(x), lambda: torch.isnan(t)),
        Case("float16 add", lambda: h + h, lambda: th + th),
        Case("float16 exp", lambda: mf.exp(h), lambda: torch.exp(th)),
        Case("float32 to float16", lambda: x.float16(), lambda: t.half()),
        Case("float16 to float32", lambda: h.float32(), lambda: th.float()),
        Case("float64 exp", lambda: mf.exp(d), lambda: torch.exp(td)),
    ]


def folds() -> list[Case]:
    x, t = both(RANDOM.standard_normal((N, N)).astype(np.float32))
    h, th = both(RANDOM.standard_normal((N, N)).astype(np.float16))
    mask, tmask = both(RANDOM.random((N, N)) > 0.5)
    return [
        Case("float16 sum of rows", lambda: h.sum(1), lambda: th.sum(1)),
        Case("maximum of rows", lambda: x.max(1), lambda: t.amax(1)),
        Case("argmax of rows", lambda: x.argmax(1)[0], lambda: t.argmax(1)),
        Case("argmax of columns", lambda: x.argmax(0)[0], lambda: t.argmax(0)),
        Case("variance of rows", lambda: mf.var(x, 1, unbiased=True), lambda: t.var(1)),
        Case("norm of rows", lambda: mf.norm(x, 2, 1), lambda: t.norm(2, 1)),
        Case("logsumexp of rows", lambda: mf.logsumexp(x, 1), lambda: t.logsumexp(1)),
        Case("any of rows", lambda: mf.any(mask, 1), lambda: tmask.any(1)),
        Case("sum along rows", lambda: mf.cumsum(x, 1), lambda: t.cumsum(1)),
        Case("sum along columns", lambda: mf.cumsum(x, 0), lambda: t.cumsum(0)),
        Case("maximum along rows", lambda: mf.cummax(x, 1)[0], lambda: t.cummax(1)[0]),
        Case("logsumexp along rows", lambda: mf.logcumsumexp(x, 1), lambda: t.logcumsumexp(1)),
    ]


def order() -> list[Case]:
    x, t = both(RANDOM.permutation(N * N).reshape(N, N).astype(np.float32))
    flat, tflat = x.reshape([-1]), t.reshape(-1)
    i, ti = both(RANDOM.integers(0, 1000, N * N).astype(np.int32))
    mask, tmask = both(RANDOM.random((N, N)) > 0.5)
    ordered, tordered = both(np.sort(RANDOM.standard_normal(N * N).astype(np.float32)))
    wanted, twanted = both(RANDOM.standard_normal(N * N).astype(np.float32))
    mf.sync_all()
    return [
        Case("sort of rows", lambda: mf.sort(x, 1)[0], lambda: t.sort(1)[0]),
        Case("argsort of rows", lambda: mf.argsort(x, 1)[0], lambda: t.argsort(1)),
        Case("sort of a million", lambda: mf.sort(flat, 0)[0], lambda: tflat.sort()[0]),
        Case("ten largest of rows", lambda: mf.topk(x, 10, 1)[0], lambda: t.topk(10, 1)[0]),
        Case("fifth smallest of rows", lambda: mf.kthvalue(x, 5, 1)[0], lambda: t.kthvalue(5, 1)[0]),
        Case("median of rows", lambda: mf.median(x, 1), lambda: t.median(1)[0]),
        Case("unique of int32", lambda: mf.unique(i), lambda: ti.unique()),
        Case("places in an ordered million", lambda: mf.searchsorted(ordered, wanted),
             lambda: torch.searchsorted(tordered, twanted)),
        Case("nonzero", lambda: mf.nonzero(mask), lambda: tmask.nonzero()),
        Case("masked select", lambda: x[mask], lambda: t[tmask]),
        Case("permutation of 100,000", lambda: mf.randperm(100_000), lambda: torch.randperm(100_000), "random"),
        Case("multinomial", lambda: mf.multinomial(x + 1, 10), lambda: torch.multinomial(t + 1, 10), "random"),
    ]  # fmt: skip


def moves() -> list[Case]:
    x, t = both(RANDOM.standard_normal((N, N)).astype(np.float32))
    p, tp = both(RANDOM.standard_normal((N, N)).astype(np.float32))
    cube, tcube = both(RANDOM.standard_normal((64, 64, 64)).astype(np.float32))
    rows, trows = both(RANDOM.integers(0, N, 4096))
    i, ti = both(RANDOM.integers(0, N, (N, N)))
    return [
        Case("transpose", lambda: x.transpose(1, 0).clone(), lambda: t.t().contiguous()),
        Case("permute", lambda: cube.permute(2, 0, 1).clone(), lambda: tcube.permute(2, 0, 1).contiguous()),
        Case("concat of columns", lambda: mf.concat([x, p], 1), lambda: torch.cat([t, tp], 1)),
        Case("stack", lambda: mf.stack([x, p], 0), lambda: torch.stack([t, tp], 0)),
        Case("every second row", lambda: x[::2, 1:].clone(), lambda: t[::2, 1:].contiguous()),
        Case("rows by number", lambda: x[rows], lambda: t[trows]),
        Case("gather", lambda: mf.gather(x, 1, i), lambda: t.gather(1, ti)),
        Case("flip", lambda: mf.flip(x, 1), lambda: t.flip(1)),
        Case("roll", lambda: mf.roll(x, 3, 1), lambda: t.roll(3, 1)),
        Case("repeat each", lambda: mf.repeat_interleave(x, 2, 1), lambda: t.repeat_interleave(2, 1)),
        Case("tile", lambda: mf.tile(x, (2, 2)), lambda: t.repeat(2, 2)),
        Case("upper triangle", lambda: mf.triu(x), lambda: t.triu()),
        Case("outer product", lambda: mf.outer(x[0], x[1]), lambda: torch.outer(t[0], t[1])),
        Case("one-hot", lambda: mf.nn.one_hot(rows, N), lambda: torch.nn.functional.one_hot(trows, N)),
    ]


def problem(case: Case) -> str:
    """In what the two sides differ."""
    ours, theirs = case.ours(), case.theirs()
    if case.differs:
        return ""
    if isinstance(ours, mf.Var) and theirs.dtype in (torch.float16, torch.bfloat16):
        return harness.agree(ours.float32(), theirs.float(), 4e-3, 1e-3)
    return harness.agree(ours, theirs, 1e-4, 1e-4)


def main() -> int:
    print(f"{harness.machine(OPTIONS)}; float32 unless said\n")
    chosen = [text for text in OPTIONS.extra.only.split(";") if text]
    ratios: list[tuple[float, str]] = []
    failed = 0
    for title, cases in (
        ("Arithmetic", arithmetic),
        ("Folds and scans", folds),
        ("Order", order),
        ("Moves", moves),
    ):
        table = harness.Table(title, "PyTorch", OPTIONS, unit="us")
        for case in cases():
            if chosen and not any(text in case.name for text in chosen):
                continue

            def ours(run: Callable[[], Any] = case.ours) -> Any:
                return run().sync()

            ratio = table.row(
                case.name, ours, case.theirs, problem=problem(case), repeat=harness.repeats(case.theirs)
            )
            ratios.append((ratio, case.name))
        failed += table.failed
        print()
    if ratios and all(ratio > 0 for ratio, _ in ratios):
        mean = math.exp(sum(math.log(ratio) for ratio, _ in ratios) / len(ratios))
        below = [f"{name} {ratio:.2f}" for ratio, name in sorted(ratios) if ratio < 1]
        print(f"{len(ratios)} cases, geometric mean {mean:.2f}; below 1: {', '.join(below) or 'none'}")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
