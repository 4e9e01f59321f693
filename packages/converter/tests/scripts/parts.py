"""Parts of tensors that are changed in place, as views are."""
import torch
from torch import nn
x = torch.zeros(3, 4)
x[0].fill_(2)
x[1:].data.add_(1)
x[:, 0].copy_(torch.ones(3))
x[2].zero_()  # nothing
x[1].mul_(2).add_(1)
x[0, 1:3].clamp_(min=2.5)
x[1].uniform_(0.5, 0.5)
m = nn.Linear(2, 3)
m.weight.data[0].normal_(0, 0)
m.weight.data[1].fill_(3)
m.weight[2].data.copy_(torch.ones(2))
parts = [torch.ones(2), torch.ones(2)]
parts[0].zero_()
nn.init.zeros_(m.bias[1:])
results = x.flatten().tolist() + m.weight.flatten().tolist() + parts[0].tolist()
