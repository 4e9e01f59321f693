"""Train a small convolutional network on handwritten digits.

    python examples/mnist/train.py                  # 9,000 digits beside this file, 1,000 to test
    python examples/mnist/train.py --full           # the full MNIST database, downloaded once

``Model`` and ``Digits`` are what you would write for a network and data of your own.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

import metafuse as mf
from metafuse import nn
from metafuse.data import MNIST, Dataset
from metafuse.nn import Module

DIGITS = Path(__file__).with_name("digits.npz")
TRAIN_COUNT = 9000


class Model(Module):
    """Two convolutions, one pooling, two linear layers; 28x28 images in, ten scores out."""

    def __init__(self) -> None:
        self.conv1 = nn.Conv(1, 32, 3, 1)
        self.relu1 = nn.Relu()
        self.conv2 = nn.Conv(32, 64, 3, 1)
        self.bn = nn.BatchNorm(64)
        self.relu2 = nn.Relu()
        self.max_pool = nn.Pool(2, 2)
        self.fc1 = nn.Linear(64 * 12 * 12, 256)
        self.relu3 = nn.Relu()
        self.fc2 = nn.Linear(256, 10)

    def execute(self, x: mf.Var) -> mf.Var:
        x = self.relu1(self.conv1(x))
        x = self.relu2(self.bn(self.conv2(x)))
        x = self.max_pool(x)
        x = mf.reshape(x, [x.shape[0], -1])
        return self.fc2(self.relu3(self.fc1(x)))


class Digits(Dataset):
    """The digits beside this file: pairs of a float32 image [1, 28, 28] in 0..1 and a number."""

    def __init__(self, train: bool = True, batch_size: int = 64, shuffle: bool = False) -> None:
        super().__init__()
        part = slice(None, TRAIN_COUNT) if train else slice(TRAIN_COUNT, None)
        with np.load(DIGITS) as archive:
            self.images = archive["images"][part][:, None].astype(np.float32) / 255
            self.labels = archive["labels"][part].astype(np.int32)
        self.set_attrs(batch_size=batch_size, total_len=len(self.labels), shuffle=shuffle)

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        return self.images[index], int(self.labels[index])


def progress(batches: Any, total: int, text: str) -> Any:
    """``batches`` with a progress bar, if there is tqdm; in a log it moves seldom."""
    try:
        from tqdm import tqdm
    except ImportError:
        return batches
    return tqdm(batches, total=total, desc=text, mininterval=0.1 if sys.stderr.isatty() else 5.0)


def train_epoch(model: Model, data: Dataset, optimizer: Any, epoch: int) -> float:
    """One pass over the data; prints and answers the mean loss."""
    model.train()
    bar = progress(data, len(data), f"epoch {epoch}")
    total, images, begin = 0.0, 0, time.perf_counter()
    for step, (inputs, targets) in enumerate(bar):
        loss = nn.cross_entropy_loss(model(inputs), targets)
        optimizer.step(loss)
        total += loss.item() * inputs.shape[0]
        images += inputs.shape[0]
        if step % 10 == 0 and hasattr(bar, "set_postfix"):
            speed = images / (time.perf_counter() - begin)
            # A refresh of its own would show the count of the last one, and keep the bar from moving.
            bar.set_postfix(loss=f"{loss.item():.4f}", images_per_s=f"{speed:.0f}", refresh=False)
    seconds = time.perf_counter() - begin
    print(
        f"epoch {epoch}: loss {total / images:.4f}, {images / seconds:.0f} images/s, {seconds:.1f} s",
        flush=True,
    )
    return total / images


def test(model: Model, data: Dataset) -> float:
    """Share of digits recognised."""
    model.eval()
    right = count = 0
    with mf.no_grad():
        for inputs, targets in data:
            guess, _ = model(inputs).argmax(1)
            right += int((guess == targets).sum().item())
            count += inputs.shape[0]
    return right / count


def main(argv: list[str] | None = None) -> float:
    """Train and test; answers the accuracy on the test digits."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--lr", type=float, default=0.02)
    parser.add_argument("--momentum", type=float, default=0.9)
    parser.add_argument("--weight-decay", type=float, default=1e-4)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--full", action="store_true", help="use the full MNIST database")
    parser.add_argument("--data", default=None, help="with --full: the folder of the four IDX files")
    options = parser.parse_args(argv)

    mf.set_global_seed(options.seed)
    if options.full:
        train_data: Dataset = MNIST(options.data, True, batch_size=options.batch_size, shuffle=True)
        test_data: Dataset = MNIST(options.data, False, batch_size=options.batch_size)
    else:
        train_data = Digits(True, options.batch_size, shuffle=True)
        test_data = Digits(False, options.batch_size)
    model = Model()
    optimizer = nn.SGD(model.parameters(), options.lr, options.momentum, options.weight_decay)
    for epoch in range(1, options.epochs + 1):
        train_epoch(model, train_data, optimizer, epoch)
    accuracy = test(model, test_data)
    print(f"test accuracy {100 * accuracy:.2f} %")
    return accuracy


if __name__ == "__main__":
    main()
