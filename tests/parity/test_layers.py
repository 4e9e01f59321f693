"""Layers, functions and optimizers against PyTorch: values, gradients of inputs and parameters, whole trajectories."""

from __future__ import annotations

import numpy as np
import pytest

import metafuse as mf
from metafuse import nn

torch = pytest.importorskip("torch")
F = torch.nn.functional
T = torch.nn

LAYERS = {
    "conv": (lambda: nn.Conv(3, 4, 3), lambda: T.Conv2d(3, 4, 3), (2, 3, 7, 8)),
    "conv-options": (
        lambda: nn.Conv2d(4, 6, (3, 2), 2, (1, 2), 2, groups=2),
        lambda: T.Conv2d(4, 6, (3, 2), 2, (1, 2), 2, groups=2),
        (2, 4, 9, 8),
    ),
    "conv-depthwise": (
        lambda: nn.Conv(4, 8, 3, padding=1, groups=4, bias=False),
        lambda: T.Conv2d(4, 8, 3, padding=1, groups=4, bias=False),
        (2, 4, 6, 6),
    ),
    "conv-1x1": (lambda: nn.Conv(5, 4, 1, stride=2), lambda: T.Conv2d(5, 4, 1, stride=2), (2, 5, 6, 6)),
    "conv1d": (lambda: nn.Conv1d(3, 4, 3, padding=1), lambda: T.Conv1d(3, 4, 3, padding=1), (2, 3, 9)),
    "conv3d": (lambda: nn.Conv3d(2, 3, 2, 2, 1), lambda: T.Conv3d(2, 3, 2, 2, 1), (1, 2, 4, 5, 4)),
    "conv-transpose": (
        lambda: nn.ConvTranspose(4, 6, 3, 2, 1, 1, groups=2),
        lambda: T.ConvTranspose2d(4, 6, 3, 2, 1, 1, groups=2),
        (2, 4, 5, 4),
    ),
    "conv-transpose-dilated": (
        lambda: nn.ConvTranspose(3, 2, 2, 3, dilation=2),
        lambda: T.ConvTranspose2d(3, 2, 2, 3, dilation=2),
        (2, 3, 4, 4),
    ),
    "linear": (lambda: nn.Linear(5, 4), lambda: T.Linear(5, 4), (3, 5)),
    "linear-3d": (lambda: nn.Linear(5, 4, bias=False), lambda: T.Linear(5, 4, bias=False), (2, 3, 5)),
    "batch-norm": (lambda: nn.BatchNorm(4), lambda: T.BatchNorm2d(4), (5, 4, 3, 3)),
    "batch-norm-1d": (lambda: nn.BatchNorm1d(4, eps=0.1), lambda: T.BatchNorm1d(4, eps=0.1), (6, 4)),
    "layer-norm": (lambda: nn.LayerNorm((3, 5)), lambda: T.LayerNorm((3, 5)), (4, 2, 3, 5)),
    "group-norm": (lambda: nn.GroupNorm(2, 4), lambda: T.GroupNorm(2, 4), (3, 4, 3, 3)),
    "instance-norm": (lambda: nn.InstanceNorm(4), lambda: T.InstanceNorm2d(4, affine=True), (3, 4, 3, 5)),
    "relu": (nn.Relu, T.ReLU, (4, 5)),
    "relu6": (nn.ReLU6, T.ReLU6, (4, 5)),
    "leaky-relu": (lambda: nn.LeakyReLU(0.2), lambda: T.LeakyReLU(0.2), (4, 5)),
    "prelu": (lambda: nn.PReLU(3), lambda: T.PReLU(3), (2, 3, 4)),
    "elu": (lambda: nn.ELU(0.7), lambda: T.ELU(0.7), (4, 5)),
    "gelu": (nn.GELU, T.GELU, (4, 5)),
    "silu": (nn.SiLU, T.SiLU, (4, 5)),
    "mish": (nn.Mish, T.Mish, (4, 5)),
    "sigmoid": (nn.Sigmoid, T.Sigmoid, (4, 5)),
    "tanh": (nn.Tanh, T.Tanh, (4, 5)),
    "softplus": (lambda: nn.Softplus(2, 1), lambda: T.Softplus(2, 1), (4, 5)),
    "softmax": (lambda: nn.Softmax(1), lambda: T.Softmax(1), (4, 5, 2)),
    "log-softmax": (lambda: nn.Softmax(-1, log=True), lambda: T.LogSoftmax(-1), (4, 5)),
    "pool": (lambda: nn.Pool(2, 2), lambda: T.MaxPool2d(2, 2), (2, 3, 7, 6)),
    "max-pool": (
        lambda: nn.MaxPool2d((3, 2), 2, 1, 2, ceil_mode=True),
        lambda: T.MaxPool2d((3, 2), 2, 1, 2, ceil_mode=True),
        (2, 3, 9, 8),
    ),
    "max-pool-3d": (lambda: nn.MaxPool3d(2), lambda: T.MaxPool3d(2), (1, 2, 4, 5, 4)),
    "avg-pool": (lambda: nn.AvgPool2d(3, 2, 1), lambda: T.AvgPool2d(3, 2, 1), (2, 3, 7, 6)),
    "avg-pool-ceil": (
        lambda: nn.AvgPool2d(3, 2, 1, True, False),
        lambda: T.AvgPool2d(3, 2, 1, True, False),
        (2, 3, 8, 6),
    ),
    "avg-pool-ceil-pad": (
        lambda: nn.AvgPool2d(2, 3, 1, True),
        lambda: T.AvgPool2d(2, 3, 1, True),
        (2, 3, 8, 6),
    ),
    "adaptive-avg": (
        lambda: nn.AdaptiveAvgPool2d((3, 4)),
        lambda: T.AdaptiveAvgPool2d((3, 4)),
        (2, 3, 7, 9),
    ),
    "adaptive-avg-1": (lambda: nn.AdaptiveAvgPool2d(1), lambda: T.AdaptiveAvgPool2d(1), (2, 3, 7, 9)),
    "adaptive-max": (
        lambda: nn.AdaptiveMaxPool2d((None, 2)),
        lambda: T.AdaptiveMaxPool2d((None, 2)),
        (2, 3, 5, 7),
    ),
    "flatten": (lambda: nn.Flatten(), lambda: T.Flatten(), (2, 3, 4)),
    "reflection-pad": (
        lambda: nn.ReflectionPad2d((1, 2, 3, 0)),
        lambda: T.ReflectionPad2d((1, 2, 3, 0)),
        (1, 2, 4, 5),
    ),
    "replication-pad": (lambda: nn.ReplicationPad2d(2), lambda: T.ReplicationPad2d(2), (1, 2, 4, 5)),
    "zero-pad": (lambda: nn.ZeroPad2d((1, -1, 2, 0)), lambda: T.ZeroPad2d((1, -1, 2, 0)), (1, 2, 4, 5)),
    "pixel-shuffle": (lambda: nn.PixelShuffle(2), lambda: T.PixelShuffle(2), (1, 8, 2, 3)),
    "sequential": (
        lambda: nn.Sequential(
            nn.Conv(2, 4, 3), nn.BatchNorm(4), nn.Relu(), nn.Pool(2, 2), nn.Flatten(), nn.Linear(16, 3)
        ),
        lambda: T.Sequential(
            T.Conv2d(2, 4, 3), T.BatchNorm2d(4), T.ReLU(), T.MaxPool2d(2, 2), T.Flatten(), T.Linear(16, 3)
        ),
        (3, 2, 6, 6),
    ),
}


