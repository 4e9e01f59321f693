"""A script that runs alone and under mpirun."""

import jittor as jt
import numpy as np
from jittor import nn

jt.set_global_seed(0)
mpi = jt.compile_extern.mpi
mpi_world_size = mpi.world_size() if mpi else 1
is_main = (not jt.in_mpi) or jt.rank == 0
logged = []


@jt.single_process_scope(rank=0)
def log(text):
    logged.append(text)
    return len(logged)


model = nn.Linear(3, 1)
if jt.in_mpi:
    model.mpi_param_broadcast(0)
optimizer = nn.SGD(model.parameters(), 0.1)
target = jt.array([[1.0, -2.0, 0.5]])
rng = np.random.default_rng(jt.rank)
for step in range(60):
    x = jt.array(rng.normal(size=(16, 3)).astype(np.float32))
    loss = ((model(x) - (x * target).sum(1, keepdims=True)) ** 2).mean()
    optimizer.step(loss)
if jt.in_mpi:
    loss = loss.mpi_all_reduce("mean")
log(f"loss {loss.item():.5f}")
final = loss.item()
