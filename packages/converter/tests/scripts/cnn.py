"""A small convolutional network on made-up images: loaders, a schedule, a checkpoint, accuracy."""
import argparse
import os
import tempfile
import zlib

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
import torch.optim as optim
from torch.optim.lr_scheduler import StepLR
from torch.utils.data import DataLoader, TensorDataset

torch.manual_seed(0)
torch.backends.cudnn.benchmark = True  # faster, they say
device = torch.device("cuda" if torch.cuda.is_available() else "cpu")


class Net(nn.Module):
    def __init__(self, classes=4):
        super(Net, self).__init__()
        self.conv1 = nn.Conv2d(1, 8, 3, 1)
        self.conv2 = nn.Conv2d(8, 16, kernel_size=3, stride=1, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(16)
        self.dropout = nn.Dropout(0.0)
        self.fc1 = nn.Linear(16 * 5 * 5, 32)  # 5 = (12 - 2) / 2
        self.fc2 = nn.Linear(32, classes)

    def forward(self, x):
        x = F.relu(self.conv1(x), inplace=True)
        x = F.max_pool2d(x, 2)
        x = F.leaky_relu(self.bn2(self.conv2(x)), negative_slope=0.1)
        x = torch.flatten(x, 1)
        x = self.dropout(F.relu(self.fc1(x)))
        return F.log_softmax(self.fc2(x), dim=1)


def images(count, seed):
    rng = np.random.RandomState(seed)
    labels = rng.randint(0, 4, count)
    pictures = rng.randn(count, 1, 12, 12).astype("float32") * 0.3
    for picture, label in zip(pictures, labels):
        row, column = divmod(int(label), 2)
        picture[0, 6 * row : 6 * row + 6, 6 * column : 6 * column + 6] += 1.0
    return TensorDataset(torch.from_numpy(pictures), torch.tensor(labels, dtype=torch.long))


def fill(model):
    """First values that do not depend on anybody's random numbers."""
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "running" in name:
                continue
            rng = np.random.RandomState(zlib.crc32(name.encode()) % 1000)
            bound = 1.0 / np.sqrt(max(1, int(np.prod(p.shape[1:]))))
            if not name.startswith("bn"):
                p.copy_(torch.from_numpy(rng.uniform(-bound, bound, tuple(p.shape)).astype("float32")))


def train(args, model, device, train_loader, optimizer, epoch):
    model.train()
    for batch_idx, (data, target) in enumerate(train_loader):
        data, target = data.to(device), target.to(device)
        optimizer.zero_grad()
        output = model(data)
        loss = F.nll_loss(output, target)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        if batch_idx % args.log_interval == 0:
            print("epoch {} [{}/{}] loss {:.4f}".format(epoch, batch_idx * len(data), len(train_loader.dataset), loss.item()))


def test(model, device, test_loader):
    model.eval()
    test_loss, correct = 0, 0
    with torch.no_grad():
        for data, target in test_loader:
            data, target = data.to(device), target.to(device)
            output = model(data)
            test_loss += F.nll_loss(output, target, reduction="sum").item()  # sum up batch loss
            pred = output.argmax(dim=1, keepdim=True)  # the most probable class
            correct += pred.eq(target.view_as(pred)).sum().item()
            _, again = torch.max(output.data, 1)
            assert (again == target).sum().item() <= len(data)
    return test_loss / len(test_loader.dataset), correct / len(test_loader.dataset)


parser = argparse.ArgumentParser()
parser.add_argument("--epochs", type=int, default=3)
parser.add_argument("--log-interval", type=int, default=2)
args = parser.parse_args([])

losses = []
train_loader = DataLoader(images(64, 0), batch_size=16, shuffle=False, num_workers=0, pin_memory=True)
test_loader = DataLoader(images(32, 1), batch_size=8)
model = Net().to(device)
fill(model)
optimizer = optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4)
scheduler = StepLR(optimizer, step_size=1, gamma=0.7)
rates = []
for epoch in range(1, args.epochs + 1):
    train(args, model, device, train_loader, optimizer, epoch)
    result = test(model, device, test_loader)
    rates.append(optimizer.param_groups[0]["lr"])
    scheduler.step()
    rates.append(scheduler.get_last_lr()[0])

path = os.path.join(tempfile.mkdtemp(), "cnn.pth")
torch.save({"state_dict": model.state_dict(), "epoch": args.epochs}, path)
checkpoint = torch.load(path, map_location=device)
copy = Net().to(device)
copy.load_state_dict(checkpoint["state_dict"])
results = [*losses, *result, *rates, *test(copy, device, test_loader)]
