"""Every layer against PyTorch in every floating type, with views, empty batches and extents of 1; all gradients.

The tables of the other files are run again with the conformance kit's odd inputs; rows for layers and functions that
those lack follow.
"""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

import metafuse as mf
from metafuse import nn
from metafuse.attention import baddbmm, multi_head_attention_forward
from metafuse.ops.registry import Sample, Tensor
from metafuse.other.code_softmax import softmax_v1
from metafuse.testing.compositions import check_composition

torch = pytest.importorskip("torch")
sys.path.insert(0, str(Path(__file__).parent))

import test_layers  # noqa: E402 - beside this file
import test_layers_further  # noqa: E402

F = torch.nn.functional
T = torch.nn
INDEX = Tensor((5, 2), "int32", 0, 3)


def unshuffled(x):
    """``pixel_unshuffle`` by 2, also of an empty tensor, for which PyTorch's answers the wrong shape."""
    batch, channels, height, width = x.shape
    blocks = x.reshape(batch, channels, height // 2, 2, width // 2, 2).permute(0, 1, 3, 5, 2, 4)
    return blocks.reshape(batch, channels * 4, height // 2, width // 2)


#: layer -> (ours, theirs, shapes of its inputs); extents of batches differ from all others
LAYERS = {
    **test_layers.LAYERS,
    **test_layers_further.LAYERS,
    "adaptive-avg-3d": (
        lambda: nn.AdaptiveAvgPool3d((2, 3, 1)),
        lambda: T.AdaptiveAvgPool3d((2, 3, 1)),
        (2, 3, 4, 7, 5),
    ),
    "adaptive-max-3d": (
        lambda: nn.AdaptiveMaxPool3d((2, 3, 1)),
        lambda: T.AdaptiveMaxPool3d((2, 3, 1)),
        (2, 3, 4, 7, 5),
    ),
    "avg-pool-3d": (lambda: nn.AvgPool3d(2, 2, 1), lambda: T.AvgPool3d(2, 2, 1), (1, 3, 4, 5, 4)),
    "pool-3d": (lambda: nn.Pool3d(2, op="mean"), lambda: T.AvgPool3d(2), (1, 3, 4, 6, 4)),
    "batch-norm-2d": (lambda: nn.BatchNorm2d(3), lambda: T.BatchNorm2d(3), (5, 3, 2, 4)),
    "batch-norm-3d": (lambda: nn.BatchNorm3d(3), lambda: T.BatchNorm3d(3), (5, 3, 2, 4, 2)),
    "bilinear": (lambda: nn.Bilinear(3, 4, 2), lambda: T.Bilinear(3, 4, 2), (5, 3), (5, 4)),
    "constant-2d": (
        lambda: nn.ConstantPad2d((1, 2, 0, 1), 2.5),
        lambda: T.ConstantPad2d((1, 2, 0, 1), 2.5),
        (2, 3, 5, 4),
    ),
    "zero-1d": (lambda: nn.ZeroPad1d(2), lambda: T.ZeroPad1d(2), (2, 3, 5)),
    "zero-3d": (lambda: nn.ZeroPad3d(1), lambda: T.ZeroPad3d(1), (2, 3, 2, 2, 4)),
    "conv-transpose-2d": (
        lambda: nn.ConvTranspose2d(3, 4, 2, 2),
        lambda: T.ConvTranspose2d(3, 4, 2, 2),
        (5, 3, 6, 7),
    ),
    "conv-transpose-3d": (
        lambda: nn.ConvTranspose3d(3, 4, 2, 2, output_padding=1),
        lambda: T.ConvTranspose3d(3, 4, 2, 2, output_padding=1),
        (5, 3, 2, 2, 1),
    ),
    "pixel-unshuffle": (lambda: nn.PixelUnshuffle(2), lambda: unshuffled, (2, 3, 4, 6)),
    "drop-path": (lambda: nn.DropPath(0.3), T.Identity, (5, 3, 2)),
    "dropout": (lambda: nn.Dropout(0.3, is_train=False), T.Identity, (5, 3, 2)),
    "dropout-2d": (lambda: nn.Dropout2d(0.3, is_train=False), T.Identity, (5, 3, 2, 4)),
    "identity": (nn.Identity, T.Identity, (5, 3)),
    "instance-norm-1d": (lambda: nn.InstanceNorm1d(3), lambda: T.InstanceNorm1d(3, affine=True), (5, 3, 4)),
    "instance-norm-2d": (
        lambda: nn.InstanceNorm2d(3),
        lambda: T.InstanceNorm2d(3, affine=True),
        (5, 3, 4, 2),
    ),
    "instance-norm-3d": (
        lambda: nn.InstanceNorm3d(3),
        lambda: T.InstanceNorm3d(3, affine=True),
        (5, 3, 4, 2, 2),
    ),
    "layer-norm-1d": (lambda: nn.LayerNorm1d(4), lambda: T.LayerNorm(4), (5, 3, 4)),
    "layer-norm-2d": (lambda: nn.LayerNorm2d((3, 4)), lambda: T.LayerNorm((3, 4)), (5, 3, 4)),
    "layer-norm-3d": (lambda: nn.LayerNorm3d((2, 3, 4)), lambda: T.LayerNorm((2, 3, 4)), (5, 2, 3, 4)),
    "leaky-relu-name": (lambda: nn.Leaky_relu(0.1), lambda: T.LeakyReLU(0.1), (5, 3)),
    "resize": (
        lambda: nn.Resize((4, 7), "bilinear"),
        lambda: T.Upsample((4, 7), mode="bilinear"),
        (5, 2, 3, 6),
    ),
    "upsample": (
        lambda: nn.Upsample(2, "bilinear"),
        lambda: T.Upsample(scale_factor=2, mode="bilinear"),
        (5, 2, 3, 6),
    ),
    "upsampling-nearest": (
        lambda: nn.UpsamplingNearest2d(2),
        lambda: T.UpsamplingNearest2d(scale_factor=2),
        (5, 2, 3, 6),
    ),
    "upsampling-bilinear": (
        lambda: nn.UpsamplingBilinear2d(2),
        lambda: T.UpsamplingBilinear2d(scale_factor=2),
        (5, 2, 3, 6),
    ),
    "embedding": (lambda: nn.Embedding(4, 3), lambda: T.Embedding(4, 3), INDEX),
    "rnn": (lambda: nn.RNN(4, 3, 2), lambda: T.RNN(4, 3, 2), (2, 5, 4)),
    "lstm": (lambda: nn.LSTM(4, 3, bidirectional=True), lambda: T.LSTM(4, 3, bidirectional=True), (2, 5, 4)),
    "gru": (lambda: nn.GRU(4, 3), lambda: T.GRU(4, 3), (2, 5, 4)),
    "rnn-base": (lambda: nn.RNNBase("GRU", 4, 3), lambda: T.GRU(4, 3), (2, 5, 4)),
    "rnn-cell": (lambda: nn.RNNCell(4, 3), lambda: T.RNNCell(4, 3), (5, 4), (5, 3)),
    "lstm-cell": (lambda: nn.LSTMCell(4, 3), lambda: T.LSTMCell(4, 3), (5, 4)),
    "gru-cell": (lambda: nn.GRUCell(4, 3), lambda: T.GRUCell(4, 3), (5, 4), (5, 3)),
    "mse": (nn.MSELoss, T.MSELoss, (5, 3), (5, 3)),
    "l1": (nn.L1Loss, T.L1Loss, (5, 3), (5, 3)),
    "smooth-l1": (nn.SmoothL1Loss, T.SmoothL1Loss, (5, 3), (5, 3)),
    "huber": (nn.HuberLoss, T.HuberLoss, (5, 3), (5, 3)),
    "bce": (nn.BCELoss, T.BCELoss, Tensor((5, 3), "float", 0.1, 0.9), Tensor((5, 3), "float", 0, 1)),
    "bce-logits": (nn.BCEWithLogitsLoss, T.BCEWithLogitsLoss, (5, 3), Tensor((5, 3), "float", 0, 1)),
    "kl-div": (nn.KLDivLoss, T.KLDivLoss, (5, 3), Tensor((5, 3), "float", 0.1, 1)),
    "cross-entropy": (nn.CrossEntropyLoss, T.CrossEntropyLoss, (5, 3), Tensor((5,), "int64", 0, 2)),
    "nll": (nn.NLLLoss, T.NLLLoss, (5, 3), Tensor((5,), "int64", 0, 2)),
    "cosine-similarity": (nn.CosineSimilarity, T.CosineSimilarity, (5, 3), (5, 3)),
    "pairwise-distance": (nn.PairwiseDistance, T.PairwiseDistance, (5, 3), (5, 3)),
    "triplet": (nn.TripletMarginLoss, T.TripletMarginLoss, (5, 3), (5, 3), (5, 3)),
    "softmin": (lambda: lambda x: nn.Softmax(1)(-x), lambda: T.Softmin(1), (5, 3)),
}

#: function -> (ours, theirs, inputs)
FUNCTIONS = {
    "affine-grid-4d": (
        lambda t: nn.affine_grid_generator_4D(t, 5, 3, 2, 4, False),
        lambda t: F.affine_grid(t, (5, 3, 2, 4), False),
        (5, 2, 3),
    ),
    "affine-grid-5d": (
        lambda t: nn.affine_grid_generator_5D(t, 2, 1, 2, 4, 3, True),
        lambda t: F.affine_grid(t, (2, 1, 2, 4, 3), True),
        (2, 3, 4),
    ),
    "grid-sampler": (
        lambda x, g: nn.grid_sampler(x, g, "bilinear", "zeros", False),
        lambda x, g: F.grid_sample(x, g, align_corners=False),
        (5, 3, 4, 6),
        Tensor((5, 7, 8, 2), "float", -1.2, 1.2),
    ),
    "grid-sampler-2d": (
        lambda x, g: nn.grid_sampler_2d(x, g, "bilinear", "border", True),
        lambda x, g: F.grid_sample(x, g, padding_mode="border", align_corners=True),
        (5, 3, 4, 6),
        Tensor((5, 7, 8, 2), "float", -1.2, 1.2),
    ),
    "grid-sampler-3d": (
        lambda x, g: nn.grid_sampler_3d(x, g, "bilinear", "reflection", False),
        lambda x, g: F.grid_sample(x, g, padding_mode="reflection", align_corners=False),
        (1, 2, 4, 5, 6),
        Tensor((1, 2, 4, 7, 3), "float", -1.2, 1.2),
    ),
    "unnormalize": (
        lambda x: nn.grid_sampler_unnormalize(x, 7, False),
        lambda x: ((x + 1) * 7 - 1) / 2,
        (5, 3),
    ),
    "linspace": (
        lambda x: x * nn.linspace_from_neg_one(x, 4, True),
        lambda x: x * torch.linspace(-1, 1, 4, dtype=x.dtype),
        (5, 4),
    ),
    "matmul-transpose": (nn.matmul_transpose, F.linear, (5, 3), (4, 3)),
    "matmul-transpose-batches": (
        nn.matmul_transpose,
        lambda a, b: a @ b.transpose(-1, -2),
        (2, 5, 3),
        (2, 4, 3),
    ),
    "upsample": (lambda x: nn.upsample(x, (4, 7)), lambda x: F.interpolate(x, (4, 7)), (5, 2, 3, 6)),
    "argmax-pool": (lambda x: mf.argmax_pool(x, 2, 2), lambda x: F.max_pool2d(x, 2), (5, 2, 4, 6)),
    "baddbmm": (
        lambda x, a, b: baddbmm(x, a, b, beta=0.5, alpha=2.0),
        lambda x, a, b: torch.baddbmm(x, a, b, beta=0.5, alpha=2.0),
        (5, 2, 4),
        (5, 2, 3),
        (5, 3, 4),
    ),
    "softmax-v1": (softmax_v1, lambda x: F.softmax(x, -1), (5, 3)),
    "log-softmax-v1": (lambda x: softmax_v1(x, log=True), lambda x: F.log_softmax(x, -1), (5, 3)),
    "attention": (
        lambda q, k, v, w, b, o, c: multi_head_attention_forward(
            q, k, v, 4, 2, w, b, None, None, False, 0.0, o, c
        ),
        lambda q, k, v, w, b, o, c: F.multi_head_attention_forward(
            q, k, v, 4, 2, w, b, None, None, False, 0.0, o, c
        ),
        (3, 5, 4),
        (2, 5, 4),
        (2, 5, 4),
        (12, 4),
        (12,),
        (4, 4),
        (4,),
    ),
    "unpool-2d": (
        lambda x: nn.MaxUnpool2d(2)(*nn.MaxPool2d(2, return_indices=True)(x)),
        lambda x: F.max_unpool2d(*F.max_pool2d(x, 2, return_indices=True), 2),
        (5, 2, 4, 6),
    ),
    "unpool-3d": (
        lambda x: nn.MaxUnpool3d(2)(*nn.MaxPool3d(2, return_indices=True)(x)),
        lambda x: F.max_unpool3d(*F.max_pool3d(x, 2, return_indices=True), 2),
        (1, 3, 4, 6, 4),
    ),
}


def tensors(inputs):
    """Shapes as tensors whose values are far apart, so that no fold has to decide between equals."""
    return tuple(Tensor(given, distinct=True) if isinstance(given, tuple) else given for given in inputs)


def of_arrays(function):
    """A function of arrays from one of PyTorch's tensors."""

    def call(*arrays):
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = function(*(torch.from_numpy(np.array(a)) for a in arrays))
        flat = [found] if torch.is_tensor(found) else list(flattened(found))
        return tuple(t.numpy() for t in flat) if len(flat) > 1 else flat[0].numpy()

    return call


def flattened(value):
    """The arrays in nested tuples."""
    for part in value:
        if isinstance(part, tuple):
            yield from flattened(part)
        elif part is not None:
            yield part


def answers(value):
    """What a function answers, without nesting and what is left out."""
    return tuple(flattened(value)) if isinstance(value, tuple) else value


def layer_functions(make_ours, make_theirs):
    """(ours, theirs, shapes of parameters): functions of the inputs and the parameters, which are set in fresh layers."""
    given = make_theirs()
    theirs = given.double() if isinstance(given, T.Module) else None
    parameters = dict(theirs.named_parameters()) if theirs is not None else {}

    def ours(*arguments):
        layer = make_ours()
        count = len(arguments) - len(parameters)
        for name, value in zip(parameters, arguments[count:], strict=True):
            owner = layer
            *path, last = name.split(".")
            for part in path:
                owner = getattr(owner, part)
            setattr(owner, last, value)
        return answers(layer(*arguments[:count]))

    def expected(*arguments):
        count = len(arguments) - len(parameters)
        if theirs is None:
            return given(*arguments)
        state = dict(zip(parameters, arguments[count:], strict=True))
        return torch.func.functional_call(theirs, state, arguments[:count])

    return ours, of_arrays(expected), [tuple(p.shape) for p in parameters.values()]


@pytest.mark.parametrize("name", LAYERS)
def test_layer(name):
    make_ours, make_theirs, *inputs = LAYERS[name]
    ours, theirs, shapes = layer_functions(make_ours, make_theirs)
    fixed = {n for shape in shapes for n in shape}
    check_composition(ours, theirs, [Sample(tensors([*inputs, *shapes]))], fixed=fixed, name=name)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_function(name):
    ours, theirs, *inputs = FUNCTIONS[name]
    check_composition(lambda *x: answers(ours(*x)), of_arrays(theirs), [Sample(tensors(inputs))], name=name)
