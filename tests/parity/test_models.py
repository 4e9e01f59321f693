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

import torch_inception as I  # noqa: E402 - beside this file
import torch_networks as T  # noqa: E402

CLASSES = 7

#: constructor -> (the oracle, size of images)
NETWORKS = {
    "alexnet": (lambda n: T.alexnet(n), 95),
    "vgg11": (lambda n: T.vgg(n, "64 M 128 M 256 256 M 512 512 M 512 512 M", False), 96),
    "vgg13_bn": (lambda n: T.vgg(n, "64 64 M 128 128 M 256 256 M 512 512 M 512 512 M", True), 64),
    "resnet18": (lambda n: T.resnet(n, [2, 2, 2, 2], 1), 64),
    "resnet50": (lambda n: T.resnet(n, [3, 4, 6, 3]), 64),
    "resnext50_32x4d": (lambda n: T.resnet(n, [3, 4, 6, 3], groups=32, width=4), 64),
    "wide_resnet50_2": (lambda n: T.resnet(n, [3, 4, 6, 3], width=128), 64),
    "res2net50": (lambda n: T.res2net(n, [3, 4, 6, 3], 26, 4), 64),
    "squeezenet1_1": (lambda n: T.squeezenet(n, (64, 3), "M 16 16 M 32 32 M 48 48 64 64"), 65),
    "mobilenet_v2": (T.mobilenet_v2, 64),
    "shufflenet_v2_x1_0": (lambda n: T.shufflenet_v2(n, [24, 116, 232, 464, 1024]), 64),
    "mnasnet1_0": (lambda n: T.mnasnet(n, [32, 16, 24, 40, 80, 96, 192, 320]), 64),
    "densenet121": (lambda n: T.densenet(n, 32, (6, 12, 24, 16), 64), 64),
    "googlenet": (I.GoogLeNet, 64),
    "inception_v3": (I.InceptionV3, 107),
}


@pytest.fixture(autouse=True)
def memory_is_given_back():
    """Networks of a hundred million parameters follow each other, in several processes at once."""
    yield
    mf.gc()


def pair(name, row=None, constructor=None):
    """Our network and the oracle with the same weights: the oracle's load is strict, so names and shapes agree."""
    make_theirs, size = row or NETWORKS[name]
    torch.manual_seed(0)
    theirs = make_theirs(CLASSES)
    generator = np.random.default_rng(0)
    with torch.no_grad():
        for key, value in theirs.state_dict().items():
            if (
                value.dim() == 1 and value.is_floating_point()
            ):  # norms and biases do not begin at anything special
                noise = torch.from_numpy(generator.uniform(0.0, 0.5, value.shape).astype(np.float32))
                value += noise / 4 if key.endswith(("bias", "mean")) else noise
    ours = (constructor or getattr(models, name))(num_classes=CLASSES)
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


def close(found, expected, bound, what, least=0.0):
    """The largest difference, relative to the largest value, but at least to ``least``."""
    assert found.shape == expected.shape
    scale = max(np.abs(expected).max(), least)
    assert scale > 0
    np.testing.assert_array_less(np.abs(found - expected).max() / scale, bound, err_msg=what)


def in_order(result):
    return list(result) if isinstance(result, tuple) else [result]


def compare(name, ours, theirs, x, bound):
    found, expected = in_order(ours(mf.array(x, x.dtype))), in_order(theirs(torch.from_numpy(x)))
    assert len(found) == len(expected)
    for k, (a, b) in enumerate(zip(found, expected, strict=True)):
        close(a.numpy(), b.detach().numpy(), bound, f"{name}, result {k}")


@pytest.mark.parametrize("name", NETWORKS)
def test_forward(name):
    ours, theirs, x = pair(name)
    ours.float64(), theirs.double()
    x = x.astype(np.float64)
    mode(ours, theirs, train=False)
    compare(name, ours, theirs, x, 1e-9)
    mode(ours, theirs, train=True)
    if name == "inception_v3":  # its auxiliary head needs large images
        x = np.random.default_rng(1).standard_normal((2, 3, 299, 299))
    compare(name, ours, theirs, x, 1e-9)


@pytest.mark.parametrize("name", ["resnet50", "densenet121"])
def test_forward_in_float32(name):
    ours, theirs, x = pair(name)
    mode(ours, theirs, train=False)
    compare(name, ours, theirs, x, 1e-4)


@pytest.mark.parametrize("name", ["resnet18", "shufflenet_v2_x1_0", "googlenet"])
def test_gradients(name):
    """Of every parameter and the images, through the weighted sum of all results, in training mode."""
    ours, theirs, x = pair(name)
    ours.float64(), theirs.double()
    mode(ours, theirs, train=True)
    a, b = mf.array(x, "float64"), torch.from_numpy(x.astype(np.float64)).requires_grad_()
    found, expected = in_order(ours(a)), in_order(theirs(b))
    factors = np.random.default_rng(2).standard_normal((len(found), *found[0].shape))
    loss = sum((y * mf.array(w, "float64")).sum() for y, w in zip(found, factors, strict=True))
    sum((y * torch.from_numpy(w)).sum() for y, w in zip(expected, factors, strict=True)).backward()
    own = [(key, var) for key, var in ours.named_parameters() if var.requires_grad]
    gradients = mf.grad(loss, [a, *[var for _, var in own]])
    mf.sync(gradients)
    close(gradients[0].numpy(), b.grad.numpy(), 1e-8, "images")
    for (key, _), gradient in zip(own, gradients[1:], strict=True):
        close(
            gradient.numpy(), theirs.get_parameter(key).grad.numpy(), 1e-8, key, least=1e-5
        )  # a bias before a norm has none


def test_an_independent_oracle_has_torchvision_s_numbers_of_parameters():
    """That the oracle is the network it should be does not rest on our package."""
    published = {
        "resnet50": 25_557_032,
        "googlenet": 13_004_888,
        "inception_v3": 27_161_264,
        "densenet121": 7_978_856,
    }
    for name, count in published.items():
        assert sum(p.numel() for p in NETWORKS[name][0](1000).parameters()) == count
