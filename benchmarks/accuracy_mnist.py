"""Accuracy of the digits example in metafuse and in PyTorch, over several seeds.

    python benchmarks/accuracy_mnist.py --seeds 5 --epochs 1

Both train the network of ``examples/mnist/train.py`` on the same digits in the same order per seed, with the same
hyper-parameters and the same distribution of first weights (each with its own generator). The table has the test accuracy of each
run, mean and standard deviation, and whether metafuse's mean lies within PyTorch's range over the seeds.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from types import ModuleType
from typing import Any

import numpy as np

import peers


def load_digits(example: ModuleType, limit: int | None) -> tuple[np.ndarray, ...]:
    """Training images and labels, test images and labels."""
    train, test = example.Digits(True), example.Digits(False)
    return train.images[:limit], train.labels[:limit], test.images, test.labels


def batches(count: int, size: int, epochs: int, seed: int) -> list[np.ndarray]:
    """The indices of every batch of a run: the same for both frameworks."""
    generator = np.random.default_rng(seed)
    return [
        part
        for _ in range(epochs)
        for part in np.split(generator.permutation(count), range(size, count, size))
    ]


def run_metafuse(example: ModuleType, digits: tuple[np.ndarray, ...], options: Any, seed: int) -> float:
    """Train and answer the test accuracy."""
    import metafuse as mf

    images, labels, test_images, test_labels = digits
    mf.set_global_seed(seed)
    model = example.Model()
    optimizer = mf.nn.SGD(model.parameters(), options.lr, options.momentum, options.weight_decay)
    model.train()
    for part in batches(len(labels), options.batch_size, options.epochs, seed):
        loss = mf.nn.cross_entropy_loss(model(mf.array(images[part])), mf.array(labels[part]))
        optimizer.step(loss)
    model.eval()
    right = 0
    with mf.no_grad():
        for begin in range(0, len(test_labels), 500):
            guess, _ = model(mf.array(test_images[begin : begin + 500])).argmax(1)
            right += int((guess.numpy() == test_labels[begin : begin + 500]).sum())
    return right / len(test_labels)


def run_torch(digits: tuple[np.ndarray, ...], options: Any, seed: int) -> float:
    """Train and answer the test accuracy."""
    import torch

    images, labels = torch.from_numpy(digits[0]), torch.from_numpy(digits[1]).long()
    torch.manual_seed(seed)
    model = peers.digits()  # PyTorch's default first weights have the same distribution
    optimizer = torch.optim.SGD(
        model.parameters(), options.lr, momentum=options.momentum, weight_decay=options.weight_decay
    )
    model.train()
    for part in batches(len(labels), options.batch_size, options.epochs, seed):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(images[part]), labels[part]).backward()
        optimizer.step()
    model.eval()
    with torch.no_grad():
        guess = torch.cat([model(part) for part in torch.from_numpy(digits[2]).split(500)]).argmax(1)
    return float((guess.numpy() == digits[3]).mean())


def main(argv: list[str] | None = None) -> int:
    """Run everything; 0 if metafuse's mean lies within PyTorch's range."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--lr", type=float, default=0.02)
    parser.add_argument("--momentum", type=float, default=0.9)
    parser.add_argument("--weight-decay", type=float, default=1e-4)
    parser.add_argument("--limit", type=int, default=None, help="use only so many training digits")
    options = parser.parse_args(argv)
    example = peers.example()
    digits = load_digits(example, options.limit)
    scores: dict[str, list[float]] = {"PyTorch": [], "metafuse": []}
    print("seed   PyTorch  metafuse")
    for seed in range(1, options.seeds + 1):
        begin = time.perf_counter()
        scores["PyTorch"].append(100 * run_torch(digits, options, seed))
        middle = time.perf_counter()
        scores["metafuse"].append(100 * run_metafuse(example, digits, options, seed))
        end = time.perf_counter()
        print(
            f"{seed:4d}  {scores['PyTorch'][-1]:7.2f}%  {scores['metafuse'][-1]:7.2f}%"
            f"   ({middle - begin:.1f} s, {end - middle:.1f} s)",
            flush=True,
        )
    mean = {name: statistics.mean(values) for name, values in scores.items()}
    spread = {name: statistics.stdev(values) if len(values) > 1 else 0.0 for name, values in scores.items()}
    print(f"mean  {mean['PyTorch']:7.2f}%  {mean['metafuse']:7.2f}%")
    print(f"std   {spread['PyTorch']:7.2f}   {spread['metafuse']:7.2f}")
    low, high = min(scores["PyTorch"]), max(scores["PyTorch"])
    inside = low <= mean["metafuse"] <= high
    print(f"metafuse's mean is {'within' if inside else 'OUTSIDE'} PyTorch's range {low:.2f}% .. {high:.2f}%")
    return 0 if inside else 1


if __name__ == "__main__":
    sys.exit(main())
