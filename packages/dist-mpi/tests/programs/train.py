"""A script that knows nothing of ranks but for what it prints and saves; begins where the checkpoint of a killed run is.

train.py curve.json checkpoint [step at which rank 1 is killed]
"""

import json
import os
import signal
import sys
from pathlib import Path

import numpy as np

import metafuse as mf
from metafuse import nn


class Net(nn.Module):
    def __init__(self):
        self.a = nn.Linear(6, 16)
        self.bn = nn.BatchNorm(16)
        self.b = nn.Linear(16, 1)

    def execute(self, x):
        return self.b(nn.relu(self.bn(self.a(x))))


curve_file, checkpoint = Path(sys.argv[1]), Path(sys.argv[2])
killed_at = int(sys.argv[3]) if len(sys.argv) > 3 else -1

random = np.random.default_rng(0)
x_all = random.normal(size=(45, 6)).astype(np.float32)
y_all = (x_all[:, :1] * 2 - x_all[:, 1:2]).astype(np.float32)

mf.set_global_seed(7)
net = Net()
optimizer = nn.Adam(net.parameters(), 1e-2)
step, curve = 0, []
if checkpoint.exists():
    state = mf.load(str(checkpoint))
    net.load_state_dict(state["net"])
    optimizer.load_state_dict(state["optimizer"])
    step, curve = state["step"], state["curve"]
data = mf.data.TensorDataset(x_all, y_all).set_attrs(batch_size=13)
BATCHES = 4

while step < 3 * BATCHES:
    mf.data.set_shuffle_seed(step // BATCHES)
    order = mf.data.BatchSampler(mf.data.RandomSampler(data), 13, False)
    data.set_attrs(sampler=mf.data.SkipFirstBatchesSampler(order, step % BATCHES))
    for x, y in data:
        loss = ((net(x) - y) ** 2).mean()
        of_all = mf.dist.global_mean(loss)
        optimizer.step(loss)
        curve.append(of_all.item())
        step += 1
        if step % 3 == 0 and mf.rank == 0:
            everything = {
                "net": net.state_dict("numpy"),
                "optimizer": optimizer.state_dict(),
                "step": step,
                "curve": curve,
            }
            mf.save(everything, str(checkpoint))
        if step == killed_at and mf.rank == 1:
            os.kill(os.getpid(), signal.SIGKILL)
if mf.rank == 0:
    curve_file.write_text(json.dumps(curve))
