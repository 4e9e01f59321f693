"""The networks of metafuse-models once more, written with ``torch.nn`` alone and from the papers' tables.

What it is: an oracle for ``test_models.py``: names of parameters are torchvision's, so a state dict fits both sides strictly.
What it is not: shared with the package; nothing of it is imported here.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn


def conv_norm(inputs, outputs, kernel, stride=1, groups=1, act=nn.ReLU, momentum=0.1):
    conv = nn.Conv2d(inputs, outputs, kernel, stride, (kernel - 1) // 2, groups=groups, bias=False)
    return [conv, nn.BatchNorm2d(outputs, momentum=momentum), *([act()] if act else [])]


class Chain(nn.Module):
    """Parts by name, called in order; ``flatten`` before ``classifier`` or ``fc``."""

    def __init__(self, **parts):
        super().__init__()
        for name, part in parts.items():
            self.add_module(name, part)

    def forward(self, x):
        for name, part in self.named_children():
            x = part(x.flatten(1) if name in ("classifier", "fc") else x)
        return x


# -- plain chains ---------------------------------------------------------------------------------------------------
def alexnet(n):
    features, inputs = [], 3
    for outputs, kernel, stride, padding, pool in (
        (64, 11, 4, 2, 1), (192, 5, 1, 2, 1), (384, 3, 1, 1, 0), (256, 3, 1, 1, 0), (256, 3, 1, 1, 1),
    ):  # fmt: skip
        features += [
            nn.Conv2d(inputs, outputs, kernel, stride, padding),
            nn.ReLU(),
            *[nn.MaxPool2d(3, 2)] * pool,
        ]
        inputs = outputs
    head = [nn.Dropout(), nn.Linear(9216, 4096), nn.ReLU(), nn.Dropout(), nn.Linear(4096, 4096), nn.ReLU()]
    return Chain(
        features=nn.Sequential(*features),
        avgpool=nn.AdaptiveAvgPool2d(6),
        classifier=nn.Sequential(*head, nn.Linear(4096, n)),
    )


def vgg(n, plan, norm):
    features, inputs = [], 3
    for item in plan.split():
        if item == "M":
            features.append(nn.MaxPool2d(2))
            continue
        width = int(item)
        features += [nn.Conv2d(inputs, width, 3, padding=1), *[nn.BatchNorm2d(width)] * norm, nn.ReLU()]
        inputs = width
    head = [nn.Linear(25088, 4096), nn.ReLU(), nn.Dropout(), nn.Linear(4096, 4096), nn.ReLU(), nn.Dropout()]
    return Chain(
        features=nn.Sequential(*features),
        avgpool=nn.AdaptiveAvgPool2d(7),
        classifier=nn.Sequential(*head, nn.Linear(4096, n)),
    )


class Fire(nn.Module):
    def __init__(self, inputs, squeezed, expanded):
        super().__init__()
        self.squeeze = nn.Conv2d(inputs, squeezed, 1)
        self.expand1x1 = nn.Conv2d(squeezed, expanded, 1)
        self.expand3x3 = nn.Conv2d(squeezed, expanded, 3, padding=1)

    def forward(self, x):
        x = self.squeeze(x).relu()
        return torch.cat([self.expand1x1(x), self.expand3x3(x)], 1).relu()


def squeezenet(n, first, plan):
    layers = [nn.Conv2d(3, *first, 2), nn.ReLU()]
    inputs = first[0]
    for item in plan.split():
        if item == "M":
            layers.append(nn.MaxPool2d(3, 2, ceil_mode=True))
        else:
            layers.append(Fire(inputs, int(item), int(item) * 4))
            inputs = int(item) * 8
    head = [nn.Dropout(), nn.Conv2d(512, n, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]

    class SqueezeNet(Chain):
        def forward(self, x):
            return self.classifier(self.features(x))

    return SqueezeNet(features=nn.Sequential(*layers), classifier=nn.Sequential(*head))


# -- residual -------------------------------------------------------------------------------------------------------
class Residual(nn.Module):
    def __init__(self, inputs, planes, stride, expansion, groups, width):
        super().__init__()
        outputs, inner = planes * expansion, planes * width // 64 * groups
        sizes = [(inputs, planes, 3, stride, 1), (planes, planes, 3, 1, 1)]
        if expansion == 4:
            sizes = [(inputs, inner, 1, 1, 1), (inner, inner, 3, stride, groups), (inner, outputs, 1, 1, 1)]
        self.count = len(sizes)
        for k, size in enumerate(sizes, 1):
            conv, norm = conv_norm(*size, act=None)
            self.add_module(f"conv{k}", conv)
            self.add_module(f"bn{k}", norm)
        self.downsample = None
        if stride > 1 or inputs != outputs:
            self.downsample = nn.Sequential(*conv_norm(inputs, outputs, 1, stride, act=None))

    def forward(self, x):
        y = x
        for k in range(1, self.count + 1):
            y = getattr(self, f"bn{k}")(getattr(self, f"conv{k}")(y))
            y = y if k == self.count else y.relu()
        return (y + (x if self.downsample is None else self.downsample(x))).relu()


def residual_stages(make, layers, expansion):
    inputs = 64
    for k, count in enumerate(layers):
        planes, blocks = 64 << k, []
        for i in range(count):
            blocks.append(make(inputs, planes, 2 if k and not i else 1, i))
            inputs = planes * expansion
        yield f"layer{k + 1}", nn.Sequential(*blocks)


def stem():
    conv, norm, relu = conv_norm(3, 64, 7, 2)
    return {"conv1": conv, "bn1": norm, "relu": relu, "maxpool": nn.MaxPool2d(3, 2, 1)}


def resnet(n, layers, expansion=4, groups=1, width=64):
    def make(inputs, planes, stride, i):
        return Residual(inputs, planes, stride, expansion, groups, width)

    stages = dict(residual_stages(make, layers, expansion))
    return Chain(**stem(), **stages, avgpool=nn.AdaptiveAvgPool2d(1), fc=nn.Linear(512 * expansion, n))


class Bottle2neck(nn.Module):
    def __init__(self, inputs, planes, stride, first, base, scale):
        super().__init__()
        width = planes * base // 64
        self.first, self.stride = first, stride
        self.conv1, self.bn1 = conv_norm(inputs, width * scale, 1, act=None)
        pairs = [conv_norm(width, width, 3, stride, act=None) for _ in range(scale - 1)]
        self.convs, self.bns = (nn.ModuleList(part) for part in zip(*pairs, strict=True))
        self.conv3, self.bn3 = conv_norm(width * scale, planes * 4, 1, act=None)
        self.downsample = None
        if first:
            self.downsample = nn.Sequential(*conv_norm(inputs, planes * 4, 1, stride, act=None))

    def forward(self, x):
        *groups, last = self.bn1(self.conv1(x)).relu().chunk(len(self.convs) + 1, 1)
        done, before = [], 0
        for group, conv, norm in zip(groups, self.convs, self.bns, strict=True):
            done.append(norm(conv(group if self.first else group + before)).relu())
            before = done[-1]
        done.append(F.avg_pool2d(last, 3, self.stride, 1) if self.first else last)
        y = self.bn3(self.conv3(torch.cat(done, 1)))
        return (y + (self.downsample(x) if self.first else x)).relu()


def res2net(n, layers, base, scale):
    def make(inputs, planes, stride, i):
        return Bottle2neck(inputs, planes, stride, i == 0, base, scale)

    stages = dict(residual_stages(make, layers, 4))
    return Chain(**stem(), **stages, avgpool=nn.AdaptiveAvgPool2d(1), fc=nn.Linear(2048, n))


# -- mobile ---------------------------------------------------------------------------------------------------------
class Around(nn.Module):
    """``part`` beside a shortcut, if ``shortcut``; the part's attribute is called ``name``."""

    def __init__(self, name, part, shortcut):
        super().__init__()
        self.name, self.shortcut = name, shortcut
        self.add_module(name, part)

    def forward(self, x):
        y = getattr(self, self.name)(x)
        return x + y if self.shortcut else y


