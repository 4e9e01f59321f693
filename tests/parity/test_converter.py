"""PyTorch programs and what the converter makes of them compute the same, step by step; and so do single calls."""

from __future__ import annotations

import runpy
from pathlib import Path

import numpy as np
import pytest
import torch

import metafuse as mf
from metafuse.config import flag_scope
from metafuse_converter import convert_source

SCRIPTS = sorted((Path(__file__).resolve().parents[2] / "packages/converter/tests/scripts").glob("*.py"))
#: where rounding to 16 bits is part of the program
COARSE = {"amp": 2e-2}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("path", SCRIPTS, ids=lambda p: p.stem)
def test_programs_compute_the_same(path, tmp_path, capsys):
    expected = runpy.run_path(str(path), run_name="__main__")["results"]
    converted = tmp_path / path.name
    converted.write_text(convert_source(path.read_text(encoding="utf-8")).source, encoding="utf-8")
    with flag_scope(log_silent=1):
        found = runpy.run_path(str(converted), run_name="__main__")["results"]
    assert len(found) == len(expected) > 3
    np.testing.assert_allclose(
        found, expected, rtol=COARSE.get(path.stem, 1e-3), atol=COARSE.get(path.stem, 1e-4)
    )


#: expressions over x [3, 4], y [3, 4], v [4], i (indices [3, 4] below 3), s [2, 3, 4, 4]
CALLS = """
torch.cat([x, y], dim=1)
torch.cat((x, y), 0)
torch.stack([x, y], 1)
torch.std(x)
torch.std(x, 1)
torch.var(x, dim=0)
torch.var(x, 1, unbiased=False)
torch.norm(x)
torch.norm(x, dim=1)
torch.norm(x, 1, -1, keepdim=True)
x.norm()
x.norm(p=2, dim=0)
torch.linalg.norm(x)
torch.max(x)
torch.max(x, 1)[0]
torch.max(x, dim=1).indices
torch.max(x, dim=1, keepdim=True).values
torch.max(x, y)
torch.min(x, 0)[1]
x.max(1)[0]
x.min(dim=0)[1]
x.max()
torch.maximum(x, y)
torch.argmax(x, dim=1)
x.argmax(1, keepdim=True)
torch.argsort(x, dim=1, descending=True)
torch.sort(x, dim=0)[0]
torch.topk(x, 2)[1]
torch.topk(x, k=2, dim=0).values
x.sort(descending=True)[1]
torch.sum(x, dim=1, keepdim=True)
x.sum(dim=(0, 1))
x.sum(-1)
x.mean(0, keepdim=True)
torch.mean(x)
torch.prod(x, 1)
torch.cumsum(x, dim=1)
x.cumsum(0)
torch.logsumexp(x, dim=1)
torch.all(x > 0)
(x > 0).any(dim=1)
torch.clamp(x, min=0)
torch.clamp(x, -0.5, 0.5)
x.clamp(max=0.1)
x.clamp_min(0.2)
torch.where(x > 0, x, y)
torch.eq(x, x)
x.ge(0)
x.lt(y)
torch.transpose(x, 0, 1)
x.transpose(0, 1)
x.t()
x.T
s.transpose(2, 3)
s.permute(0, 2, 3, 1)
torch.permute(s, (3, 2, 1, 0))
x.reshape(4, 3)
x.view(-1)
x.view(2, -1)
torch.flatten(s, 1)
s.flatten(start_dim=2)
x.unsqueeze(0).expand(2, -1, -1)
x.repeat(2, 1)
torch.flip(x, dims=[0])
x.flip(0, 1)
torch.roll(x, 1, 0)
torch.tile(x, (2, 1))
x[:, None].squeeze(1)
torch.gather(x, 1, i)
x.gather(dim=0, index=i)
torch.index_select(x, 0, torch.tensor([2, 0]))
x.masked_fill(x > 0, -1.0)
torch.zeros(2, 3).scatter_(1, torch.tensor([[0], [2]]), 1.0)
torch.zeros(3, 4).scatter_add_(0, i, x)
torch.vstack((x, v))
torch.row_stack([x, y])
torch.hstack([x, y])
torch.hstack((v, v))
torch.dstack(tensors=(x, y))
torch.split(x, 2, dim=1)[1]
torch.chunk(x, 2, 1)[0]
torch.unbind(x, 0)[1]
torch.meshgrid(v, v, indexing="ij")[0]
torch.nonzero(x > 0)
torch.diag(v)
torch.trace(x[:, :3])
torch.tril(x)
torch.outer(v, v)
torch.mm(x, y.t())
x.mm(y.t())
torch.matmul(x, v)
torch.bmm(s[0], s[1])
torch.einsum("ij,kj->ik", x, y)
torch.addmm(x[:, :3], x, y.t(), beta=0.5, alpha=2)
torch.det(x[:, :3])
torch.linalg.inv(x[:, :3])
torch.linalg.solve(x[:, :3], y[:, :2])
torch.zeros(2, 3)
torch.zeros((2, 3), dtype=torch.float64)
torch.ones(3, device="cpu", requires_grad=True)
torch.full((2, 2), 1.5)
torch.full((2,), 3)
torch.arange(5)
torch.arange(0, 1, 0.25)
torch.arange(3.0)
torch.arange(0.0, i.size(0))
torch.arange(start=1, end=7, step=2)
torch.linspace(0, 1, 5)
torch.eye(3)
torch.zeros_like(x)
torch.ones_like(x, dtype=torch.long)
torch.full_like(x, 2.0)
x.new_zeros(2, 3)
x.new_ones((2, 3))
x.new_full((2,), 4.0)
torch.tensor([1.0, 2.0], dtype=torch.float32, device="cpu")
torch.tensor(3.5)
torch.FloatTensor([1, 2])
torch.LongTensor([[1, 2]])
torch.as_tensor([1, 2], dtype=torch.float)
torch.square(x)
torch.abs(x).sqrt()
torch.rsqrt(x.abs() + 1)
torch.pow(x, 2)
torch.exp(-x)
torch.sigmoid(x) + torch.tanh(y)
torch.sign(x)
torch.round(x)
torch.floor(x)
torch.remainder(x, 2)
torch.fmod(x, 0.5)
torch.fmod(i, -2)
x.fmod(y)
torch.div(x, 0.3, rounding_mode="floor")
torch.true_divide(x, y)
torch.neg(x)
torch.reciprocal(x)
torch.lerp(x, y, 0.3)
torch.addcmul(x, x, y, value=0.5)
torch.isnan(x)
torch.logical_and(x > 0, y > 0)
torch.bincount(i.flatten())
torch.histc(x, bins=4, min=-2, max=2)
torch.unique(i)
torch.cdist(x, y)
torch.cross(x[:, :3], y[:, :3], dim=1)
torch.searchsorted(v.sort()[0], x)
x.float().double().to(torch.float32)
x.type(torch.long)
x.type_as(i)
x.to("cpu").cuda if False else x
x.data + 1
x.detach().clone()
x.contiguous().view_as(x)
torch.is_tensor(x)
torch.numel(x)
x.numel() + x.dim() + x.size(0)
x.is_floating_point()
torch.equal(x, x)
torch.allclose(x, x + 1e-9)
F.relu(x, inplace=False)
F.leaky_relu(x, 0.2)
F.leaky_relu(x, negative_slope=0.3, inplace=True)
F.elu(x, alpha=0.5)
F.gelu(x)
F.silu(x)
F.softplus(x)
F.hardtanh(x, -0.5, 0.5)
F.softmax(x, dim=1)
F.log_softmax(x, dim=-1)
x.softmax(dim=0)
F.logsigmoid(x)
F.normalize(x, dim=1)
F.normalize(x, p=2, dim=0)
F.one_hot(i[0], num_classes=5)
F.pad(s, (1, 2, 0, 1))
F.pad(s, [1, 1], mode="constant", value=3.0)
F.pad(s, (1, 1, 1, 1), mode="reflect")
F.linear(x, y)
F.conv2d(s, torch.ones(2, 3, 3, 3), padding=1)
F.conv2d(s, torch.ones(3, 1, 3, 3), None, 1, 1, groups=3)
F.conv_transpose2d(s, torch.ones(3, 2, 3, 3), stride=2)
F.max_pool2d(s, 2)
F.max_pool2d(s, kernel_size=3, stride=1, padding=1)
F.avg_pool2d(s, 2, stride=1)
F.adaptive_avg_pool2d(s, 1)
F.adaptive_avg_pool2d(s, (2, 2))
F.interpolate(s, scale_factor=2)
F.interpolate(s, size=(8, 8), mode="bilinear", align_corners=False)
F.interpolate(s, size=(6, 6), mode="bilinear", align_corners=True)
F.upsample(s, scale_factor=2, mode="nearest")
F.layer_norm(x, (4,))
F.dropout(x, 0.5, training=False)
F.dropout(x, p=0.5, training=False)
F.cross_entropy(x, i[:, 0])
F.cross_entropy(x, i[:, 0], reduction="sum")
F.cross_entropy(x, i[:, 0], weight=v.abs())
F.cross_entropy(x, i[:, 0], label_smoothing=0.1)
F.cross_entropy(x, i[:, 0], v.abs(), ignore_index=1, label_smoothing=0.3)
F.cross_entropy(x, i[:, 0] - 100 * (i[:, 0] == 1).long(), reduction="none", label_smoothing=0.3)
F.cross_entropy(s, i[:2, None, :].expand(2, 4, 4), label_smoothing=1.0)
F.cross_entropy(x, torch.tensor([-100, 1, 2]))
F.nll_loss(F.log_softmax(x, 1), i[:, 0])
F.mse_loss(x, y)
F.mse_loss(x, y, reduction="none")
F.l1_loss(x, y)
F.smooth_l1_loss(x, y)
F.huber_loss(x, y, delta=0.5)
F.cross_entropy(x, y.softmax(1))
F.cross_entropy(x, y.softmax(1), v.abs(), label_smoothing=0.2, reduction="none")
F.cross_entropy(s, s.softmax(1), reduction="sum")
F.cross_entropy(v, torch.tensor(2))
F.l1_loss(x, y, reduction="sum")
F.l1_loss(x, y, size_average=False)
F.smooth_l1_loss(x, y, reduction="none", beta=0.4)
F.mse_loss(x, y, reduce=False)
F.binary_cross_entropy(x.sigmoid(), (y > 0).float(), reduction="none")
F.binary_cross_entropy_with_logits(x, (y > 0).float(), pos_weight=v.abs(), reduction="none")
F.conv2d(s, torch.ones(2, 3, 2, 3), padding="same")
torch.nn.utils.rnn.pad_sequence([v, v[:2]], batch_first=True, padding_value=-1.0)
F.binary_cross_entropy(x.sigmoid(), (y > 0).float())
F.binary_cross_entropy(x.sigmoid(), (y > 0).float(), reduction="sum")
F.binary_cross_entropy_with_logits(x, (y > 0).float())
F.kl_div(F.log_softmax(x, 1), F.softmax(y, 1), reduction="batchmean")
F.cosine_similarity(x, y, dim=1)
F.embedding(i, torch.ones(3, 2))
F.pixel_shuffle(s[:, :1].repeat(1, 4, 1, 1), 2)
F.unfold(s, 3, padding=1)
F.scaled_dot_product_attention(s, s, s)
F.grid_sample(s, torch.zeros(2, 2, 2, 2), align_corners=False)
nn.LeakyReLU(0.1, inplace=True)(x)
nn.Softmax(dim=1)(x)
nn.Hardtanh()(x)
nn.PReLU(init=0.5)(x)
nn.ELU(alpha=0.3)(x)
nn.Flatten()(s)
nn.Identity()(x)
nn.AvgPool2d(2)(s)
nn.MaxPool2d(kernel_size=2, stride=2)(s)
nn.AdaptiveAvgPool2d(1)(s)
nn.Upsample(scale_factor=2, mode="nearest")(s)
nn.UpsamplingBilinear2d(scale_factor=2)(s)
nn.ZeroPad2d(1)(s)
nn.ReflectionPad2d(1)(s)
nn.LayerNorm(4)(x)
nn.LayerNorm(4, bias=False)(x)
nn.Transformer.generate_square_subsequent_mask(4)
nn.Transformer.generate_square_subsequent_mask(3, dtype=torch.float64)
len(torch.utils.data.Subset(x, [0, 2]))
torch.utils.data.Subset(x, [2, 0])[1]
torch.utils.data.ConcatDataset([x, y])[4]
sum(len(p) for p in torch.utils.data.random_split(x, [2, 1], generator=torch.Generator().manual_seed(1)))
nn.GroupNorm(1, 3)(s)
nn.BatchNorm2d(3)(s)
nn.InstanceNorm2d(3)(s)
nn.CrossEntropyLoss()(x, i[:, 0])
nn.CrossEntropyLoss(label_smoothing=0.2)(x, i[:, 0])
nn.CrossEntropyLoss(weight=v.abs(), reduction="sum", label_smoothing=0.2)(x, i[:, 0])
nn.CrossEntropyLoss(reduction="none")(x, torch.tensor([0, -100, 2]))
nn.BCEWithLogitsLoss(reduction="sum")(x, (y > 0).float())
nn.SmoothL1Loss()(x, y)
nn.L1Loss()(x, y)
nn.L1Loss(reduction="none")(x, y)
nn.SmoothL1Loss(reduction="sum", beta=0.25)(x, y)
nn.HuberLoss(reduction="sum", delta=0.3)(x, y)
nn.BCELoss(reduction="none")(x.sigmoid(), (y > 0).float())
nn.BCELoss(None, False)(x.sigmoid(), (y > 0).float())
nn.MSELoss(reduction="none")(x, y)
nn.KLDivLoss(size_average=False)(F.log_softmax(x, 1), F.softmax(y, 1))
nn.CrossEntropyLoss(reduction="none")(x, y.softmax(1))
nn.Conv2d(3, 2, 3, padding="same")(s).shape
sorted(torch.utils.data.SubsetRandomSampler([3, 1]))
list(torch.utils.data.WeightedRandomSampler([0.0, 1.0], 3))
nn.Dropout(0.5).eval()(x)
nn.PixelShuffle(2)(s[:, :1].repeat(1, 4, 1, 1))
nn.Sequential(nn.ReLU(True), nn.Tanh())(x)
torch.pi * x
torch.finfo(torch.float32).max
x.eq(y).sum().item()
x.abs().sum().item()
x.tolist()
next(nn.Linear(2, 3).parameters()).shape
"""