def close(found, expected, name, rtol=2e-4, atol=2e-5):
    np.testing.assert_allclose(found, expected, rtol=rtol, atol=atol, err_msg=name)


def same_weights(ours, theirs):
    """Give our module the other's parameters; layers of one name have parameters of one name."""
    ours.load_state_dict(
        {k: v for k, v in theirs.state_dict().items() if not k.endswith("num_batches_tracked")}
    )


@pytest.mark.parametrize("name", LAYERS)
def test_layer(name):
    make_ours, make_theirs, shape = LAYERS[name]
    torch.manual_seed(0)
    generator = np.random.default_rng(1)
    ours, theirs = make_ours(), make_theirs()
    with torch.no_grad():
        for p in theirs.parameters():
            p += 0.1 * torch.rand(p.shape)
    if list(theirs.parameters()):
        same_weights(ours, theirs)
    x = generator.standard_normal(shape).astype(np.float32)
    a, b = mf.array(x), torch.from_numpy(x).requires_grad_()
    y, z = ours(a), theirs(b)
    assert y.shape == tuple(z.shape)
    close(y.numpy(), z.detach().numpy(), "value")
    weights = generator.standard_normal(tuple(z.shape)).astype(np.float32)
    (z * torch.from_numpy(weights)).sum().backward()
    own = [(n, p) for n, p in ours.named_parameters() if p.requires_grad]
    gradients = mf.grad((y * mf.array(weights)).sum(), [a, *[p for _, p in own]])
    close(gradients[0].numpy(), b.grad.numpy(), "gradient of x")
    for (n, _), g in zip(own, gradients[1:]):
        close(g.numpy(), dict(theirs.named_parameters())[n].grad.numpy(), f"gradient of {n}")


