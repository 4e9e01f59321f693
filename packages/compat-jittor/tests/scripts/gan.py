"""Two networks and two optimizers: learn to draw points from a normal distribution."""

import jittor as jt
import numpy as np
from jittor import init, nn

jt.set_global_seed(0)


def weights_init_normal(m):
    classname = m.__class__.__name__
    if classname.find("Linear") != -1:
        init.gauss_(m.weight, 0.0, 0.2)
    elif classname.find("BatchNorm") != -1:
        init.gauss_(m.weight, 1.0, 0.02)
        init.constant_(m.bias, 0.0)


class Generator(nn.Module):
    def __init__(self, latent):
        super(Generator, self).__init__()

        def block(in_feat, out_feat, normalize=True):
            layers = [nn.Linear(in_feat, out_feat)]
            if normalize:
                layers.append(nn.BatchNorm1d(out_feat, 0.8))
            layers.append(nn.LeakyReLU(scale=0.2))
            return layers

        self.model = nn.Sequential(*block(latent, 16, normalize=False), *block(16, 16), nn.Linear(16, 2))

    def execute(self, z):
        return self.model(z)


class Discriminator(nn.Module):
    def __init__(self):
        super(Discriminator, self).__init__()
        self.model = nn.Sequential(
            nn.Linear(2, 32),
            nn.LeakyReLU(0.2),
            nn.Linear(32, 32),
            nn.LeakyReLU(0.2),
            nn.Linear(32, 1),
            nn.Sigmoid(),
        )

    def execute(self, points):
        return self.model(points)


adversarial_loss = nn.BCELoss()
generator = Generator(4)
discriminator = Discriminator()
generator.apply(weights_init_normal)
discriminator.apply(weights_init_normal)

optimizer_G = nn.Adam(generator.parameters(), lr=0.005, betas=(0.5, 0.999))
optimizer_D = nn.Adam(discriminator.parameters(), lr=0.005, betas=(0.5, 0.999))

rng = np.random.default_rng(0)
for step in range(300):
    real_imgs = jt.array(rng.normal([2.0, -1.0], 0.3, (64, 2)).astype(np.float32))
    valid = jt.ones([real_imgs.shape[0], 1]).stop_grad()
    fake = jt.zeros([real_imgs.shape[0], 1]).stop_grad()

    z = jt.array(rng.normal(0, 1, (real_imgs.shape[0], 4)).astype(np.float32))
    gen_imgs = generator(z)
    g_loss = adversarial_loss(discriminator(gen_imgs), valid)
    optimizer_G.step(g_loss)

    real_loss = adversarial_loss(discriminator(real_imgs), valid)
    fake_loss = adversarial_loss(discriminator(gen_imgs.detach()), fake)
    d_loss = (real_loss + fake_loss) / 2
    optimizer_D.step(d_loss)
    if step % 100 == 0:
        print("[%d] [D loss: %f] [G loss: %f]" % (step, d_loss.numpy()[0], g_loss.numpy()[0]))

generator.eval()
with jt.no_grad():
    drawn = generator(jt.array(rng.normal(0, 1, (512, 4)).astype(np.float32))).numpy()
center = drawn.mean(0)
print("center", center)