def inputs():
    """x, y, v, i, s, with the same values everywhere."""
    rng = np.random.RandomState(0)
    return {
        "x": rng.randn(3, 4).astype("float32"), "y": rng.randn(3, 4).astype("float32"), "v": rng.randn(4).astype("float32"),
        "i": rng.randint(0, 3, (3, 4)), "s": rng.randn(2, 3, 4, 4).astype("float32"),
    }  # fmt: skip


HEADER = "import torch\nimport torch.nn as nn\nimport torch.nn.functional as F\n"
TENSORS = "".join(f"{name} = torch.from_numpy(arrays['{name}'])\n" for name in inputs())


def plain(value):
    """A value of either framework as an array; arrays without dimensions have one here."""
    if isinstance(value, (torch.Tensor, mf.Var)):
        value = value.detach().numpy()
    return np.asarray(value)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("call", CALLS.strip().splitlines())
def test_calls_compute_the_same(call):
    text = f"{HEADER}{TENSORS}result = {call}\n"
    done = convert_source(text)
    assert done.report == []
    expected, found = {"arrays": inputs()}, {"arrays": inputs()}
    exec(text, expected)
    with flag_scope(log_silent=1):
        exec(done.source, found)
        result = plain(found["result"])
    wanted = plain(expected["result"])
    assert result.reshape(wanted.shape).dtype.kind == wanted.dtype.kind, done.source.splitlines()[-1]
    np.testing.assert_allclose(result.reshape(wanted.shape), wanted, rtol=2e-5, atol=2e-6)