def mobilenet_v2(n):
    def cell(*sizes):
        return nn.Sequential(*conv_norm(*sizes, act=nn.ReLU6))

    features, inputs = [cell(3, 32, 3, 2)], 32
    for t, c, count, s in (
        (1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1),
    ):  # fmt: skip
        for stride in [s] + [1] * (count - 1):
            hidden = inputs * t
            parts = [cell(inputs, hidden, 1)] if t > 1 else []
            parts += [cell(hidden, hidden, 3, stride, hidden), *conv_norm(hidden, c, 1, act=None)]
            features.append(Around("conv", nn.Sequential(*parts), stride == 1 and inputs == c))
            inputs = c
    features.append(cell(320, 1280, 1))
    return Chain(
        features=nn.Sequential(*features, nn.AdaptiveAvgPool2d(1)),
        classifier=nn.Sequential(nn.Dropout(0.2), nn.Linear(1280, n)),
    )


def mnasnet(n, widths):
    first, inputs, *rest = widths
    layers = [
        *conv_norm(3, first, 3, 2), *conv_norm(first, first, 3, 1, first), *conv_norm(first, inputs, 1, act=None),
    ]  # fmt: skip
    plan = ((3, 2, 3, 3), (5, 2, 3, 3), (5, 2, 6, 3), (3, 1, 6, 2), (5, 2, 6, 4), (3, 1, 6, 1))
    for outputs, (kernel, s, t, count) in zip(rest, plan, strict=True):
        blocks = []
        for stride in [s] + [1] * (count - 1):
            hidden = inputs * t
            part = nn.Sequential(
                *conv_norm(inputs, hidden, 1),
                *conv_norm(hidden, hidden, kernel, stride, hidden),
                *conv_norm(hidden, outputs, 1, act=None),
            )
            blocks.append(Around("layers", part, stride == 1 and inputs == outputs))
            inputs = outputs
        layers.append(nn.Sequential(*blocks))
    layers += [*conv_norm(inputs, 1280, 1), nn.AdaptiveAvgPool2d(1)]
    return Chain(layers=nn.Sequential(*layers), classifier=nn.Sequential(nn.Dropout(), nn.Linear(1280, n)))


