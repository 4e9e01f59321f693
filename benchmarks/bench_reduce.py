"""Sums and means over all elements, rows and columns of a matrix, against PyTorch and NumPy; and how accurate they are.

python benchmarks/bench_reduce.py
"""

from __future__ import annotations

import sys
from typing import Any

import harness

OPTIONS = harness.start(__doc__ or "", runs=21, seconds=3, numpy_is_peer=True)

import numpy as np  # noqa: E402
import torch  # noqa: E402

import metafuse as mf  # noqa: E402

SIZE = 4096
AXES: tuple[tuple[str, Any], ...] = (("all", None), ("rows", 1), ("columns", 0))


def main() -> int:
    values = np.random.default_rng(0).random((SIZE, SIZE), dtype=np.float32)
    ours, theirs = mf.array(values), torch.from_numpy(values)
    print(f"{harness.machine(OPTIONS)}; float32 [{SIZE}, {SIZE}]\n")
    table = harness.Table("Reductions against PyTorch", "PyTorch", OPTIONS)
    for name in ("sum", "mean"):
        for label, axis in AXES:
            run, peer = reductions(ours, theirs, name, axis)
            table.row(f"{name} over {label}", run, peer, target=1, names=harness.kernels(run),
                      problem=harness.agree(run(), peer(), 1e-4, 1e-4))  # fmt: skip
    print()
    single = harness.Table("Reductions against NumPy (one thread)", "NumPy", OPTIONS)
    for label, axis in AXES:
        run, _ = reductions(ours, theirs, "sum", axis)
        single.row(f"sum over {label}", run, lambda axis=axis: values.sum(axis=axis),
                   problem=harness.agree(run(), np.float32(values.sum(axis=axis, dtype=np.float64)), 1e-4, 1e-3))  # fmt: skip
    return int(accuracy() + table.failed > 0)


def reductions(ours: mf.Var, theirs: torch.Tensor, name: str, axis: Any) -> tuple[Any, Any]:
    if axis is None:
        return lambda: getattr(mf, name)(ours).sync(), lambda: getattr(torch, name)(theirs)
    return lambda: getattr(mf, name)(ours, axis).sync(), lambda: getattr(torch, name)(theirs, axis)


def accuracy() -> int:
    """Errors of means whose exact value is known; 1 if one of metafuse's is off by more than rounding."""
    ones = np.ones(10_000_000, np.float32)
    tenths = np.full(10_000_000, 0.1, np.float32)
    print(
        "\n### Accuracy of the mean of 10^7 float32: absolute error\n\n| values | metafuse | PyTorch | NumPy |\n|---|---|---|---|"
    )
    worst = 0.0
    for name, values, exact in (("ones", ones, 1.0), ("0.1", tenths, float(np.float32(0.1)))):
        errors = [
            abs(float(mf.array(values).mean().item()) - exact),
            abs(float(torch.from_numpy(values).mean()) - exact),
            abs(float(values.mean()) - exact),
        ]
        worst = max(worst, errors[0] / exact)
        print(f"| {name} | " + " | ".join(f"{e:.2g}" for e in errors) + " |")
    return int(worst > 3 * 2**-24)  # the sum, 1/n and their product are rounded, each by 2**-24 at most


if __name__ == "__main__":
    sys.exit(main())
