"""Further layers, losses and schedulers against PyTorch: values, gradients, learning rates."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

import metafuse as mf
from metafuse import lr_scheduler as schedulers
from metafuse import nn

torch = pytest.importorskip("torch")
F = torch.nn.functional
T = torch.nn
S = torch.optim.lr_scheduler


def close(found, expected, name="", rtol=2e-4):
    np.testing.assert_allclose(
        found.numpy(),
        expected.detach().numpy().reshape(tuple(found.shape)),
        rtol=rtol,
        atol=2e-5,
        err_msg=name,
    )


def compare(ours, theirs, *arrays):
    """Values and gradients with respect to floating-point arrays."""
    a = [mf.array(v) for v in arrays]
    b = [torch.from_numpy(v.copy()) for v in arrays]
    floats = [k for k, v in enumerate(arrays) if v.dtype.kind == "f"]
    for k in floats:
        b[k].requires_grad_()
    y, z = ours(*a), theirs(*b)
    assert tuple(y.shape) == (tuple(z.shape) or (1,))
    close(y, z, "value")
    (z * z).sum().backward()
    for k, g in zip(floats, mf.grad((y * y).sum(), [a[k] for k in floats])):
        close(g, b[k].grad, f"gradient {k}")


def values(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


LAYERS = {
    "selu": (nn.SELU, T.SELU, (4, 5)),
    "celu": (lambda: nn.CELU(0.7), lambda: T.CELU(0.7), (4, 5)),
    "hardtanh": (lambda: nn.Hardtanh(-0.5, 0.7), lambda: T.Hardtanh(-0.5, 0.7), (4, 5)),
    "hardsigmoid": (nn.Hardsigmoid, T.Hardsigmoid, (4, 5)),
    "hardswish": (nn.Hardswish, T.Hardswish, (4, 5)),
    "softsign": (nn.Softsign, T.Softsign, (4, 5)),
    "tanhshrink": (nn.Tanhshrink, T.Tanhshrink, (4, 5)),
    "softshrink": (lambda: nn.Softshrink(0.3), lambda: T.Softshrink(0.3), (4, 5)),
    "hardshrink": (lambda: nn.Hardshrink(0.3), lambda: T.Hardshrink(0.3), (4, 5)),
    "threshold": (lambda: nn.Threshold(0.2, -3), lambda: T.Threshold(0.2, -3), (4, 5)),
    "glu": (lambda: nn.GLU(1), lambda: T.GLU(1), (3, 4, 2)),
    "log-sigmoid": (nn.LogSigmoid, T.LogSigmoid, (4, 5)),
    "log-softmax": (lambda: nn.LogSoftmax(1), lambda: T.LogSoftmax(1), (4, 5)),
    "gelu-tanh": (lambda: nn.gelu_tanh, lambda: T.GELU("tanh"), (4, 5)),
    "max-pool-1d": (lambda: nn.MaxPool1d(3, 2, 1), lambda: T.MaxPool1d(3, 2, 1), (2, 3, 9)),
    "avg-pool-1d": (lambda: nn.AvgPool1d(3, 2, 1), lambda: T.AvgPool1d(3, 2, 1), (2, 3, 9)),
    "adaptive-avg-1d": (lambda: nn.AdaptiveAvgPool1d(4), lambda: T.AdaptiveAvgPool1d(4), (2, 3, 9)),
    "adaptive-max-1d": (lambda: nn.AdaptiveMaxPool1d(4), lambda: T.AdaptiveMaxPool1d(4), (2, 3, 9)),
    "reflection-1d": (lambda: nn.ReflectionPad1d((1, 2)), lambda: T.ReflectionPad1d((1, 2)), (2, 3, 5)),
    "reflection-3d": (lambda: nn.ReflectionPad3d(1), lambda: T.ReflectionPad3d(1), (1, 2, 3, 4, 3)),
    "replication-1d": (lambda: nn.ReplicationPad1d(2), lambda: T.ReplicationPad1d(2), (2, 3, 5)),
    "replication-3d": (
        lambda: nn.ReplicationPad3d((1, 0, 2, 1, 0, 1)),
        lambda: T.ReplicationPad3d((1, 0, 2, 1, 0, 1)),
        (1, 2, 3, 4, 3),
    ),
    "constant-1d": (lambda: nn.ConstantPad1d((2, 1), 3.0), lambda: T.ConstantPad1d((2, 1), 3.0), (2, 3, 5)),
    "constant-3d": (lambda: nn.ConstantPad3d(1, -1.0), lambda: T.ConstantPad3d(1, -1.0), (1, 2, 2, 3, 2)),
    "pixel-unshuffle": (lambda: nn.PixelUnshuffle(2), lambda: T.PixelUnshuffle(2), (2, 3, 4, 6)),
    "channel-shuffle": (lambda: nn.ChannelShuffle(2), lambda: T.ChannelShuffle(2), (2, 6, 3, 2)),
    "unflatten": (lambda: nn.Unflatten(1, (2, -1)), lambda: T.Unflatten(1, (2, -1)), (3, 6)),
    "unfold": (lambda: nn.Unfold((2, 3), 1, 1, 2), lambda: T.Unfold((2, 3), 1, 1, 2), (2, 3, 5, 6)),
    "fold": (lambda: nn.Fold((5, 6), 2, 1, 1, 2), lambda: T.Fold((5, 6), 2, 1, 1, 2), (2, 12, 12)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_layer(name):
    ours, theirs, shape = LAYERS[name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # channel_shuffle of PyTorch
        compare(ours(), theirs(), values(*shape))


@pytest.mark.parametrize(
    "options", [{}, {"stride": 2, "padding": 1, "output_padding": 1}, {"groups": 2, "dilation": 2}]
)
def test_conv_transpose_1d(options):
    torch.manual_seed(0)
    ours, theirs = nn.ConvTranspose1d(4, 6, 3, **options), T.ConvTranspose1d(4, 6, 3, **options)
    ours.load_state_dict(theirs.state_dict())
    compare(ours, theirs, values(2, 4, 7))


@pytest.mark.parametrize("multiplier", [1, 2])
def test_depthwise(multiplier):
    compare(
        nn.DepthwiseConv(stride=2, padding=1),
        lambda x, w: F.conv2d(x, w, None, 2, 1, 1, 4),
        values(2, 4, 7, 6),
        values(4 * multiplier, 1, 3, 3),
    )


def test_pointwise_on_sequences():
    torch.manual_seed(0)
    ours, theirs = nn.Conv1d_sp(3, 5), T.Conv1d(3, 5, 1)
    state = theirs.state_dict()
    ours.load_state_dict({"weight": state["weight"][:, :, 0], "bias": state["bias"]})
    compare(ours, theirs, values(2, 3, 7))


@pytest.mark.parametrize(
    ("pool", "shape"),
    [((2,), (2, 3, 6, 8)), ((3, 2), (2, 3, 7, 9)), ((2,), (1, 2, 4, 6, 4))],
)
def test_unpooling(pool, shape):
    dims = len(shape) - 2
    x = np.random.default_rng(0).permutation(int(np.prod(shape))).reshape(shape).astype(np.float32) / 50
    ours_pool = getattr(nn, f"MaxPool{dims}d")(*pool, return_indices=True)
    theirs_pool = getattr(T, f"MaxPool{dims}d")(*pool, return_indices=True)
    ours, theirs = getattr(nn, f"MaxUnpool{dims}d")(*pool), getattr(T, f"MaxUnpool{dims}d")(*pool)
    compare(lambda v: ours(*ours_pool(v)), lambda v: theirs(*theirs_pool(v)), x)
    y, places = ours_pool(mf.array(x))
    expected = theirs(*theirs_pool(torch.from_numpy(x)), output_size=shape)
    close(ours(y, places, shape), expected, "with a size")


@pytest.mark.parametrize("size", [(3, 4), (2, 5), 1])
def test_adaptive_indices(size):
    x = np.random.default_rng(0).permutation(2 * 3 * 6 * 10).reshape(2, 3, 6, 10).astype(np.float32)
    y, places = nn.AdaptiveMaxPool2d(size, return_indices=True)(mf.array(x))
    z, expected = F.adaptive_max_pool2d(torch.from_numpy(x), size, return_indices=True)
    np.testing.assert_array_equal(y.numpy(), z.numpy())
    np.testing.assert_array_equal(places.numpy(), expected.numpy())


# -- losses -------------------------------------------------------------------------------------------------------
SIGNS = np.array([1, -1, -1, 1, 1, -1])


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_distance_losses(reduction):
    x, y, z = (values(6, 4, seed=k) for k in range(3))
    pairs = [
        (nn.HuberLoss(reduction, 0.6), T.HuberLoss(reduction, 0.6), (x, y)),
        (
            nn.TripletMarginLoss(2.0, swap=True, reduction=reduction),
            T.TripletMarginLoss(2.0, swap=True, reduction=reduction),
            (x, y, z),
        ),
        (
            nn.MarginRankingLoss(0.3, reduction),
            T.MarginRankingLoss(0.3, reduction=reduction),
            (x[:, 0], y[:, 0], SIGNS),
        ),
        (
            nn.HingeEmbeddingLoss(1.0, reduction),
            T.HingeEmbeddingLoss(1.0, reduction=reduction),
            (x[:, 0], SIGNS),
        ),
        (
            nn.CosineEmbeddingLoss(0.1, reduction),
            T.CosineEmbeddingLoss(0.1, reduction=reduction),
            (x, y, SIGNS),
        ),
        (nn.NLLLoss(reduction=reduction), T.NLLLoss(reduction=reduction), (x, np.array([0, 1, 2, 3, 0, 1]))),
    ]
    for ours, theirs, arrays in pairs:
        compare(ours, theirs, *[np.ascontiguousarray(a) for a in arrays])


def test_distances():
    x, y = values(6, 4), values(6, 4, seed=1)
    compare(nn.CosineSimilarity(), T.CosineSimilarity(), x, y)
    for p in (1.0, 2.0, 3.0):
        compare(nn.PairwiseDistance(p, keepdim=True), T.PairwiseDistance(p, keepdim=True), x, y)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("flat", [False, True], ids=["rows", "flat"])
def test_ctc(reduction, flat):
    generator = np.random.default_rng(0)
    steps, batch, classes = 12, 5, 6
    x = values(steps, batch, classes)
    lengths, counts = np.array([12, 7, 10, 12, 4]), np.array([3, 2, 5, 1, 4])
    labels = generator.integers(1, classes, (batch, 5))
    labels[2, :5] = [3, 3, 2, 2, 3]  # repeated ones need a blank between them
    targets = np.concatenate([row[:n] for row, n in zip(labels, counts)]) if flat else labels
    ours, theirs = nn.CTCLoss(0, reduction), T.CTCLoss(0, reduction)
    a, b = mf.array(x), torch.from_numpy(x).requires_grad_()
    y = ours(nn.log_softmax(a, 2), mf.array(targets), mf.array(lengths), mf.array(counts))
    z = theirs(torch.log_softmax(b, 2), *(torch.from_numpy(v) for v in (targets, lengths, counts)))
    close(y, z, "value")
    z.sum().backward()
    close(mf.grad(y.sum(), a), b.grad, "gradient")


def test_ctc_of_labels_that_do_not_fit():
    x = values(3, 2, 4)
    labels, lengths, counts = np.array([[1, 1, 2], [1, 2, 3]]), np.array([3, 3]), np.array([3, 3])
    a, b = mf.array(x), torch.from_numpy(x).requires_grad_()
    arguments = [(mf.array(v), torch.from_numpy(v)) for v in (labels, lengths, counts)]
    y = nn.ctc_loss(nn.log_softmax(a, 2), *(v for v, _ in arguments), reduction="none")
    assert np.isinf(y.numpy()).tolist() == [True, False]
    y = nn.CTCLoss(zero_infinity=True)(nn.log_softmax(a, 2), *(v for v, _ in arguments))
    z = T.CTCLoss(zero_infinity=True)(torch.log_softmax(b, 2), *(v for _, v in arguments))
    z.backward()
    close(y, z, "value")
    close(mf.grad(y, a), b.grad, "gradient")


# -- schedulers ---------------------------------------------------------------------------------------------------
def pair():
    """Our optimizer and theirs, with two groups, one of which has a learning rate of its own."""
    ours = nn.SGD(
        [{"params": [mf.nn.Parameter([1.0])]}, {"params": [mf.nn.Parameter([1.0])], "lr": 0.3}], 0.5
    )
    theirs = torch.optim.SGD(
        [{"params": [T.Parameter(torch.ones(1))]}, {"params": [T.Parameter(torch.ones(1))], "lr": 0.3}], 0.5
    )
    return ours, theirs


def rates(ours, theirs):
    return [ours.lr, ours.param_groups[1]["lr"]], [g["lr"] for g in theirs.param_groups]


EPOCHS = {
    "step": (lambda o: schedulers.StepLR(o, 3, 0.5, 0), lambda o: S.StepLR(o, 3, 0.5)),
    "multi": (lambda o: schedulers.MultiStepLR(o, [2, 5, 5], 0.3, 0), lambda o: S.MultiStepLR(o, [2, 5, 5], 0.3)),
    "exponential": (lambda o: schedulers.ExponentialLR(o, 0.8, 0), lambda o: S.ExponentialLR(o, 0.8)),
    "cosine": (
        lambda o: schedulers.CosineAnnealingLR(o, 5, 0.01, 0),
        lambda o: S.CosineAnnealingLR(o, 5, 0.01),
    ),
    "lambda": (
        lambda o: schedulers.LambdaLR(o, [lambda e: 0.9**e, lambda e: 1 / (1 + e)]),
        lambda o: S.LambdaLR(o, [lambda e: 0.9**e, lambda e: 1 / (1 + e)]),
    ),
    "linear": (lambda o: schedulers.LinearLR(o, 0.2, 0.9, 4), lambda o: S.LinearLR(o, 0.2, 0.9, 4)),
    "constant": (lambda o: schedulers.ConstantLR(o, 0.2, 4), lambda o: S.ConstantLR(o, 0.2, 4)),
    "restarts": (
        lambda o: schedulers.CosineAnnealingWarmRestarts(o, 2, 2, 0.01),
        lambda o: S.CosineAnnealingWarmRestarts(o, 2, 2, 0.01),
    ),
    "one-cycle": (
        lambda o: schedulers.OneCycleLR(o, [1.0, 2.0], 15),
        lambda o: S.OneCycleLR(o, [1.0, 2.0], total_steps=15, cycle_momentum=False),
    ),
    "one-cycle-linear": (
        lambda o: schedulers.OneCycleLR(o, 1.0, 15, 0.5, "linear", 10.0, 100.0),
        lambda o: S.OneCycleLR(o, 1.0, total_steps=15, pct_start=0.5, anneal_strategy="linear", cycle_momentum=False,
                               div_factor=10.0, final_div_factor=100.0),
    ),
    "sequential": (
        lambda o: schedulers.SequentialLR(
            o, [schedulers.LinearLR(o, 0.1, total_iters=3), schedulers.LambdaLR(o, lambda e: 0.7**e)], [3]
        ),
        lambda o: S.SequentialLR(o, [S.LinearLR(o, 0.1, total_iters=3), S.LambdaLR(o, lambda e: 0.7**e)], [3]),
    ),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", EPOCHS)
def test_scheduler(name):
    ours, theirs = pair()
    first, second = EPOCHS[name][0](ours), EPOCHS[name][1](theirs)
    for _ in range(14):
        found, expected = rates(ours, theirs)
        assert found == pytest.approx(expected, rel=1e-6)
        theirs.step()
        first.step()
        second.step()


@pytest.mark.parametrize(
    "options", [{}, {"mode": "max"}, {"threshold_mode": "abs", "threshold": 0.05, "cooldown": 2}]
)
def test_plateau(options):
    ours, theirs = pair()
    common = {"factor": 0.5, "patience": 2, "min_lr": 0.02, **options}
    first, second = schedulers.ReduceLROnPlateau(ours, **common), S.ReduceLROnPlateau(theirs, **common)
    for loss in [
        3.0,
        2.0,
        1.99995,
        2.1,
        1.97,
        2.0,
        2.0,
        2.0,
        2.0,
        1.5,
        1.6,
        1.6,
        1.6,
        1.6,
        1.6,
        1.6,
        1.6,
        1.6,
        1.6,
    ]:
        first.step(loss)
        second.step(loss)
        found, expected = rates(ours, theirs)
        assert found == pytest.approx(expected)