@pytest.mark.parametrize("name", ["conv", "batch-norm", "layer-norm", "sequential"])
def test_inference(name):
    make_ours, make_theirs, shape = LAYERS[name]
    torch.manual_seed(0)
    ours, theirs = make_ours(), make_theirs()
    x = torch.randn(shape)
    for _ in range(3):
        theirs(x)
    same_weights(ours, theirs)
    ours.eval()
    theirs.eval()
    close(ours(mf.array(x.numpy())).numpy(), theirs(x).detach().numpy(), name)


def test_state_dict_to_torch():
    ours, theirs = nn.Linear(3, 2), T.Linear(3, 2)
    theirs.load_state_dict(ours.state_dict("torch"))
    close(theirs.weight.detach().numpy(), ours.weight.numpy(), "weight")


def test_pool_indices():
    x = np.random.default_rng(0).permutation(2 * 3 * 6 * 7).reshape(2, 3, 6, 7).astype(np.float32)
    for options in ({}, {"padding": 1, "stride": 2, "kernel_size": 3}, {"dilation": 2}):
        options = {"kernel_size": 2, **options}
        y, places = nn.max_pool2d(mf.array(x), return_indices=True, **options)
        z, expected = F.max_pool2d(torch.from_numpy(x), return_indices=True, **options)
        np.testing.assert_array_equal(y.numpy(), z.numpy())
        np.testing.assert_array_equal(places.numpy(), expected.numpy())


def test_embedding():
    table = np.random.default_rng(0).standard_normal((6, 3)).astype(np.float32)
    rows = np.array([[1, 5, 1], [0, 0, 2]])
    ours = nn.Embedding(6, 3)
    ours.load_state_dict({"weight": table})
    b = torch.from_numpy(table).requires_grad_()
    y, z = ours(mf.array(rows)), F.embedding(torch.from_numpy(rows), b)
    (z * z).sum().backward()
    close(y.numpy(), z.detach().numpy(), "value")
    close(mf.grad((y * y).sum(), ours.weight).numpy(), b.grad.numpy(), "gradient")


