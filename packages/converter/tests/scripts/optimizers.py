"""Rules that descend: Adagrad, Adamax, NAdam, RAdam on one small regression; arrays put together in all directions."""
import numpy as np
import torch
from torch import nn, optim

rng = np.random.RandomState(1)
x = torch.from_numpy(rng.randn(16, 3).astype("float32"))
y = torch.fmod(x.sum(1, keepdim=True) * 2, 1.5)

RULES = {
    "adagrad": lambda ps: optim.Adagrad(ps, lr=0.1, lr_decay=0.01, weight_decay=0.01, initial_accumulator_value=0.1),
    "adamax": lambda ps: optim.Adamax(ps, weight_decay=0.01),
    "nadam": lambda ps: optim.NAdam(ps, lr=0.01, momentum_decay=0.01),
    "nadamw": lambda ps: optim.NAdam(ps, 0.01, (0.8, 0.99), 1e-7, 0.1, decoupled_weight_decay=True),
    "radam": lambda ps: optim.RAdam(ps, lr=0.01, betas=(0.9, 0.9)),
}


def build():
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))
    for k, p in enumerate(model.parameters()):
        p.data.copy_(torch.from_numpy(np.random.RandomState(k).randn(*p.shape).astype("float32")))
    return model


results = []
for name, rule in RULES.items():
    model = build()
    optimizer = rule(model.parameters())
    for step in range(6):
        loss = nn.functional.mse_loss(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_value_(model.parameters(), clip_value=0.5)  # element by element
        optimizer.step()
        results.append(loss.item())

# rows, columns, layers
a, b = torch.arange(3.0), torch.ones(3)
rows = torch.vstack((a, b))
results += rows[1].tolist() + torch.hstack([a, b]).tolist() + torch.hstack((rows, rows))[0].tolist()
results += torch.dstack((a, b)).flatten().tolist() + torch.row_stack([rows, a]).sum(1).tolist()
results += torch.fmod(torch.tensor([5.5, -5.5, 7.0]), torch.tensor([2.0, 2.0, -4.0])).tolist() + a.fmod(2).tolist()
print(results)
