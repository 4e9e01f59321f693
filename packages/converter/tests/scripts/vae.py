"""A variational autoencoder; the noise comes from NumPy, so that it is the same everywhere."""
import numpy as np
import torch
import torch.utils.data
from torch import nn, optim
from torch.nn import functional as F

noise = np.random.RandomState(7)


class VAE(nn.Module):
    def __init__(self):
        super(VAE, self).__init__()
        self.fc1 = nn.Linear(36, 24)
        self.fc21 = nn.Linear(24, 3)
        self.fc22 = nn.Linear(24, 3)
        self.fc3 = nn.Linear(3, 24)
        self.fc4 = nn.Linear(24, 36)

    def encode(self, x):
        h1 = F.relu(self.fc1(x))
        return self.fc21(h1), self.fc22(h1)

    def reparameterize(self, mu, logvar):
        std = torch.exp(0.5 * logvar)
        eps = torch.from_numpy(noise.randn(*std.shape)).type_as(std)
        return mu + eps * std

    def decode(self, z):
        h3 = F.relu(self.fc3(z))
        return torch.sigmoid(self.fc4(h3))

    def forward(self, x):
        mu, logvar = self.encode(x.view(-1, 36))
        z = self.reparameterize(mu, logvar)
        return self.decode(z), mu, logvar


# Reconstruction + KL divergence losses summed over all elements and batch
def loss_function(recon_x, x, mu, logvar):
    BCE = F.binary_cross_entropy(recon_x, x.view(-1, 36), reduction="sum")
    KLD = -0.5 * torch.sum(1 + logvar - mu.pow(2) - logvar.exp())
    return BCE + KLD


class Squares(torch.utils.data.Dataset):
    """Pictures of bright squares."""

    def __init__(self, count):
        rng = np.random.RandomState(1)
        self.places = rng.randint(0, 3, (count, 2))

    def __len__(self):
        return len(self.places)

    def __getitem__(self, index):
        picture = np.zeros((1, 6, 6), np.float32)
        row, column = self.places[index]
        picture[0, row : row + 3, column : column + 3] = 1.0
        return picture, int(row)


dataset = Squares(40)
train_loader = torch.utils.data.DataLoader(dataset, batch_size=10, shuffle=False)
model = VAE()
for k, p in enumerate(model.parameters()):
    p.data = torch.from_numpy((np.random.RandomState(k).rand(*p.shape) - 0.5).astype("float32") * 0.5)
optimizer = optim.Adam(model.parameters(), lr=1e-2)

results = [float(len(dataset))]
for epoch in range(3):
    model.train()
    train_loss = 0
    for batch_idx, (data, _) in enumerate(train_loader):
        optimizer.zero_grad()
        recon_batch, mu, logvar = model(data)
        loss = loss_function(recon_batch, data, mu, logvar)
        loss.backward()
        train_loss += loss.item()
        optimizer.step()
    results.append(train_loss / len(train_loader.dataset))
