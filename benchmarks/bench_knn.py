"""The k nearest neighbours of every point by inline C++ (``metafuse.code``), against PyTorch's matrix product and topk.

    python benchmarks/bench_knn.py

Points in three dimensions, k = 10, in clouds of 100, 1,000 and 10,000. PyTorch runs ``|x|^2 + |y|^2 - 2 x.y`` by a matrix
product, and ``torch.cdist``, each followed by ``topk``; the faster of both counts.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

import harness

OPTIONS = harness.start(__doc__ or "", runs=21, seconds=8)

import numpy as np  # noqa: E402
import torch  # noqa: E402

import metafuse as mf  # noqa: E402

K = 10

HEADER = """
#include <algorithm>
#include <cfloat>
#include <vector>

// Distances come in blocks that the compiler vectorises; only what beats the worst neighbour so far is looked at one by one.
// The list of neighbours is sorted, so an insertion moves a few entries of two short arrays.
constexpr int KNN_BLOCK = 256;

template <int K>
inline void knn_insert(float* best, int* who, float distance, int index) {
    int at = K - 1;
    while (at > 0 && best[at - 1] > distance) {
        best[at] = best[at - 1];
        who[at] = who[at - 1];
        --at;
    }
    best[at] = distance;
    who[at] = index;
}

template <int K>
void knn_row(const float* x, const float* y, const float* z, int count, int self, int* result) {
    float best[K];
    int who[K];
    std::fill(best, best + K, FLT_MAX);
    std::fill(who, who + K, -1);
    const float px = x[self], py = y[self], pz = z[self];
    float distance[KNN_BLOCK];
    for (int begin = 0; begin < count; begin += KNN_BLOCK) {
        const int length = std::min(KNN_BLOCK, count - begin);
        float least = FLT_MAX;
#pragma omp simd reduction(min : least)
        for (int j = 0; j < length; ++j) {
            const float dx = x[begin + j] - px, dy = y[begin + j] - py, dz = z[begin + j] - pz;
            const float d = dx * dx + dy * dy + dz * dz;
            distance[j] = d;
            least = d < least ? d : least;
        }
        if (least >= best[K - 1]) continue;  // nothing of this block is near
        for (int begin16 = 0; begin16 < length; begin16 += 16) {
            const int end16 = std::min(begin16 + 16, length);
            int any = 0;
            const float worst = best[K - 1];
#pragma omp simd reduction(| : any)
            for (int j = begin16; j < end16; ++j) any |= distance[j] < worst;
            if (!any) continue;
            for (int j = begin16; j < end16; ++j)
                if (distance[j] < best[K - 1]) knn_insert<K>(best, who, distance[j], begin + j);
        }
    }
    std::copy(who, who + K, result);
}
"""

SOURCE = """
    const int count = in0_shape0;
    // one array per coordinate, so that a vector holds the same coordinate of neighbouring points
    std::vector<float> plane(3 * (size_t)count);
    float *x = plane.data(), *y = x + count, *z = y + count;
    for (int i = 0; i < count; ++i) {
        x[i] = @in0(i, 0);
        y[i] = @in0(i, 1);
        z[i] = @in0(i, 2);
    }
    #pragma omp parallel for schedule(static) if (count > 32)
    for (int i = 0; i < count; ++i) knn_row<10>(x, y, z, count, i, &@out(i, 0));
"""


def ours(points: mf.Var) -> mf.Var:
    """Indices [n, 10] of the nearest points, the point itself first."""
    return mf.code([points.shape[0], K], "int32", [points], cpu_header=HEADER, cpu_src=SOURCE)


def by_product(points: torch.Tensor) -> torch.Tensor:
    norms = (points * points).sum(1)
    distance = norms[:, None] + norms[None, :] - 2 * (points @ points.T)
    return distance.topk(K, dim=1, largest=False).indices


def by_cdist(points: torch.Tensor) -> torch.Tensor:
    return torch.cdist(points, points).topk(K, dim=1, largest=False).indices


def check(points: np.ndarray, found: np.ndarray, count: int = 200) -> str:
    """Whether the neighbours of some points are the nearest ones, by distances in double precision."""
    chosen = np.arange(len(points))[:: max(1, len(points) // count)]
    exact = ((points[chosen, None].astype(np.float64) - points[None].astype(np.float64)) ** 2).sum(-1)
    nearest = np.sort(exact, axis=1)[:, :K]
    got = np.sort(np.take_along_axis(exact, found[chosen].astype(np.int64), axis=1), axis=1)
    return harness.agree(got, nearest, 1e-4, 1e-6)


def seconds(call: Callable[[], object]) -> float:
    call()
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin


def faster_peer(points: torch.Tensor) -> tuple[str, Callable[[torch.Tensor], torch.Tensor]]:
    """The way of PyTorch's that is faster for these points."""
    taken = {
        (name, way): min(seconds(lambda f=way: f(points)) for _ in range(2))
        for name, way in (("matrix product", by_product), ("cdist", by_cdist))
    }
    return min(taken, key=lambda key: taken[key])


def main() -> int:
    print(f"{harness.machine(OPTIONS)}; float32, 3 dimensions, k = {K}\n")
    table = harness.Table("k nearest neighbours", "PyTorch", OPTIONS)
    for count in (100, 1000, 10000):
        values = np.random.default_rng(count).random((count, 3), dtype=np.float32)
        mine, other = mf.array(values), torch.from_numpy(values)
        name, peer = faster_peer(other)
        problem = check(values, ours(mine).numpy())
        repeat = max(1, 1000 // count)
        table.row(f"{count} points ({name})", lambda x=mine: ours(x).sync(), lambda x=other, f=peer: f(x),
                  target=1, problem=problem, repeat=repeat)  # fmt: skip
    return int(table.failed > 0)


if __name__ == "__main__":
    sys.exit(main())
