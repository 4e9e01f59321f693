"""DCGAN with spectral-free discriminator, R1 penalty, an EMA generator, hinge and least-squares losses; then knowledge distillation."""
from __future__ import print_function
import itertools

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
import torch.optim as optim


class Generator(nn.Module):
    def __init__(self, nz=8, ngf=4, nc=1):
        super(Generator, self).__init__()
        self.main = nn.Sequential(
            # input is Z, going into a convolution
            nn.ConvTranspose2d(nz, ngf * 2, 4, 1, 0, bias=False),
            nn.BatchNorm2d(ngf * 2),
            nn.ReLU(True),
            nn.ConvTranspose2d(ngf * 2, ngf, 4, 2, 1, bias=False),
            nn.BatchNorm2d(ngf),
            nn.ReLU(True),
            nn.ConvTranspose2d(ngf, nc, 4, 2, 1, bias=False),
            nn.Tanh(),
        )

    def forward(self, input):
        return self.main(input)


class Discriminator(nn.Module):
    def __init__(self, nc=1, ndf=4):
        super(Discriminator, self).__init__()
        self.main = nn.Sequential(
            nn.Conv2d(nc, ndf, 4, 2, 1, bias=False),
            nn.LeakyReLU(0.2, inplace=True),
            nn.Conv2d(ndf, ndf * 2, 4, 2, 1, bias=False),
            nn.InstanceNorm2d(ndf * 2, affine=True),
            nn.LeakyReLU(0.2, inplace=True),
            nn.Conv2d(ndf * 2, 1, 4, 1, 0, bias=False),
        )

    def forward(self, input):
        return self.main(input).view(-1, 1).squeeze(1)


def weights_init(m):
    classname = type(m).__name__
    if "Conv" in classname:
        torch.nn.init.normal_(m.weight, 0.0, 0.02)
    elif "Norm" in classname:
        torch.nn.init.normal_(m.weight, 1.0, 0.02)
        torch.nn.init.zeros_(m.bias)


def fixed(net, seed=0):
    net.apply(weights_init)
    for k, (name, p) in enumerate(net.named_parameters()):
        p.data.copy_(torch.tensor(np.random.RandomState(k + seed).uniform(-0.3, 0.3, p.shape), dtype=torch.float32))
    return net


def set_requires_grad(nets, requires_grad=False):
    """Avoid unnecessary gradients."""
    if not isinstance(nets, list):
        nets = [nets]
    for net in nets:
        if net is not None:
            for param in net.parameters():
                param.requires_grad = requires_grad


@torch.no_grad()
def accumulate(target, source, decay=0.5):
    for p, q in zip(target.parameters(), source.parameters()):
        p.mul_(decay).add_(q, alpha=1 - decay)


class GANLoss(nn.Module):
    def __init__(self, gan_mode, target_real_label=1.0, target_fake_label=0.0):
        super(GANLoss, self).__init__()
        self.register_buffer("real_label", torch.tensor(target_real_label))
        self.register_buffer("fake_label", torch.tensor(target_fake_label))
        self.gan_mode = gan_mode
        if gan_mode == "lsgan":
            self.loss = nn.MSELoss()
        elif gan_mode == "vanilla":
            self.loss = nn.BCEWithLogitsLoss()
        elif gan_mode in ["wgangp", "hinge"]:
            self.loss = None
        else:
            raise NotImplementedError("gan mode %s not implemented" % gan_mode)

    def get_target_tensor(self, prediction, target_is_real):
        if target_is_real:
            target_tensor = self.real_label
        else:
            target_tensor = self.fake_label
        return target_tensor.expand_as(prediction)

    def __call__(self, prediction, target_is_real, for_discriminator=True):
        if self.gan_mode in ["lsgan", "vanilla"]:
            target_tensor = self.get_target_tensor(prediction, target_is_real)
            return self.loss(prediction, target_tensor)
        if self.gan_mode == "hinge" and for_discriminator:
            if target_is_real:
                return F.relu(1.0 - prediction).mean()
            return F.relu(1.0 + prediction).mean()
        return -prediction.mean() if target_is_real else prediction.mean()


