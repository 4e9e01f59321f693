"""Softmax, layer norm, batch norm and cross-entropy, forward and backward, against PyTorch eager.

    python benchmarks/bench_norms.py

Forward runs with gradients recorded on both sides. Backward is the gradient alone, of results already computed, for a
given upstream gradient. Each way may take two kernels at most.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import harness

OPTIONS = harness.start(__doc__ or "", runs=15, seconds=4)

import numpy as np  # noqa: E402
import torch  # noqa: E402
import torch.nn.functional as F  # noqa: E402

import metafuse as mf  # noqa: E402

TARGET = 1.3
RANDOM = np.random.default_rng(0)


def values(*shape: int) -> np.ndarray[Any, Any]:
    return RANDOM.standard_normal(shape).astype(np.float32)


def compare(
    table: harness.Table,
    case: str,
    arrays: list[np.ndarray[Any, Any]],
    ours: Callable[..., mf.Var],
    theirs: Callable[..., torch.Tensor],
) -> None:
    """Rows for forward and backward of one operator; ``arrays`` are what gradients are taken of."""
    mine = [mf.array(a).start_grad() for a in arrays]
    other = [torch.from_numpy(a).clone().requires_grad_() for a in arrays]
    result = ours(*mine)
    expected = theirs(*other)
    upstream = values(*expected.shape) if expected.ndim else np.ones((), np.float32)
    up, torch_up = mf.array(upstream), torch.from_numpy(upstream)

    def backward() -> list[mf.Var]:
        gradients = mf.grad(result * up if expected.ndim else result, mine)
        mf.sync(gradients)
        return gradients

    def torch_backward() -> tuple[torch.Tensor, ...]:
        return torch.autograd.grad(expected, other, torch_up, retain_graph=True)

    problem = harness.agree(result, expected)
    mf.sync_all()
    names = harness.kernels(lambda: ours(*mine).sync())
    table.row(f"{case} forward", lambda: ours(*mine).sync(), lambda: theirs(*other), target=TARGET, names=names,
              most=2, problem=problem)  # fmt: skip
    problem = harness.agree(backward(), torch_backward(), 1e-3, 1e-4)
    names = harness.kernels(backward)
    table.row(f"{case} backward", backward, torch_backward, target=TARGET, names=names,
              most=2, problem=problem)  # fmt: skip


def main() -> int:
    print(f"{harness.machine(OPTIONS)}; float32\n")
    table = harness.Table("Softmax, normalisation, cross-entropy", "PyTorch", OPTIONS)
    for shape in ((4096, 1024), (64 * 12 * 128, 128)):
        compare(table, f"softmax {list(shape)}", [values(*shape)],
                lambda x: mf.nn.softmax(x, dim=1), lambda x: F.softmax(x, 1))  # fmt: skip
    layer = mf.nn.LayerNorm(768)
    compare(table, "layer norm [4096, 768]", [values(4096, 768), 1 + 0.1 * values(768), 0.1 * values(768)],
            lambda x, w, b: functional_layer_norm(layer, x, w, b), lambda x, w, b: F.layer_norm(x, (768,), w, b))  # fmt: skip
    for shape in ((32, 64, 56, 56),):
        compare(table, f"batch norm {list(shape)}", [values(*shape), 1 + 0.1 * values(64), 0.1 * values(64)],
                batch_norm(64), torch_batch_norm(64))  # fmt: skip
    for shape in ((4096, 1000), (256, 32000)):
        labels = RANDOM.integers(0, shape[1], shape[0])
        target, torch_target = mf.array(labels.astype(np.int32)), torch.from_numpy(labels)
        compare(table, f"cross-entropy {list(shape)}", [values(*shape)],
                lambda x, t=target: mf.nn.cross_entropy_loss(x, t), lambda x, t=torch_target: F.cross_entropy(x, t))  # fmt: skip
    return int(table.failed > 0)


def functional_layer_norm(layer: Any, x: mf.Var, weight: mf.Var, bias: mf.Var) -> mf.Var:
    layer.weight, layer.bias = weight, bias
    return layer(x)


def batch_norm(channels: int) -> Callable[..., mf.Var]:
    """The layer in training, running statistics included."""
    layer = mf.nn.BatchNorm(channels)
    layer.train()

    def run(x: mf.Var, weight: mf.Var, bias: mf.Var) -> mf.Var:
        layer.weight, layer.bias = weight, bias
        return layer(x)

    return run


def torch_batch_norm(channels: int) -> Callable[..., torch.Tensor]:
    mean, variance = torch.zeros(channels), torch.ones(channels)
    return lambda x, w, b: F.batch_norm(x, mean, variance, w, b, True, 0.1, 1e-5)


if __name__ == "__main__":
    sys.exit(main())
