"""A trainer class: accumulation, rates set by hand, frozen layers, hooks of its own making."""
import numpy as np
import torch
import torch as th
import torch.nn as nn
import torch.nn.functional as F


class Head(nn.Module):
    def __init__(self, size: int, out: int):
        super().__init__()
        self.bn = nn.BatchNorm1d(size)
        self.gate = nn.Parameter(torch.ones(size), requires_grad=True)
        self.out = nn.Linear(size, out)
        self.register_buffer("calls", torch.zeros(1))

    def forward(self, x):
        self.calls += 1
        return self.out(self.bn(x) * self.gate)


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.backbone = nn.Sequential(nn.Linear(6, 8), nn.Sigmoid())
        self.head = Head(8, 3)

    def forward(self, x):
        return self.head(self.backbone(x))


class Trainer:
    def __init__(self, model, lr):
        self.model = model
        self.optimizer = torch.optim.SGD(
            [
                {"params": model.backbone.parameters(), "lr": lr * 0.1},  # slower
                {"params": model.head.parameters()},
            ],
            lr=lr,
            momentum=0.5,
        )
        self.criterion = nn.CrossEntropyLoss()
        self.step = 0

    def adjust_learning_rate(self, factor):
        for param_group in self.optimizer.param_groups:
            param_group["lr"] *= factor

    def fit(self, batches, accumulate=2):
        losses = []
        self.model.train()
        self.optimizer.zero_grad()
        for x, y in batches:
            loss = self.criterion(self.model(x), y)
            loss = loss / accumulate
            loss.backward()
            self.step += 1
            if self.step % accumulate == 0:
                self.optimizer.step()
                self.optimizer.zero_grad()
            losses.append(loss.item())
        return losses

    @torch.no_grad()
    def evaluate(self, batches):
        self.model.eval()
        right, total = 0, 0
        for x, y in batches:
            pred = self.model(x).max(1, keepdim=True)[1]
            right += pred.eq(y.view_as(pred)).sum().item()
            total += y.size(0)
        return right / total


model = Model()
with th.no_grad():
    for k, p in enumerate(m for m in model.modules() if isinstance(m, nn.Linear)):
        p.weight.copy_(th.from_numpy(np.random.RandomState(k).randn(*p.weight.shape).astype("float32")))
        p.bias.zero_()
rng = np.random.RandomState(2)
batches = [(th.from_numpy(rng.randn(12, 6).astype("float32")), th.from_numpy(rng.randint(0, 3, (12,)))) for _ in range(6)]
trainer = Trainer(model, lr=0.5)
results = []
for epoch in range(3):
    results += trainer.fit(batches)
    trainer.adjust_learning_rate(0.5)
    results.append(trainer.evaluate(batches))
for p in model.backbone.parameters():
    p.requires_grad = False
results += trainer.fit(batches)
results += [group["lr"] for group in trainer.optimizer.param_groups]
results.append(model.head.calls.item())