def cal_gradient_penalty(netD, real_data, fake_data, alpha, lambda_gp=10.0):
    interpolatesv = alpha * real_data + ((1 - alpha) * fake_data)
    interpolatesv.requires_grad_(True)
    disc_interpolates = netD(interpolatesv)
    gradients = torch.autograd.grad(
        outputs=disc_interpolates,
        inputs=interpolatesv,
        grad_outputs=torch.ones(disc_interpolates.size()).to(real_data.device),
        create_graph=True,
        retain_graph=True,
        only_inputs=True,
    )
    gradients = gradients[0].view(real_data.size(0), -1)
    return (((gradients + 1e-16).norm(2, dim=1) - 1.0) ** 2).mean() * lambda_gp


device = torch.device("cpu")
rng = np.random.RandomState(5)
results = []
for mode in ("lsgan", "vanilla", "hinge", "wgangp"):
    netG, netD = fixed(Generator()).to(device), fixed(Discriminator(), 50).to(device)
    ema = fixed(Generator()).to(device)
    criterion = GANLoss(mode).to(device)
    optimizer_D = optim.RMSprop(netD.parameters(), lr=5e-4, centered=True)
    optimizer_G = optim.Adam(itertools.chain(netG.parameters()), lr=2e-3, betas=(0.5, 0.999))
    for step in range(4):
        real = torch.from_numpy(rng.randn(4, 1, 16, 16).astype(np.float32))
        noise = torch.tensor(rng.randn(4, 8, 1, 1), dtype=torch.float)
        alpha = torch.from_numpy(rng.rand(4, 1, 1, 1).astype(np.float32))
        # ---------------------
        #  Train Discriminator
        # ---------------------
        fake = netG(noise)
        set_requires_grad(netD, True)
        optimizer_D.zero_grad()
        loss_D = (criterion(netD(fake.detach()), False) + criterion(netD(real), True)) * 0.5
        if mode == "wgangp":
            loss_D = loss_D + cal_gradient_penalty(netD, real, fake.detach(), alpha)
        loss_D.backward()
        optimizer_D.step()
        if mode == "wgangp":
            for p in netD.parameters():
                p.data.clamp_(-0.2, 0.2)
        # -----------------
        #  Train Generator
        # -----------------
        set_requires_grad([netD], False)
        optimizer_G.zero_grad()
        loss_G = criterion(netD(fake), True, for_discriminator=False)
        loss_G += 0.1 * F.l1_loss(fake, real, reduction="mean") + 0.01 * F.smooth_l1_loss(fake, real, reduction="sum", beta=0.5)
        loss_G.backward()
        optimizer_G.step()
        accumulate(ema, netG)
        results.extend([loss_D.item(), loss_G.item()])
    set_requires_grad(netD, True)
    ema.eval()
    with torch.no_grad():
        results.append(ema(noise).abs().mean().item())

# -- distillation: a student follows a teacher's probabilities
teacher = nn.Sequential(nn.Flatten(), nn.Linear(16, 12), nn.ReLU(), nn.Linear(12, 3))
student = nn.Sequential(nn.Flatten(start_dim=1), nn.Linear(in_features=16, out_features=3))
for net in (teacher, student):
    fixed(net)
optimizer = optim.SGD([{"params": student[1].weight}, {"params": [student[1].bias], "lr": 0.01}], lr=0.1, momentum=0.9, nesterov=True)
scheduler = optim.lr_scheduler.MultiStepLR(optimizer, milestones=[2, 4], gamma=0.1)
x = torch.from_numpy(rng.randn(8, 4, 4).astype(np.float32))
y = torch.from_numpy(rng.randint(0, 3, 8))
T = 2.0
kl = nn.KLDivLoss(size_average=False)
for step in range(5):
    with torch.no_grad():
        soft = F.softmax(teacher(x) / T, dim=-1)
    logits = student(x)
    loss = kl(F.log_softmax(logits / T, dim=-1), soft) * T * T / x.size(0)
    loss = loss + F.cross_entropy(logits, soft) + nn.CrossEntropyLoss(reduction="none")(logits, y).max()
    loss = loss + nn.HuberLoss(delta=0.5)(logits, torch.zeros_like(logits)) + nn.SmoothL1Loss(reduction="none", beta=2.0)(logits, soft).sum()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    scheduler.step()
    results += [loss.item(), optimizer.param_groups[1]["lr"]]
print(["%.5f" % v for v in results])