class ShuffleBlock(nn.Module):
    def __init__(self, inputs, outputs, stride):
        super().__init__()
        half, self.down = outputs // 2, stride == 2
        first = []
        if self.down:
            first = [*conv_norm(inputs, inputs, 3, 2, inputs, act=None), *conv_norm(inputs, half, 1)]
        self.branch1 = nn.Sequential(*first)
        self.branch2 = nn.Sequential(
            *conv_norm(inputs if self.down else half, half, 1),
            *conv_norm(half, half, 3, stride, half, act=None),
            *conv_norm(half, half, 1),
        )

    def forward(self, x):
        a, b = (x, x) if self.down else x.chunk(2, 1)
        return F.channel_shuffle(torch.cat([self.branch1(a), self.branch2(b)], 1), 2)


def shufflenet_v2(n, widths):
    first, *stages, last = widths
    parts, inputs = {}, first
    for k, (outputs, count) in enumerate(zip(stages, (4, 8, 4), strict=True), 2):
        blocks = [
            ShuffleBlock(inputs if i == 0 else outputs, outputs, 2 if i == 0 else 1) for i in range(count)
        ]
        parts[f"stage{k}"] = nn.Sequential(*blocks)
        inputs = outputs
    return Chain(
        conv1=nn.Sequential(*conv_norm(3, first, 3, 2)),
        maxpool=nn.MaxPool2d(3, 2, 1),
        **parts,
        conv5=nn.Sequential(*conv_norm(inputs, last, 1)),
        pool=nn.AdaptiveAvgPool2d(1),
        fc=nn.Linear(last, n),
    )


# -- dense ----------------------------------------------------------------------------------------------------------
class DenseLayer(nn.Module):
    def __init__(self, inputs, growth):
        super().__init__()
        self.norm1, self.conv1 = nn.BatchNorm2d(inputs), nn.Conv2d(inputs, 4 * growth, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(4 * growth)
        self.conv2 = nn.Conv2d(4 * growth, growth, 3, padding=1, bias=False)

    def forward(self, x):
        y = self.conv1(self.norm1(x).relu())
        return torch.cat([x, self.conv2(self.norm2(y).relu())], 1)


def densenet(n, growth, counts, width):
    conv, norm, relu = conv_norm(3, width, 7, 2)
    features = {"conv0": conv, "norm0": norm, "relu0": relu, "pool0": nn.MaxPool2d(3, 2, 1)}
    for k, count in enumerate(counts, 1):
        layers = {f"denselayer{i + 1}": DenseLayer(width + i * growth, growth) for i in range(count)}
        features[f"denseblock{k}"] = Chain(**layers)
        width += count * growth
        if k < len(counts):
            conv = nn.Conv2d(width, width // 2, 1, bias=False)
            features[f"transition{k}"] = Chain(
                norm=nn.BatchNorm2d(width), relu=nn.ReLU(), conv=conv, pool=nn.AvgPool2d(2)
            )
            width //= 2
    features["norm5"] = nn.BatchNorm2d(width)
    return Chain(
        features=Chain(**features),
        last=nn.Sequential(nn.ReLU(), nn.AdaptiveAvgPool2d(1)),
        classifier=nn.Linear(width, n),
    )
