"""A variational autoencoder whose sampling is a Function of its own."""

import jittor as jt
import numpy as np
from jittor import Function, Module, nn

jt.set_global_seed(3)


class Reparameterize(Function):
    """mean + exp(logvar / 2) * noise, with the gradients written by hand."""

    def execute(self, mean, logvar, noise):
        self.half = jt.exp(logvar * 0.5)
        self.noise = noise
        return mean + self.half * noise

    def grad(self, dz):
        return dz, dz * self.half * self.noise * 0.5, None


class VAE(Module):
    def __init__(self, size=8, hidden=32, latent=2):
        self.encode = nn.Sequential(nn.Linear(size, hidden), nn.ReLU(), nn.Linear(hidden, 2 * latent))
        self.decode = nn.Sequential(nn.Linear(latent, hidden), nn.ReLU(), nn.Linear(hidden, size))
        self.latent = latent

    def execute(self, x):
        both = self.encode(x)
        mean, logvar = both[:, : self.latent], both[:, self.latent :]
        z = Reparameterize.apply(mean, logvar, jt.randn(mean.shape).stop_grad())
        return self.decode(z), mean, logvar


def loss_function(reconstructed, x, mean, logvar):
    mse = jt.mean(jt.sqr(reconstructed - x).sum(1))
    kld = -0.5 * jt.mean((1 + logvar - mean.sqr() - logvar.exp()).sum(dim=1))
    return mse + 0.02 * kld


rng = np.random.default_rng(0)
directions = rng.normal(size=(2, 8)).astype(np.float32)

# the gradients by hand are those that are found without it
mean, logvar, noise = jt.randn(3, 2), jt.randn(3, 2), jt.randn(3, 2)
by_hand = jt.grad(Reparameterize()(mean, logvar, noise).sqr(), [mean, logvar])
found = jt.grad((mean + jt.exp(logvar * 0.5) * noise).sqr(), [mean, logvar])
difference = max(np.abs((a - b).data).max() for a, b in zip(by_hand, found))

model = VAE()
optimizer = jt.optim.Adam(model.parameters(), lr=5e-3)
history = []
for step in range(150):
    x = jt.array(rng.normal(size=(64, 2)).astype(np.float32) @ directions)
    loss = loss_function(*model(x)[:1], x, *model(x)[1:])
    optimizer.zero_grad()
    optimizer.backward(loss)
    optimizer.step()
    history.append(float(loss))
print("loss", history[0], "->", history[-1])