LOSSES = {
    "cross-entropy": (lambda x, t, w: nn.cross_entropy_loss(x, t), lambda x, t, w: F.cross_entropy(x, t)),
    "cross-entropy-weighted": (
        lambda x, t, w: nn.cross_entropy_loss(x, t, w, ignore_index=2),
        lambda x, t, w: F.cross_entropy(x, t, w, ignore_index=2),
    ),
    "cross-entropy-sum": (
        lambda x, t, w: nn.cross_entropy_loss(x, t, reduction="sum"),
        lambda x, t, w: F.cross_entropy(x, t, reduction="sum"),
    ),
    "cross-entropy-module": (
        lambda x, t, w: nn.CrossEntropyLoss(ignore_index=1)(x, t),
        lambda x, t, w: T.CrossEntropyLoss(ignore_index=1)(x, t),
    ),
    "nll": (
        lambda x, t, w: nn.nll_loss(nn.log_softmax(x, 1), t, w),
        lambda x, t, w: F.nll_loss(F.log_softmax(x, 1), t, w),
    ),
}


@pytest.mark.parametrize("shape", [(7, 5), (2, 5, 3, 4)])
@pytest.mark.parametrize("name", LOSSES)
def test_class_losses(name, shape):
    ours, theirs = LOSSES[name]
    generator = np.random.default_rng(0)
    x = generator.standard_normal(shape).astype(np.float32) * 3
    t = generator.integers(0, 5, (shape[0], *shape[2:]))
    w = generator.uniform(0.5, 2, 5).astype(np.float32)
    a, b = mf.array(x), torch.from_numpy(x).requires_grad_()
    y, z = ours(a, mf.array(t), mf.array(w)), theirs(b, torch.from_numpy(t), torch.from_numpy(w))
    z.backward()
    close(y.numpy(), z.detach().numpy().reshape(1), name)
    close(mf.grad(y, a).numpy(), b.grad.numpy(), name)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("shape", [(5,), (7, 5), (2, 5, 3), (2, 5, 3, 4)])
def test_probabilities_as_targets(shape, reduction):
    generator = np.random.default_rng(0)
    places = (shape[0], *shape[2:]) if len(shape) > 1 else ()
    for smoothing, weighted in ((0.0, False), (0.0, True), (0.3, True)):
        x = generator.standard_normal(shape).astype(np.float32) * 3
        t = generator.dirichlet(np.ones(5), places).astype(np.float32)
        t = np.ascontiguousarray(np.moveaxis(t, -1, 1 if places else 0))
        w = generator.uniform(0.5, 2, 5).astype(np.float32)
        options = {"reduction": reduction, "label_smoothing": smoothing}
        a, p = mf.array(x), mf.array(t)
        b, q = torch.from_numpy(x).requires_grad_(), torch.from_numpy(t).requires_grad_()
        y = nn.CrossEntropyLoss(mf.array(w) if weighted else None, **options)(a, p)
        z = T.CrossEntropyLoss(torch.from_numpy(w) if weighted else None, **options)(b, q)
        z.sum().backward()
        close(y.numpy(), z.detach().numpy().reshape(y.shape), "value")
        for ours, theirs in zip(mf.grad(y.sum(), [a, p]), (b.grad, q.grad), strict=True):
            close(ours.numpy(), theirs.numpy(), "gradient")


