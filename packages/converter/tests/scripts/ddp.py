"""Data parallel training as PyTorch's tutorial has it, here with one process."""
import os

import numpy as np
import torch
import torch.distributed as dist
import torch.nn as nn
from torch.nn.parallel import DistributedDataParallel as DDP
from torch.utils.data import DataLoader, TensorDataset
from torch.utils.data.distributed import DistributedSampler


def setup(rank, world_size):
    os.environ.setdefault("MASTER_ADDR", "localhost")
    os.environ.setdefault("MASTER_PORT", "29531")
    # initialize the process group
    dist.init_process_group("gloo", rank=rank, world_size=world_size)


def cleanup():
    dist.destroy_process_group()


class ToyModel(nn.Module):
    def __init__(self):
        super(ToyModel, self).__init__()
        self.net1 = nn.Linear(10, 10)
        self.relu = nn.ReLU()
        self.net2 = nn.Linear(10, 5)

    def forward(self, x):
        return self.net2(self.relu(self.net1(x)))


def demo_basic(rank, world_size):
    setup(rank, world_size)
    model = ToyModel()
    for k, p in enumerate(model.parameters()):
        p.data.copy_(torch.from_numpy(np.random.RandomState(k).randn(*p.shape).astype("float32") * 0.3))
    ddp_model = DDP(model, device_ids=None, find_unused_parameters=False)
    rng = np.random.RandomState(0)
    dataset = TensorDataset(torch.from_numpy(rng.randn(24, 10).astype("float32")), torch.from_numpy(rng.randn(24, 5).astype("float32")))
    sampler = DistributedSampler(dataset, num_replicas=world_size, rank=rank, shuffle=False)
    loader = DataLoader(dataset, batch_size=8, sampler=sampler, shuffle=False)

    loss_fn = nn.MSELoss()
    optimizer = torch.optim.SGD(ddp_model.parameters(), lr=0.05)
    losses = []
    for epoch in range(3):
        sampler.set_epoch(epoch)
        for inputs, labels in loader:
            optimizer.zero_grad()
            outputs = ddp_model(inputs)
            loss = loss_fn(outputs, labels)
            loss.backward()
            optimizer.step()
            total = loss.detach().clone()
            dist.all_reduce(total, op=dist.ReduceOp.SUM)
            losses.append(total.item() / dist.get_world_size())
    dist.barrier()
    if dist.get_rank() == 0:
        state = ddp_model.module.state_dict()
        losses.append(float(sum(v.abs().sum().item() for v in state.values())))
    cleanup()
    return losses


results = demo_basic(0, 1)
