"""Every constructor of metafuse-models against the same network written with ``torch.nn``: class, names, result, gradients.

``test_models`` looks at one of each family closely; here each takes one step on two small images: the result, and the
gradients of the images and of every parameter. Normalisation uses its running statistics: with two images those of a
batch say little.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

import metafuse as mf
from metafuse import nn

torch = pytest.importorskip("torch")
models = pytest.importorskip("metafuse_models")
sys.path.insert(0, str(Path(__file__).parent))

import torch_networks as T  # noqa: E402

import test_models  # noqa: E402 - beside this file
from test_models import close, in_order, memory_is_given_back, mode, pair  # noqa: E402, F401

VGG = {
    11: "64 M 128 M 256 256 M 512 512 M 512 512 M",
    13: "64 64 M 128 128 M 256 256 M 512 512 M 512 512 M",
    16: "64 64 M 128 128 M 256 256 256 M 512 512 512 M 512 512 512 M",
    19: "64 64 M 128 128 M 256 256 256 256 M 512 512 512 512 M 512 512 512 512 M",
}
LONG = [3, 4, 23, 3]

#: constructor -> (the oracle, size of images), beside those of ``test_models``
FURTHER = {
    "vgg11_bn": (lambda n: T.vgg(n, VGG[11], True), 32),
    "vgg13": (lambda n: T.vgg(n, VGG[13], False), 32),
    "vgg16": (lambda n: T.vgg(n, VGG[16], False), 32),
    "vgg16_bn": (lambda n: T.vgg(n, VGG[16], True), 32),
    "vgg19": (lambda n: T.vgg(n, VGG[19], False), 32),
    "vgg19_bn": (lambda n: T.vgg(n, VGG[19], True), 32),
    "resnet26": (lambda n: T.resnet(n, [1, 2, 4, 1]), 32),
    "resnet34": (lambda n: T.resnet(n, [3, 4, 6, 3], 1), 32),
    "resnet38": (lambda n: T.resnet(n, [2, 3, 5, 2]), 32),
    "resnet101": (lambda n: T.resnet(n, LONG), 32),
    "resnet152": (lambda n: T.resnet(n, [3, 8, 36, 3]), 32),
    "resnext101_32x8d": (lambda n: T.resnet(n, LONG, groups=32, width=8), 32),
    "wide_resnet101_2": (lambda n: T.resnet(n, LONG, width=128), 32),
    "res2net101": (lambda n: T.res2net(n, LONG, 26, 4), 32),
    "res2net50_26w_4s": (lambda n: T.res2net(n, [3, 4, 6, 3], 26, 4), 32),
    "res2net50_26w_6s": (lambda n: T.res2net(n, [3, 4, 6, 3], 26, 6), 32),
    "res2net50_26w_8s": (lambda n: T.res2net(n, [3, 4, 6, 3], 26, 8), 32),
    "res2net50_48w_2s": (lambda n: T.res2net(n, [3, 4, 6, 3], 48, 2), 32),
    "res2net50_14w_8s": (lambda n: T.res2net(n, [3, 4, 6, 3], 14, 8), 32),
    "res2net101_26w_4s": (lambda n: T.res2net(n, LONG, 26, 4), 32),
    "squeezenet1_0": (lambda n: T.squeezenet(n, (96, 7), "M 16 16 32 M 32 48 48 64 M 64"), 65),
    "shufflenet_v2_x0_5": (lambda n: T.shufflenet_v2(n, [24, 48, 96, 192, 1024]), 32),
    "shufflenet_v2_x1_5": (lambda n: T.shufflenet_v2(n, [24, 176, 352, 704, 1024]), 32),
    "shufflenet_v2_x2_0": (lambda n: T.shufflenet_v2(n, [24, 244, 488, 976, 2048]), 32),
    "mnasnet0_5": (lambda n: T.mnasnet(n, [16, 8, 16, 24, 40, 48, 96, 160]), 32),
    "mnasnet0_75": (lambda n: T.mnasnet(n, [24, 16, 24, 32, 64, 72, 144, 240]), 32),
    "mnasnet1_3": (lambda n: T.mnasnet(n, [40, 24, 32, 56, 104, 128, 248, 416]), 32),
    "densenet161": (lambda n: T.densenet(n, 48, (6, 12, 36, 24), 96), 32),
    "densenet169": (lambda n: T.densenet(n, 32, (6, 12, 32, 32), 64), 32),
    "densenet201": (lambda n: T.densenet(n, 32, (6, 12, 48, 32), 64), 32),
}
NETWORKS = {**test_models.NETWORKS, **FURTHER}

#: beginning of a name -> its class
CLASSES = {
    "alexnet": "AlexNet", "densenet": "DenseNet", "googlenet": "GoogLeNet", "inception": "Inception3", "mnasnet": "MNASNet",
    "mobilenet": "MobileNetV2", "res2net": "Res2Net", "resne": "ResNet", "shufflenet": "ShuffleNetV2", "squeezenet": "SqueezeNet",
    "vgg": "VGG", "wide": "ResNet",
}  # fmt: skip


def constructor(name):
    """A network by name: those of one module of the package are not all in the package itself."""
    return getattr(models, name, None) or getattr(models.res2net, name)


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_step(name):
    ours, theirs, x = pair(name, NETWORKS[name], constructor(name))
    kind = next(c for start, c in CLASSES.items() if name.startswith(start))
    assert type(ours) is (getattr(models, kind, None) or getattr(models.res2net, kind))
    bound, dtype = 1e-3, np.float32
    if not name.startswith(("vgg", "alexnet")):  # these have a hundred million parameters
        ours.float64(), theirs.double()
        bound, dtype = 1e-8, np.float64
    mode(ours, theirs, train=False)
    a, b = mf.array(x, dtype), torch.from_numpy(x.astype(dtype)).requires_grad_()
    found, expected = in_order(ours(a)), in_order(theirs(b))
    factors = np.random.default_rng(2).standard_normal(found[0].shape).astype(dtype)
    loss = sum((y * mf.array(factors, dtype)).sum() for y in found)
    sum((y * torch.from_numpy(factors)).sum() for y in expected).backward()
    own = [(key, var) for key, var in ours.named_parameters() if var.requires_grad]
    used = [(key, var) for key, var in own if theirs.get_parameter(key).grad is not None]
    assert len(used) == len(own) or name in ("googlenet", "inception_v3")  # auxiliary heads
    gradients = mf.grad(loss, [a, *[var for _, var in used]])
    mf.sync([*found, *gradients])
    for y, z in zip(found, expected, strict=True):
        close(y.numpy(), z.detach().numpy(), bound, "result")
    close(gradients[0].numpy(), b.grad.numpy(), bound, "images")
    for (key, _), gradient in zip(used, gradients[1:], strict=True):
        close(gradient.numpy(), theirs.get_parameter(key).grad.numpy(), bound, key, least=1e-5)


@pytest.mark.parametrize(("stride", "first"), [(1, False), (2, True)])
@pytest.mark.parametrize("shape", [(2, 64, 6, 4), (1, 64, 1, 1), (0, 64, 4, 4)])
def test_block_of_res2net(stride, first, shape):
    torch.manual_seed(0)
    theirs = T.Bottle2neck(64, 16, stride, first, 26, 4).double().eval()
    straight = nn.Sequential(nn.Conv(64, 64, 1, stride, bias=False), nn.BatchNorm(64)) if first else None
    ours = models.res2net.Bottle2neck(64, 16, stride, straight, 26, 4, "stage" if first else "normal")
    ours.load_state_dict(theirs.state_dict())
    ours.float64().eval()
    x = np.random.default_rng(0).standard_normal(shape[::-1]).T
    a, b = mf.array64(x), torch.from_numpy(x.copy()).requires_grad_()
    y, z = ours(a), theirs(b)
    (z * z).sum().backward()
    np.testing.assert_allclose(y.numpy(), z.detach().numpy(), atol=1e-9)
    np.testing.assert_allclose(mf.grad((y * y).sum(), a).numpy(), b.grad.numpy(), atol=1e-8)
