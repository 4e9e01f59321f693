"""Convolution, pooling and matrix multiplication from meta-operators, as in the reference's papers and tutorials."""

import jittor as jt
import numpy as np
from jittor import nn


def conv(x, p):
    N, H, W, C = x.shape
    o, i, h, w = p.shape
    assert C == i
    xx = x.reindex(
        shape=(N, o, H, W, i, h, w),
        indexes=[
            "i0",  # Nid = Nid
            f"i2-{h}/2+i5",  # Hid + Khid
            f"i3-{w}/2+i6",  # Wid + KWid
            "i4",  # Cid
        ],
        overflow_value=0,
    )
    pp = p.broadcast(xx.shape, dims=(0, 2, 3))
    yy = xx * pp
    y = yy.sum(dims=(4, 5, 6)).transpose(0, 2, 3, 1)
    return y


def max_pool(x, size):
    N, C, H, W = x.shape
    h, w = H // size, W // size
    xx = x.reindex([N, C, h, w, size, size], ["i0", "i1", f"i2*{size}+i4", f"i3*{size}+i5"])
    return xx.reindex_reduce("maximum", [N, C, h, w], ["i0", "i1", "i2", "i3"])


def matmul(a, b):
    (n, m), k = a.shape, b.shape[-1]
    a = a.broadcast([n, m, k], dims=[2])
    b = b.broadcast([n, m, k], dims=[0])
    return (a * b).sum(dim=1)


jt.set_global_seed(5)
x = jt.randn(2, 6, 7, 3)
p = jt.randn(4, 3, 3, 3)
y = conv(x, p)
expected = nn.conv2d(x.transpose(0, 3, 1, 2), p, padding=1).transpose(0, 2, 3, 1)
conv_error = np.abs((y - expected).numpy()).max()

weights = jt.array(np.random.default_rng(0).normal(size=y.shape).astype(np.float32))
found = jt.grad(y * weights, [x, p])
wanted = jt.grad(expected * weights, [x, p])
grad_error = max(np.abs((a - b).numpy()).max() for a, b in zip(found, wanted))

images = jt.rand(2, 3, 4, 6)
pool_error = np.abs((max_pool(images, 2) - nn.Pool(2, 2)(images)).numpy()).max()

a, b = jt.rand(5, 6), jt.rand(6, 4)
matmul_error = np.abs(matmul(a, b).numpy() - a.numpy() @ b.numpy()).max()
print(conv_error, grad_error, pool_error, matmul_error)