VALUE_LOSSES = {
    "mse": (nn.MSELoss(), T.MSELoss()),
    "mse-none": (nn.MSELoss("none"), T.MSELoss(reduction="none")),
    "l1-sum": (nn.L1Loss("sum"), T.L1Loss(reduction="sum")),
    "l1-none": (nn.L1Loss("none"), T.L1Loss(reduction="none")),
    "smooth-l1-beta": (nn.SmoothL1Loss(beta=0.3), T.SmoothL1Loss(beta=0.3)),
    "smooth-l1-wide": (nn.SmoothL1Loss("none", 4), T.SmoothL1Loss(reduction="none", beta=4)),
    "smooth-l1-sharp": (nn.SmoothL1Loss("sum", 0), T.SmoothL1Loss(reduction="sum", beta=0)),
    "huber-sum": (nn.HuberLoss("sum", 0.4), T.HuberLoss("sum", 0.4)),
    "huber-none": (nn.HuberLoss("none", 3.0), T.HuberLoss("none", 3.0)),
    "bce-none": (
        lambda x, t: nn.BCELoss(reduction="none")(x.sigmoid(), t),
        lambda x, t: T.BCELoss(reduction="none")(x.sigmoid(), t),
    ),
    "bce-logits-none": (nn.BCEWithLogitsLoss(reduction="none"), T.BCEWithLogitsLoss(reduction="none")),
    "bce-logits-sum": (nn.BCEWithLogitsLoss(reduction="sum"), T.BCEWithLogitsLoss(reduction="sum")),
    "l1": (nn.L1Loss(), T.L1Loss()),
    "smooth-l1": (nn.SmoothL1Loss(), T.SmoothL1Loss()),
    "bce": (lambda x, t: nn.BCELoss()(x.sigmoid(), t), lambda x, t: T.BCELoss()(x.sigmoid(), t)),
    "bce-logits": (nn.BCEWithLogitsLoss(), T.BCEWithLogitsLoss()),
    "bce-logits-weighted": (
        nn.BCEWithLogitsLoss(pos_weight=mf.array([2.0, 0.5, 3.0]), size_average=False),
        T.BCEWithLogitsLoss(pos_weight=torch.tensor([2.0, 0.5, 3.0]), reduction="sum"),
    ),
    "kl": (nn.KLDivLoss("batchmean"), T.KLDivLoss(reduction="batchmean")),
}


@pytest.mark.parametrize("name", VALUE_LOSSES)
def test_value_losses(name):
    ours, theirs = VALUE_LOSSES[name]
    generator = np.random.default_rng(0)
    x = generator.standard_normal((6, 3)).astype(np.float32) * 2
    t = generator.uniform(0, 1, (6, 3)).astype(np.float32)
    a, b = mf.array(x), torch.from_numpy(x).requires_grad_()
    y, z = ours(a, mf.array(t)), theirs(b, torch.from_numpy(t))
    z.sum().backward()
    close(y.numpy(), z.detach().numpy().reshape(y.shape), name)
    close(mf.grad(y.sum(), a).numpy(), b.grad.numpy(), name)


