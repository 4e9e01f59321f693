"""Nearest neighbours with inline C++."""

import jittor as jt
import numpy as np


def knn(xyz, center_xyz, k):
    b, n, c = xyz.shape
    _, m, _ = center_xyz.shape
    return jt.code(
        [b, m, k],
        "int32",
        [xyz, center_xyz],
        cpu_header="""
        #include <algorithm>
        #include <utility>
        #include <vector>
        """,
        cpu_src="""
        // distances of every center to every point, the k least first
        int n = in0_shape1, m = in1_shape1, k = out_shape2;
        for (int b = 0; b < in0_shape0; b++) {
            for (int i = 0; i < m; i++) {
                std::vector<std::pair<float, int>> found;
                for (int j = 0; j < n; j++) {
                    float d = 0;
                    for (int c = 0; c < in0_shape2; c++) {
                        float r = @in0(b, j, c) - @in1(b, i, c);
                        d += r * r;
                    }
                    found.push_back({d, j});
                }
                std::sort(found.begin(), found.end());
                for (int j = 0; j < k; j++) @out(b, i, j) = found[j].second;
            }
        }
        """,
    )


rng = np.random.default_rng(0)
points = rng.normal(size=(2, 40, 3)).astype(np.float32)
centers = rng.normal(size=(2, 5, 3)).astype(np.float32)
neighbours = knn(jt.array(points), jt.array(centers), 4).numpy()
expected = np.argsort(((centers[:, :, None] - points[:, None]) ** 2).sum(-1), -1)[..., :4]

# an operator with a gradient of its own
a, b = jt.array(points[0]), jt.array(points[1])
product = jt.code(
    a.shape,
    a.dtype,
    [a, b],
    cpu_src="for (int i = 0; i < in0_shape0; i++) for (int j = 0; j < in0_shape1; j++) @out(i, j) = @in0(i, j) * @in1(i, j);",
    cpu_grad_src=[
        "for (int i = 0; i < in0_shape0; i++) for (int j = 0; j < in0_shape1; j++) @out(i, j) = @dout(i, j) * @in1(i, j);",
        "for (int i = 0; i < in0_shape0; i++) for (int j = 0; j < in0_shape1; j++) @out(i, j) = @dout(i, j) * @in0(i, j);",
    ],
)
da, db = jt.grad(product, [a, b])
