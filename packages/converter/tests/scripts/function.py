"""Functions with their own gradients, inside a small regression."""
import numpy as np
import torch
from torch.autograd import Function
from torch.autograd.function import once_differentiable


class Clamp(Function):
    """Clamps, but lets gradients through."""

    @staticmethod
    def forward(ctx, x, low, high):
        ctx.save_for_backward(x)
        ctx.bounds = (low, high)
        return x.clamp(min=low, max=high)

    @staticmethod
    def backward(ctx, grad_output):
        (x,) = ctx.saved_tensors
        low, high = ctx.bounds
        inside = (x > low) & (x < high)
        return torch.where(inside, grad_output, grad_output * 0.1), None, None


class Bilinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight):
        ctx.save_for_backward(x, weight)  # for backward
        return x.mm(weight.t())

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_output):
        x, weight = ctx.saved_tensors
        grad_x = grad_weight = None
        if ctx.needs_input_grad[0]:
            grad_x = grad_output.mm(weight)
        if ctx.needs_input_grad[1]:
            grad_weight = grad_output.t().mm(x)
        return grad_x, grad_weight


class Regression(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.full((3, 5), 0.25))
        self.offset = torch.tensor(0.5)  # no parameter

    def forward(self, x):
        y = Bilinear.apply(x, self.weight) + self.offset
        return Clamp.apply(y, -1.0, 1.0)


rng = np.random.RandomState(0)
x = torch.tensor(rng.randn(20, 5), dtype=torch.float32)
y = torch.tensor(rng.randn(20, 3), dtype=torch.float32)
model = Regression()
optimizer = torch.optim.SGD(model.parameters(), lr=0.2)
loss_fn = torch.nn.MSELoss()
results = []
for t in range(10):
    loss = loss_fn(model(x), y)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    results.append(loss.item())
results += model.weight.detach().numpy().ravel().tolist()
results.append(model.offset.item())
