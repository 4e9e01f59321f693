"""Mixed precision: autocast, a scaler, clipping of unscaled gradients, accumulated over two batches."""
import numpy as np
import torch
import torch.nn as nn
from torch.amp import GradScaler, autocast

device = "cpu"
model = nn.Sequential(nn.Linear(16, 32), nn.Tanh(), nn.Linear(32, 4)).to(device)
for k, p in enumerate(model.parameters()):
    p.data.copy_(torch.from_numpy(np.random.RandomState(k).randn(*p.shape).astype("float32") * 0.2))
optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
scaler = GradScaler(device, init_scale=1024.0, enabled=True)
loss_fn = nn.CrossEntropyLoss()

rng = np.random.RandomState(5)
batches = [(torch.from_numpy(rng.randn(8, 16).astype("float32")), torch.from_numpy(rng.randint(0, 4, 8))) for _ in range(8)]
results = []
accumulate = 2
optimizer.zero_grad()
for epoch in range(2):
    for step, (inputs, targets) in enumerate(batches):
        with autocast(device_type="cpu", dtype=torch.bfloat16):
            output = model(inputs)
            loss = loss_fn(output, targets) / accumulate
        # Scales the loss, and calls backward() on it
        scaler.scale(loss).backward()
        if (step + 1) % accumulate == 0:
            scaler.unscale_(optimizer)
            torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad()
        results.append(loss.item() * accumulate)
