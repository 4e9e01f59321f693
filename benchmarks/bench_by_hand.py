"""A convolution that a user writes with reindex, broadcast, multiply and sum, against ``nn.conv2d``, with its gradients.

    python benchmarks/bench_by_hand.py

Both must become the same library calls; the ratio says what writing it by hand costs.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import harness

OPTIONS = harness.start(__doc__ or "", runs=25, seconds=15)

import numpy as np  # noqa: E402

import metafuse as mf  # noqa: E402

CASES = {
    "3x3, 64 of 56x56": ((16, 64, 56, 56), (64, 64, 3, 3), 1, 1),
    "3x3, 256 of 14x14": ((16, 256, 14, 14), (256, 256, 3, 3), 1, 1),
    "1x1, 256 to 128, stride 2": ((16, 256, 28, 28), (128, 256, 1, 1), 2, 0),
    "7x7, stride 2": ((8, 3, 112, 112), (64, 3, 7, 7), 2, 3),
}


def by_hand(x: Any, w: Any, stride: int, padding: int) -> Any:
    n, c, h, v = x.shape
    o, _, r, s = w.shape
    rows, columns = (h + 2 * padding - r) // stride + 1, (v + 2 * padding - s) // stride + 1
    space = [n, o, c, rows, columns, r, s]
    places = [f"i3*{stride}+i5-{padding}", f"i4*{stride}+i6-{padding}"]
    windows = x.reindex(space, ["i0", "i2", *places])
    weights = w.reindex(space, ["i1", "i2", "i5", "i6"])
    return (windows * weights).sum([2, 5, 6])


def call(function: Callable[[Any, Any], Any], x: Any, w: Any, g: Any, backward: bool) -> Callable[[], Any]:
    def run() -> Any:
        y = function(x, w)
        results = [y, *mf.grad((y * g).sum(), [x, w])] if backward else [y]
        mf.sync_all()
        return results

    return run


def main() -> int:
    print(f"{harness.machine(OPTIONS)}; float32\n")
    table = harness.Table("A convolution by hand", "nn.conv2d", OPTIONS)
    random = np.random.default_rng(0)
    for name, (image, kernel, stride, padding) in CASES.items():
        x, w = (mf.array(random.standard_normal(shape, dtype=np.float32)) for shape in (image, kernel))
        g = mf.ones(mf.nn.conv2d(x, w, None, stride, padding).shape)
        mf.sync_all()
        for backward in (False, True):
            hand = call(lambda x, w, s=stride, p=padding: by_hand(x, w, s, p), x, w, g, backward)
            layer = call(lambda x, w, s=stride, p=padding: mf.nn.conv2d(x, w, None, s, p), x, w, g, backward)
            size = float(np.abs(layer()[-1].numpy()).max())
            problem = harness.agree(hand(), layer(), 1e-4, 1e-5 * size)
            text = f"{name}{', with gradients' if backward else ''}"
            table.row(text, hand, layer, target=0.95, problem=problem, names=harness.kernels(hand))
    return int(table.failed > 0)


if __name__ == "__main__":
    sys.exit(main())
