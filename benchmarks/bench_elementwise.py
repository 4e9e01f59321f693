"""Chains of element-wise operators against PyTorch eager, and against a plain copy of the same bytes.

    python benchmarks/bench_elementwise.py

Twenty operators with exp and tanh on 16 million float32 become one kernel that reads and writes memory once; PyTorch
does so twenty times. Five additions should cost hardly more than copying: the peer there is ``Tensor.copy_`` between two
existing tensors (with the same number of threads; it needs no fresh pages).
"""

from __future__ import annotations

import sys

import harness

OPTIONS = harness.start(__doc__ or "", runs=9, seconds=20)

import numpy as np  # noqa: E402
import torch  # noqa: E402

import metafuse as mf  # noqa: E402

COUNT = 1 << 24


def chain(x, exp, tanh):  # type: ignore[no-untyped-def]
    """Twenty operators; the same text for both frameworks."""
    y = x
    for _ in range(2):
        y = exp(y * -0.5)  # 2
        y = tanh(y + x)  # 2
        y = y * 0.25 - x  # 2
        y = tanh(y * y)  # 2
        y = exp(y - 1.0)  # 2
    return y


def chain_in_place(x: torch.Tensor, y: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
    """What a careful PyTorch user could write: no fresh memory per operator."""
    y.copy_(x)
    for _ in range(2):
        y.mul_(-0.5).exp_().add_(x).tanh_().mul_(0.25).sub_(x)
        y.mul_(y).tanh_().sub_(1.0).exp_()
    return y


def adds(x):  # type: ignore[no-untyped-def]
    return x + 0.5 + 1.5 + 2.5 - 3.5 + 0.25


def main() -> int:
    values = np.random.default_rng(0).standard_normal(COUNT).astype(np.float32)
    ours, theirs = mf.array(values), torch.from_numpy(values)
    spare, spare2 = torch.empty_like(theirs), torch.empty_like(theirs)
    print(f"{harness.machine(OPTIONS)}; {COUNT} float32\n")
    table = harness.Table("Element-wise chains", "PyTorch", OPTIONS)

    def run_chain() -> mf.Var:
        return chain(ours, mf.exp, mf.tanh).sync()

    def torch_chain() -> torch.Tensor:
        return chain(theirs, torch.exp, torch.tanh)

    names = harness.kernels(run_chain)
    table.row("20 operators", run_chain, torch_chain, target=4, names=names, most=1,
              problem=harness.agree(run_chain(), torch_chain()))  # fmt: skip
    table.row("20 operators, PyTorch in place", run_chain, lambda: chain_in_place(theirs, spare, spare2), names=names,
              problem=harness.agree(run_chain(), chain_in_place(theirs, spare, spare2)))  # fmt: skip
    names = harness.kernels(lambda: adds(ours).sync())
    problem = harness.agree(adds(ours), adds(theirs))
    table.row("5 additions", lambda: adds(ours).sync(), lambda: adds(theirs), names=names, problem=problem)
    table.row(
        "5 additions against copy_",
        lambda: adds(ours).sync(),
        lambda: spare.copy_(theirs),
        target=0.8,
        names=names,
    )
    return int(table.failed > 0)


if __name__ == "__main__":
    sys.exit(main())
