"""Two networks and two optimizers: a generator learns where the centre of some points is."""
import numpy as np
import torch
from torch import nn, optim
from torch.autograd import Variable


def weights_init(m):
    classname = m.__class__.__name__
    if classname.find("Linear") != -1:
        values = np.random.RandomState(m.weight.shape[0]).randn(*m.weight.size()).astype("float32")
        m.weight.data.copy_(torch.from_numpy(values * 0.3))
        nn.init.constant_(m.bias.data, 0)


netG = nn.Sequential(nn.Linear(4, 16), nn.ReLU(True), nn.Linear(16, 2))
netD = nn.Sequential(
    nn.Linear(2, 16),
    nn.LeakyReLU(0.2, inplace=True),
    nn.Linear(16, 1),  # no Sigmoid: the loss has it
)
netG.apply(weights_init)
netD.apply(weights_init)

criterion = nn.BCEWithLogitsLoss()
real_label, fake_label = 1.0, 0.0
optimizerD = optim.Adam(netD.parameters(), lr=0.01, betas=(0.5, 0.999))
optimizerG = optim.Adam(netG.parameters(), lr=0.01, betas=(0.5, 0.999))

rng = np.random.RandomState(0)
results = []
for i in range(12):
    real = Variable(torch.FloatTensor(rng.randn(32, 2) * 0.3 + np.array([2.0, -1.0])))
    noise = torch.from_numpy(rng.randn(32, 4).astype("float32"))
    ############################
    # (1) Update D network: maximize log(D(x)) + log(1 - D(G(z)))
    ###########################
    netD.zero_grad()
    label = torch.full((real.size(0),), real_label, dtype=torch.float)
    output = netD(real).view(-1)
    errD_real = criterion(output, label)
    errD_real.backward()
    D_x = torch.sigmoid(output).mean().item()

    fake = netG(noise)
    label.fill_(fake_label)
    output = netD(fake.detach()).view(-1)
    errD_fake = criterion(output, label)
    errD_fake.backward()
    errD = errD_real + errD_fake
    optimizerD.step()

    ############################
    # (2) Update G network: maximize log(D(G(z)))
    ###########################
    netG.zero_grad()
    label.fill_(real_label)  # fake labels are real for generator cost
    output = netD(fake).view(-1)
    errG = criterion(output, label)
    errG.backward()
    optimizerG.step()
    results += [errD.item(), errG.item(), D_x]

# a gradient penalty
real = torch.from_numpy(rng.randn(8, 2).astype("float32"))
real.requires_grad_()
score = netD(real)
(gradients,) = torch.autograd.grad(outputs=score, inputs=real, grad_outputs=torch.ones_like(score), create_graph=True, retain_graph=True)
penalty = ((gradients.norm(2, dim=1) - 1) ** 2).mean()
loss = penalty + 0.1 * score.mean()
optimizerD.zero_grad()
loss.backward()
optimizerD.step()
results.append(penalty.item())
results.append(netD(real.detach()).sum().item())
