"""The overhead of one tiny operator: recording and running 1,000 dependent ones on 4 elements, against PyTorch eager.

    python benchmarks/bench_dispatch.py

The second and later times: the program is known, nothing is planned or compiled.
"""

from __future__ import annotations

import sys
import time

import harness

OPTIONS = harness.start(__doc__ or "", runs=41, seconds=10)

import numpy as np  # noqa: E402
import torch  # noqa: E402

import metafuse as mf  # noqa: E402
from metafuse.runtime.kernels import statistics  # noqa: E402

STEPS = 500


def chain(x, y):  # type: ignore[no-untyped-def]
    """1,000 operators, each depending on the one before."""
    for _ in range(STEPS):
        x = x + y
        x = x * 0.5
    return x


def main() -> int:
    values = np.array([1.0, 2.0, 3.0, 4.0], np.float32)
    a, b = mf.array(values), mf.array(values[::-1].copy())
    ta, tb = torch.from_numpy(values), torch.from_numpy(values[::-1].copy())

    def ours() -> mf.Var:
        return chain(a, b).sync()

    def theirs() -> torch.Tensor:
        return chain(ta, tb)

    begin = time.perf_counter()
    names = harness.kernels(ours)
    first = time.perf_counter() - begin
    print(f"{harness.machine(OPTIONS)}; 1,000 dependent operators on 4 float32\n")
    table = harness.Table("Dispatch", "PyTorch", OPTIONS, unit="us")
    plans = statistics.plans
    table.row(
        "record and run 1,000 operators",
        ours,
        theirs,
        target=1,
        problem=harness.agree(ours(), theirs()),
        names=names,
    )
    taken = harness.interleave({"record": lambda: chain(a, b)}, OPTIONS.runs, 2)["record"]
    whole = harness.interleave({"both": ours}, OPTIONS.runs, 2)["both"]
    print(f"\nper operator: recording {taken.median * 1e3:.2f} µs, evaluation {(whole.median - taken.median) * 1e3:.2f} µs; "
          f"first time {first:.2f} s; programs planned while measuring: {statistics.plans - plans}")  # fmt: skip
    return int(table.failed > 0)


if __name__ == "__main__":
    sys.exit(main())
