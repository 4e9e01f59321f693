"""The digits example: its data, and that a few steps make the loss fall."""

from __future__ import annotations

import hashlib
import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

import metafuse as mf

FOLDER = Path(__file__).parent.parent / "examples" / "mnist"


@pytest.fixture(scope="module")
def example():
    spec = importlib.util.spec_from_file_location("mnist_example", FOLDER / "train.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


def test_digits_file(example):
    with np.load(FOLDER / "digits.npz") as archive:
        assert archive["images"].shape == (10000, 28, 28)
        assert archive["images"].dtype == np.uint8
        classes = np.bincount(archive["labels"][9000:], minlength=10)
        assert len({hashlib.sha256(image.tobytes()).digest() for image in archive["images"]}) == 10000
    assert classes.min() > 60
    train, test = example.Digits(True, 50), example.Digits(False, 50)
    assert (len(train), len(test)) == (180, 20)
    x, y = next(iter(train))
    assert (x.shape, x.dtype, y.dtype) == ((50, 1, 28, 28), "float32", "int32")
    assert 0 <= x.numpy().min() < x.numpy().max() <= 1


def test_a_few_steps(example):
    mf.set_global_seed(1)
    data = example.Digits(True, 16)
    data.set_attrs(total_len=64)
    model = example.Model()
    optimizer = mf.nn.SGD(model.parameters(), 0.02, 0.9, 1e-4)
    first = example.train_epoch(model, data, optimizer, 1)
    second = example.train_epoch(model, data, optimizer, 2)
    third = example.train_epoch(model, data, optimizer, 3)
    assert 1.5 < first < 3.5
    assert third < second < first
    assert example.test(model, data) > 0.4
    state = model.state_dict("numpy")
    assert abs(state["bn.running_mean"]).max() > 0
