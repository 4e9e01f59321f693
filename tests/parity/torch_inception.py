"""GoogLeNet and Inception v3 once more, written with ``torch.nn`` alone; see ``torch_networks``."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn


def means(x):
    return F.adaptive_avg_pool2d(x, 1).flatten(1)


class Basic(nn.Module):
    def __init__(self, inputs, outputs, kernel, stride=1, padding=0):
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(outputs, eps=0.001)

    def forward(self, x):
        return self.bn(self.conv(x)).relu()


class GoogleBlock(nn.Module):
    def __init__(self, inputs, one, before3, three, before5, five, pooled):
        super().__init__()
        self.branch1 = Basic(inputs, one, 1)
        self.branch2 = nn.Sequential(Basic(inputs, before3, 1), Basic(before3, three, 3, 1, 1))
        self.branch3 = nn.Sequential(Basic(inputs, before5, 1), Basic(before5, five, 3, 1, 1))
        self.branch4 = nn.Sequential(nn.MaxPool2d(3, 1, 1), Basic(inputs, pooled, 1))

    def forward(self, x):
        return torch.cat([b(x) for b in self.children()], 1)


class GoogleAux(nn.Module):
    def __init__(self, inputs, n):
        super().__init__()
        self.conv, self.fc1, self.fc2 = Basic(inputs, 128, 1), nn.Linear(2048, 1024), nn.Linear(1024, n)

    def forward(self, x):
        return self.fc2(self.fc1(self.conv(F.adaptive_avg_pool2d(x, 4)).flatten(1)).relu())


class GoogLeNet(nn.Module):
    def __init__(self, n):
        super().__init__()
        self.conv1, self.conv2, self.conv3 = Basic(3, 64, 7, 2, 3), Basic(64, 64, 1), Basic(64, 192, 3, 1, 1)
        self.inception3a = GoogleBlock(192, 64, 96, 128, 16, 32, 32)
        self.inception3b = GoogleBlock(256, 128, 128, 192, 32, 96, 64)
        self.inception4a = GoogleBlock(480, 192, 96, 208, 16, 48, 64)
        self.inception4b = GoogleBlock(512, 160, 112, 224, 24, 64, 64)
        self.inception4c = GoogleBlock(512, 128, 128, 256, 24, 64, 64)
        self.inception4d = GoogleBlock(512, 112, 144, 288, 32, 64, 64)
        self.inception4e = GoogleBlock(528, 256, 160, 320, 32, 128, 128)
        self.inception5a = GoogleBlock(832, 256, 160, 320, 32, 128, 128)
        self.inception5b = GoogleBlock(832, 384, 192, 384, 48, 128, 128)
        self.aux1, self.aux2, self.fc = GoogleAux(512, n), GoogleAux(528, n), nn.Linear(1024, n)

    def forward(self, x):
        x = self.conv3(self.conv2(F.max_pool2d(self.conv1(x), 3, 2, ceil_mode=True)))
        x = self.inception3b(self.inception3a(F.max_pool2d(x, 3, 2, ceil_mode=True)))
        a = self.inception4a(F.max_pool2d(x, 3, 2, ceil_mode=True))
        d = self.inception4d(self.inception4c(self.inception4b(a)))
        x = F.max_pool2d(self.inception4e(d), 2, 2, ceil_mode=True)
        y = self.fc(means(self.inception5b(self.inception5a(x))))
        return (y, self.aux2(d), self.aux1(a)) if self.training else y


class Mixed(nn.Module):
    """Convolutions by name, and paths: each a chain of names (``mean`` and ``max`` pool), joined at the end."""

    def __init__(self, convs, paths):
        super().__init__()
        for name, size in convs.items():
            self.add_module(name, Basic(*size))
        self.paths = [path.split() for path in paths]

    def forward(self, x):
        pools = {"mean": lambda v: F.avg_pool2d(v, 3, 1, 1), "max": lambda v: F.max_pool2d(v, 3, 2)}
        done = []
        for path in self.paths:
            y = x
            for name in path:
                y = pools[name](y) if name in pools else getattr(self, name)(y)
            done.append(y)
        return torch.cat(done, 1)


DOUBLE = "branch3x3dbl_1 branch3x3dbl_2 branch3x3dbl_3"
ROW, COLUMN = ((1, 7), 1, (0, 3)), ((7, 1), 1, (3, 0))


def mixed_a(i, pooled):
    convs = {
        "branch1x1": (i, 64, 1), "branch5x5_1": (i, 48, 1), "branch5x5_2": (48, 64, 5, 1, 2),
        "branch3x3dbl_1": (i, 64, 1), "branch3x3dbl_2": (64, 96, 3, 1, 1), "branch3x3dbl_3": (96, 96, 3, 1, 1),
        "branch_pool": (i, pooled, 1),
    }  # fmt: skip
    return Mixed(convs, ["branch1x1", "branch5x5_1 branch5x5_2", DOUBLE, "mean branch_pool"])


def mixed_b(i):
    convs = {
        "branch3x3": (i, 384, 3, 2), "branch3x3dbl_1": (i, 64, 1), "branch3x3dbl_2": (64, 96, 3, 1, 1),
        "branch3x3dbl_3": (96, 96, 3, 2),
    }  # fmt: skip
    return Mixed(convs, ["branch3x3", DOUBLE, "max"])


def mixed_c(i, c):
    sizes = [(i, c, 1), (c, c, *COLUMN), (c, c, *ROW), (c, c, *COLUMN), (c, 192, *ROW)]
    convs = {
        "branch1x1": (i, 192, 1), "branch7x7_1": (i, c, 1), "branch7x7_2": (c, c, *ROW),
        "branch7x7_3": (c, 192, *COLUMN), **{f"branch7x7dbl_{k}": size for k, size in enumerate(sizes, 1)},
        "branch_pool": (i, 192, 1),
    }  # fmt: skip
    double = " ".join(f"branch7x7dbl_{k}" for k in range(1, 6))
    return Mixed(convs, ["branch1x1", "branch7x7_1 branch7x7_2 branch7x7_3", double, "mean branch_pool"])


def mixed_d(i):
    sizes = [(i, 192, 1), (192, 192, *ROW), (192, 192, *COLUMN), (192, 192, 3, 2)]
    convs = {"branch3x3_1": (i, 192, 1), "branch3x3_2": (192, 320, 3, 2)}
    convs |= {f"branch7x7x3_{k}": size for k, size in enumerate(sizes, 1)}
    seven = " ".join(f"branch7x7x3_{k}" for k in range(1, 5))
    return Mixed(convs, ["branch3x3_1 branch3x3_2", seven, "max"])


def mixed_e(i):
    row, column = (384, 384, (1, 3), 1, (0, 1)), (384, 384, (3, 1), 1, (1, 0))
    convs = {
        "branch1x1": (i, 320, 1), "branch3x3_1": (i, 384, 1), "branch3x3_2a": row, "branch3x3_2b": column,
        "branch3x3dbl_1": (i, 448, 1), "branch3x3dbl_2": (448, 384, 3, 1, 1), "branch3x3dbl_3a": row,
        "branch3x3dbl_3b": column, "branch_pool": (i, 192, 1),
    }  # fmt: skip
    before = "branch3x3dbl_1 branch3x3dbl_2"
    paths = ["branch1x1", "branch3x3_1 branch3x3_2a", "branch3x3_1 branch3x3_2b"]
    return Mixed(
        convs, [*paths, f"{before} branch3x3dbl_3a", f"{before} branch3x3dbl_3b", "mean branch_pool"]
    )


class InceptionAux(nn.Module):
    def __init__(self, n):
        super().__init__()
        self.conv0, self.conv1, self.fc = Basic(768, 128, 1), Basic(128, 768, 5), nn.Linear(768, n)

    def forward(self, x):
        return self.fc(means(self.conv1(self.conv0(F.avg_pool2d(x, 5, 3)))))


class InceptionV3(nn.Module):
    def __init__(self, n):
        super().__init__()
        self.Conv2d_1a_3x3, self.Conv2d_2a_3x3 = Basic(3, 32, 3, 2), Basic(32, 32, 3)
        self.Conv2d_2b_3x3, self.Conv2d_3b_1x1 = Basic(32, 64, 3, 1, 1), Basic(64, 80, 1)
        self.Conv2d_4a_3x3 = Basic(80, 192, 3)
        self.Mixed_5b, self.Mixed_5c, self.Mixed_5d = mixed_a(192, 32), mixed_a(256, 64), mixed_a(288, 64)
        self.Mixed_6a, self.Mixed_6b, self.Mixed_6c = mixed_b(288), mixed_c(768, 128), mixed_c(768, 160)
        self.Mixed_6d, self.Mixed_6e = mixed_c(768, 160), mixed_c(768, 192)
        self.Mixed_7a, self.Mixed_7b, self.Mixed_7c = mixed_d(768), mixed_e(1280), mixed_e(2048)
        self.AuxLogits, self.fc = InceptionAux(n), nn.Linear(2048, n)

    def forward(self, x):
        x = F.max_pool2d(self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x))), 3, 2)
        x = F.max_pool2d(self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(x)), 3, 2)
        x = self.Mixed_6a(self.Mixed_5d(self.Mixed_5c(self.Mixed_5b(x))))
        x = self.Mixed_6e(self.Mixed_6d(self.Mixed_6c(self.Mixed_6b(x))))
        y = self.fc(means(self.Mixed_7c(self.Mixed_7b(self.Mixed_7a(x)))))
        return (y, self.AuxLogits(x)) if self.training else y
