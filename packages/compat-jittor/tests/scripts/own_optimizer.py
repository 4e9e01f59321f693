"""An optimizer of one's own, as the reference's are written."""

import jittor as jt
import numpy as np
from jittor import nn, optim


class MomentumSGD(optim.Optimizer):
    def __init__(self, params, lr, momentum=0.9, weight_decay=0):
        super().__init__(params, lr)
        self.momentum = momentum
        self.weight_decay = weight_decay
        for pg in self.param_groups:
            values = pg["values"] = []
            for p in pg["params"]:
                values.append(jt.zeros(p.shape, p.dtype).stop_grad())

    def step(self, loss=None, retain_graph=False):
        self.pre_step(loss, retain_graph)
        for pg in self.param_groups:
            lr = pg.get("lr", self.lr)
            for p, g, v in zip(pg["params"], pg["grads"], pg["values"]):
                if p.is_stop_grad():
                    continue
                dp = p * self.weight_decay + g
                v.update(self.momentum * v + dp)
                p.update(p - v * lr)
        self.post_step()


x = jt.array(np.random.default_rng(0).normal(size=(16, 3)).astype("float32"))
y = x.sum(1, keepdims=True)


def train(make):
    jt.set_global_seed(3)
    model = nn.Linear(3, 1)
    optimizer = make(model.parameters(), 0.05, 0.9, 1e-3)
    losses = []
    for _ in range(40):
        loss = nn.mse_loss(model(x), y)
        optimizer.step(loss)
        losses.append(loss.item())
    return model, losses


model, losses = train(MomentumSGD)
still_trainable = model.weight.requires_grad
own = model.weight.numpy()
built_in = train(nn.SGD)[0].weight.numpy()
