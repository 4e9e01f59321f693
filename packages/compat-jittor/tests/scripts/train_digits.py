"""Train a small convolutional network on drawn digits."""

import jittor as jt
import numpy as np
from jittor import Module, nn
from jittor.dataset import Dataset

jt.flags.use_cuda = jt.has_cuda
jt.set_global_seed(1)


class Strokes(Dataset):
    """Images of 8 x 8 with a horizontal, vertical or diagonal stroke."""

    def __init__(self, count, seed):
        super().__init__()
        rng = np.random.default_rng(seed)
        self.images = rng.normal(0, 0.2, (count, 1, 8, 8)).astype("float32")
        self.labels = rng.integers(0, 3, count)
        for image, label, place in zip(self.images, self.labels, rng.integers(1, 7, count)):
            if label == 0:
                image[0, place] += 1
            elif label == 1:
                image[0, :, place] += 1
            else:
                image[0][np.diag_indices(8)] += 1
        self.set_attrs(total_len=count)

    def __getitem__(self, k):
        return self.images[k], int(self.labels[k])


class Model(Module):
    def __init__(self):
        super(Model, self).__init__()
        self.conv1 = nn.Conv(1, 8, 3, 1, padding=1)
        self.bn = nn.BatchNorm(8)
        self.max_pool = nn.Pool(2, 2)
        self.relu = nn.Relu()
        self.fc1 = nn.Linear(8 * 16, 32)
        self.fc2 = nn.Linear(32, 3)

    def execute(self, x):
        x = self.conv1(x)
        x = self.bn(x)
        x = self.relu(x)
        x = self.max_pool(x)
        x = jt.reshape(x, [x.shape[0], -1])
        x = self.fc1(x)
        x = self.relu(x)
        x = self.fc2(x)
        return x


def train(model, train_loader, optimizer, epoch):
    model.train()
    train_loss = 0
    for batch_idx, (inputs, targets) in enumerate(train_loader):
        outputs = model(inputs)
        loss = nn.cross_entropy_loss(outputs, targets)
        optimizer.step(loss)
        train_loss += loss
        if batch_idx % 4 == 0:
            print(f"Train epoch: {epoch} [{batch_idx}/{len(train_loader)}]\tLoss: {loss.data[0]:.6f}")
    return train_loss.item() / len(train_loader)


def test(model, val_loader):
    model.eval()
    total_correct = 0
    total_num = 0
    for inputs, targets in val_loader:
        batch_size = inputs.shape[0]
        outputs = model(inputs)
        pred = np.argmax(outputs.data, axis=1)
        correct = np.sum(targets.data == pred)
        total_correct += correct
        total_num += batch_size
    return total_correct / total_num


train_loader = Strokes(256, 0).set_attrs(batch_size=32, shuffle=True)
val_loader = Strokes(64, 1).set_attrs(batch_size=32, shuffle=False)

model = Model()
learning_rate = 0.05
momentum = 0.9
weight_decay = 1e-4
optimizer = nn.SGD(model.parameters(), learning_rate, momentum, weight_decay)

losses = [train(model, train_loader, optimizer, epoch) for epoch in range(3)]
accuracy = test(model, val_loader)
print(f"Test Acc = {accuracy:.4f}")