OPTIMIZERS = {
    "sgd": (lambda p: nn.SGD(p, 0.05), lambda p: torch.optim.SGD(p, 0.05)),
    "sgd-momentum": (
        lambda p: nn.SGD(p, 0.05, 0.9, 0.01),
        lambda p: torch.optim.SGD(p, 0.05, momentum=0.9, weight_decay=0.01),
    ),
    "sgd-nesterov": (
        lambda p: nn.SGD(p, 0.05, 0.9, nesterov=True),
        lambda p: torch.optim.SGD(p, 0.05, momentum=0.9, nesterov=True),
    ),
    "adam": (lambda p: nn.Adam(p, 0.01), lambda p: torch.optim.Adam(p, 0.01)),
    "adam-decay": (
        lambda p: nn.Adam(p, 0.01, betas=(0.8, 0.99), weight_decay=0.1),
        lambda p: torch.optim.Adam(p, 0.01, betas=(0.8, 0.99), weight_decay=0.1),
    ),
    "adamw": (
        lambda p: nn.AdamW(p, 0.01, weight_decay=0.1),
        lambda p: torch.optim.AdamW(p, 0.01, weight_decay=0.1),
    ),
    "rmsprop": (lambda p: nn.RMSprop(p, 0.01), lambda p: torch.optim.RMSprop(p, 0.01)),
    "rmsprop-momentum": (
        lambda p: nn.RMSprop(p, 0.003, momentum=0.9, weight_decay=0.1),
        lambda p: torch.optim.RMSprop(p, 0.003, momentum=0.9, weight_decay=0.1),
    ),
    "rmsprop-centered": (
        lambda p: nn.RMSprop(p, 0.003, alpha=0.9, eps=1e-4, momentum=0.5, centered=True),
        lambda p: torch.optim.RMSprop(p, 0.003, 0.9, 1e-4, momentum=0.5, centered=True),
    ),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_trajectory(name):
    make_ours, make_theirs, shape = LAYERS["sequential"]
    torch.manual_seed(0)
    ours, theirs = make_ours(), make_theirs()
    same_weights(ours, theirs)
    first, second = OPTIMIZERS[name][0](ours.parameters()), OPTIMIZERS[name][1](theirs.parameters())
    generator = np.random.default_rng(0)
    for _ in range(6):
        x = generator.standard_normal(shape).astype(np.float32)
        t = generator.integers(0, 3, shape[0])
        loss = nn.cross_entropy_loss(ours(mf.array(x)), mf.array(t))
        first.step(loss)
        expected = F.cross_entropy(theirs(torch.from_numpy(x)), torch.from_numpy(t))
        second.zero_grad()
        expected.backward()
        second.step()
        close(loss.numpy(), expected.detach().numpy().reshape(1), name, rtol=2e-3)
    for n, p in theirs.named_parameters():
        if n == "0.bias":
            continue  # batch norm removes it: its gradient is rounding noise, which adaptive rules enlarge
        close(dict(ours.named_parameters())[n].numpy(), p.detach().numpy(), n, rtol=2e-2, atol=2e-3)


def test_a_result_of_one_place_seen_as_a_list():
    ours = nn.Sequential(
        nn.Conv2d(1, 8, 4, 2, 1, bias=False),
        nn.InstanceNorm2d(8),
        nn.LeakyReLU(0.2),
        nn.Conv2d(8, 1, 4, bias=False),
    )
    theirs = T.Sequential(
        T.Conv2d(1, 8, 4, 2, 1, bias=False), T.InstanceNorm2d(8, affine=True), T.LeakyReLU(0.2), T.Conv2d(8, 1, 4, bias=False)
    )  # fmt: skip
    same_weights(ours, theirs)
    x = np.random.default_rng(0).standard_normal((4, 1, 8, 8)).astype(np.float32)
    found = ours(mf.array(x)).view(-1, 1).squeeze(1).sqr().mean()
    wanted = theirs(torch.from_numpy(x)).view(-1, 1).squeeze(1).square().mean()
    wanted.backward()
    close(found.numpy(), wanted.detach().numpy().reshape(1), "value")
    for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
        close(mf.grad(found, p).numpy(), q.grad.numpy(), "gradient", rtol=2e-3)


def test_clip_grad_norm_like_torch():
    x = np.array([3.0, -4.0, 12.0], np.float32)
    ours, theirs = mf.array(x), torch.from_numpy(x.copy()).requires_grad_()
    opt = nn.SGD([ours], 1.0)
    opt.backward((ours * ours).sum())
    opt.clip_grad_norm(2.0)
    (theirs * theirs).sum().backward()
    torch.nn.utils.clip_grad_norm_([theirs], 2.0)
    close(ours.opt_grad(opt).numpy(), theirs.grad.numpy(), "clipped")


def test_first_weights_have_torchs_distribution():
    mf.set_global_seed(1)
    torch.manual_seed(1)
    for ours, theirs in (
        (nn.Conv(16, 64, 5), T.Conv2d(16, 64, 5)),
        (nn.Linear(300, 200), T.Linear(300, 200)),
    ):
        for name in ("weight", "bias"):
            a = getattr(ours, name).numpy()
            b = getattr(theirs, name).detach().numpy()
            few = a.size < 1000
            assert abs(a).max() == pytest.approx(abs(b).max(), rel=0.1 if few else 0.01)
            assert a.std() == pytest.approx(b.std(), rel=0.2 if few else 0.02)
