"""Many small things as they are written every day."""

import jittor as jt
import numpy as np
from jittor import init, nn
from jittor.misc import make_grid

jt.flags.log_silent = 1
jt.set_global_seed(11)

# making arrays and reading them
a = jt.array([[1, 2, 3], [4, 5, 6]])
b = jt.float32([1, 2, 3])
single = jt.array(1.0).shape
total = a.sum()
kinds = (a.dtype, b.dtype, (a + b).dtype, a.float().dtype, jt.zeros((2,), dtype=jt.float16).dtype)
is_float = b.dtype == jt.float32
position, value = jt.argmax(a, dim=1)
order, sorted_values = jt.argsort(jt.array([3.0, 1.0, 2.0]))
assert a.shape == [2, 3] and list(a.shape) == [2, 3]

# choosing and changing
mask = a > 2
a[mask] = 0
a[0, 1:] += 10
a[1][2] = 7
rows = jt.where(a.sum(1) > 11)[0]
clipped = jt.clamp(b, min_v=1.5, max_v=2.5)
stacked = jt.stack([b, b * 2], dim=0)
joined = jt.concat([stacked, stacked], 1)
halves = jt.chunk(joined, 2, dim=1)
picked = jt.gather(stacked, 1, jt.array([[0, 2], [1, 1]]))
grid = make_grid(jt.rand(4, 3, 5, 5), nrow=2)

# a layer from a function, parameters by name, freezing
Scale = jt.make_module(lambda x, factor: x * factor)
layer = nn.Sequential(nn.Linear(3, 3), Scale(2.0))
for name, parameter in layer.named_parameters():
    if name.endswith("bias"):
        init.constant_(parameter, 1.0)
        parameter.stop_grad()
trainable = [name for name, parameter in layer.named_parameters() if parameter.requires_grad]
with jt.no_grad():
    frozen = layer(b.reshape(1, 3)).requires_grad
with jt.flag_scope(lazy_execution=0):
    eager = (b * 2).sum().item()

# gradients of gradients
x = jt.array([2.0])
first = jt.grad(x**3, x)
second = jt.grad(first, x)


@jt.flag_scope(lazy_execution=0)
def rosenbrock(p):
    return (1 - p[0]) ** 2 + 100 * (p[1] - p[0] ** 2) ** 2


p = jt.array([0.5, 0.5])
slope = jt.grad(rosenbrock(p), p)

# NumPy in between
square = jt.numpy_code(
    b.shape,
    b.dtype,
    [b],
    lambda np, data: np.copyto(data["outputs"][0], data["inputs"][0] ** 2),
    [lambda np, data: np.copyto(data["outputs"][0], data["dout"] * 2 * data["inputs"][0])],
)
square_slope = jt.grad(square, b)
jt.sync_all(True)
jt.gc()
