"""Look inside a network with hooks; save it and load it again."""

import os
import tempfile

import jittor as jt
import numpy as np
from jittor import nn

jt.set_global_seed(7)
net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
x = jt.randn(3, 4)

# what goes through a layer
seen = {}
net[0].register_forward_hook(lambda module, args, output: seen.update(shape=output.shape))
net[2].register_pre_forward_hook(lambda module, args: seen.update(before=args[0].shape))
y = net(x)

# gradients on the way back, halved at one place
h = net[0](x)
plain = jt.grad(net[2](net[1](h)).sum(), net[0].weight)
h = net[0](x)
h.register_hook(lambda g: g * 0.5)
halved = jt.grad(net[2](net[1](h)).sum(), net[0].weight)
net[0].remove_forward_hook()
net[2].remove_pre_forward_hook()

# files
folder = tempfile.mkdtemp()
path = os.path.join(folder, "model.pkl")
net.save(path)
other = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
other.load(path)
same = np.allclose(net(x).numpy(), other(x).numpy())

jt.save({"epoch": 3, "state": net.state_dict(), "best": 0.5}, os.path.join(folder, "checkpoint.pkl"))
checkpoint = jt.load(os.path.join(folder, "checkpoint.pkl"))
third = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
third.load_state_dict(checkpoint["state"])
names = sorted(third.state_dict().keys())

# an optimizer that goes on where it was
optimizer = nn.Adam(net.parameters(), 0.1)
optimizer.step(net(x).sqr().sum())
jt.save(optimizer.state_dict(), os.path.join(folder, "optimizer.pkl"))
resumed = nn.Adam(other.parameters(), 0.1)
resumed.load_state_dict(jt.load(os.path.join(folder, "optimizer.pkl")))
other.load_state_dict(net.state_dict())
for model, opt in ((net, optimizer), (other, resumed)):
    opt.step(model(x).sqr().sum())
goes_on = np.allclose(net(x).numpy(), other(x).numpy(), atol=1e-6)
