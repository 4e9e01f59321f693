"""Networks of metafuse-models against the same networks written with ``torch.nn``: names, values, gradients."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

import metafuse as mf
from metafuse import nn

torch = pytest.importorskip("torch")
models = pytest.importorskip("metafuse_models")
sys.path.insert(0, str(Path(__file__).parent))

import torch_networks as T  # noqa: E402 - beside this file

CLASSES = 7

#: constructor -> (the oracle, size of images)
NETWORKS = {
    "alexnet": (lambda n: T.alexnet(n), 95),
    "vgg11": (lambda n: T.vgg(n, "64 M 128 M 256 256 M 512 512 M 512 512 M", False), 96),
    "vgg13_bn": (lambda n: T.vgg(n, "64 64 M 128 128 M 256 256 M 512 512 M 512 512 M", True), 64),
    "vgg16": (lambda n: T.vgg(n, "64 64 M 128 128 M 256 256 256 M 512 512 512 M 512 512 512 M", False), 32),
    "resnet18": (lambda n: T.resnet(n, [2, 2, 2, 2], 1), 64),
    "resnet50": (lambda n: T.resnet(n, [3, 4, 6, 3]), 64),
    "resnext50_32x4d": (lambda n: T.resnet(n, [3, 4, 6, 3], groups=32, width=4), 64),
    "wide_resnet50_2": (lambda n: T.resnet(n, [3, 4, 6, 3], width=128), 64),
    "resnet26": (lambda n: T.resnet(n, [1, 2, 4, 1]), 64),
    "res2net50": (lambda n: T.res2net(n, [3, 4, 6, 3], 26, 4), 64),
    "squeezenet1_0": (lambda n: T.squeezenet(n, (96, 7), "M 16 16 32 M 32 48 48 64 M 64"), 63),
    "squeezenet1_1": (lambda n: T.squeezenet(n, (64, 3), "M 16 16 M 32 32 M 48 48 64 64"), 65),
    "mobilenet_v2": (T.mobilenet_v2, 64),
    "shufflenet_v2_x1_0": (lambda n: T.shufflenet_v2(n, [24, 116, 232, 464, 1024]), 64),
    "shufflenet_v2_x0_5": (lambda n: T.shufflenet_v2(n, [24, 48, 96, 192, 1024]), 64),
    "mnasnet1_0": (lambda n: T.mnasnet(n, [32, 16, 24, 40, 80, 96, 192, 320]), 64),
    "mnasnet0_75": (lambda n: T.mnasnet(n, [24, 16, 24, 32, 64, 72, 144, 240]), 64),
    "densenet121": (lambda n: T.densenet(n, 32, (6, 12, 24, 16), 64), 64),
    "densenet161": (lambda n: T.densenet(n, 48, (6, 12, 36, 24), 96), 64),
    "googlenet": (T.GoogLeNet, 64),
    "inception_v3": (T.InceptionV3, 107),
}


def pair(name):
    """Our network and the oracle with the same weights: the oracle's load is strict, so names and shapes agree."""
    make_theirs, size = NETWORKS[name]
    torch.manual_seed(0)
    theirs = make_theirs(CLASSES)
    generator = np.random.default_rng(0)
    with torch.no_grad():
        for key, value in theirs.state_dict().items():
            if value.dim() == 1 and value.is_floating_point():  # norms and biases do not begin at anything special
                noise = torch.from_numpy(generator.uniform(0.0, 0.5, value.shape).astype(np.float32))
                value += noise / 4 if key.endswith(("bias", "mean")) else noise
    ours = getattr(models, name)(num_classes=CLASSES)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # names that only one side has would be a warning
        ours.load_state_dict(theirs.state_dict())
    theirs.load_state_dict(ours.state_dict(to="torch"), strict=True)
    x = generator.standard_normal((2, 3, size, size)).astype(np.float32)
    return ours, theirs, x


def mode(ours, theirs, train):
    """Both in this mode, but without dropout, which draws its own numbers on each side."""
    ours.train() if train else ours.eval()
    theirs.train(train)
    for module in ours.modules():
        if isinstance(module, nn.Dropout):
            module.is_train = False
    for module in theirs.modules():
        if isinstance(module, torch.nn.Dropout):
            module.eval()


def close(found, expected, bound, what):
    """The largest difference, relative to the largest value."""
    assert found.shape == expected.shape
    scale = np.abs(expected).max()
    assert scale > 0
    np.testing.assert_array_less(np.abs(found - expected).max() / scale, bound, err_msg=what)


def in_order(result):
    return list(result) if isinstance(result, tuple) else [result]


@pytest.mark.parametrize("name", NETWORKS)
def test_forward(name):
    ours, theirs, x = pair(name)
    ours.float64(), theirs.double()
    x = x.astype(np.float64)
    for train in (False, True):
        if name == "inception_v3" and train:
            continue  # its auxiliary head needs larger images: below
        mode(ours, theirs, train)
        found, expected = in_order(ours(mf.array(x))), in_order(theirs(torch.from_numpy(x)))
        assert len(found) == len(expected)
        for k, (a, b) in enumerate(zip(found, expected)):
            close(a.numpy(), b.detach().numpy(), 1e-9, f"{name}, result {k}, train={train}")
