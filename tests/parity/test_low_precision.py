"""bfloat16, float16 and mixed precision against PyTorch: bits, operators with gradients, training, the loss scaler."""

from __future__ import annotations

import numpy as np
import pytest

import metafuse as mf
from metafuse import nn
from metafuse.amp import GradScaler, autocast

torch = pytest.importorskip("torch")
F = torch.nn.functional
LOW = {"bfloat16": torch.bfloat16, "float16": torch.float16}
#: the distance of neighbours, relative
STEP = {"bfloat16": 2.0**-7, "float16": 2.0**-10}
EVERY = np.arange(65536, dtype=np.uint16).view(np.int16)
random = np.random.default_rng(11)


def bits_of(tensor):
    return tensor.view(torch.int16).numpy()


def pair(values, kind):
    """The same numbers here and there, with gradients."""
    theirs = (
        torch.from_numpy(np.asarray(values, np.float32)).to(LOW.get(kind, torch.float32)).requires_grad_()
    )
    return mf.array(theirs.detach().float().numpy(), kind), theirs


def same(ours, theirs, kind, steps=1.0, absolute=0.0, what=""):
    """Equal but for ``steps`` in the last digit."""
    assert ours.dtype == kind, what
    assert str(theirs.dtype) == f"torch.{kind}", what
    wanted = theirs.detach().float().numpy()
    size = steps * STEP.get(kind, 1e-6)
    np.testing.assert_allclose(ours.numpy(), wanted, rtol=size, atol=absolute or size * 1e-3, err_msg=what)


# -- bits ---------------------------------------------------------------------------------------------------------------
def test_every_pattern_goes_there_and_back():
    theirs = torch.from_numpy(EVERY.copy()).view(torch.bfloat16)
    x = mf.array(theirs.float().numpy(), "bfloat16")
    y = mf.concat([x[:7], x[7:]], 0)  # through a kernel
    for ours in (x, y):
        back = torch.from_numpy(ours.numpy()).bfloat16()
        numbers = ~torch.isnan(theirs).numpy()
        assert np.array_equal(bits_of(back)[numbers], EVERY[numbers])
        assert np.isnan(ours.numpy()[~numbers]).all()


@pytest.mark.parametrize("kind", LOW)
def test_rounding_of_float32(kind):
    values = random.integers(0, 2**32, 300_000, dtype=np.uint64).astype(np.uint32).view(np.float32)
    values = values[~np.isnan(values)]
    theirs = torch.from_numpy(values).to(LOW[kind]).float().numpy()
    assert np.array_equal(mf.array(values, kind).numpy(), theirs)
    assert np.array_equal(mf.cast(mf.array(values), kind).float32().numpy(), theirs)


def test_casts_between_all_types():
    kinds = ["bool", "int8", "int16", "int32", "int64", "uint8", "float16", "bfloat16", "float32", "float64"]
    for source in kinds:
        values = np.array([0, 1, 2, 3, 100] + ([] if source in ("bool", "uint8") else [-1, -100]))
        theirs = torch.from_numpy(values).to(getattr(torch, source))
        ours = mf.array64(values).cast(source)
        for target in kinds:
            if target != "uint8" or source in ("bool", "uint8"):
                wanted = theirs.to(getattr(torch, target))
                wanted = wanted.float() if target == "bfloat16" else wanted
                np.testing.assert_array_equal(
                    ours.cast(target).numpy(), wanted.numpy(), f"{source} to {target}"
                )


# -- operators ------------------------------------------------------------------------------------------------------------
EXACT = {
    "add": (lambda a, b: a + b), "sub": (lambda a, b: a - b), "mul": (lambda a, b: a * b), "div": (lambda a, b: a / b),
    "scaled": (lambda a, b: a * 0.1), "neg": (lambda a, b: -a), "abs": (lambda a, b: abs(a)),
}  # fmt: skip
SMOOTH = {
    "exp": (lambda x: x.exp(), lambda x: x.exp()), "log": (lambda x: (x * x + 1).log(), lambda x: (x * x + 1).log()),
    "tanh": (lambda x: x.tanh(), lambda x: x.tanh()), "sigmoid": (lambda x: x.sigmoid(), lambda x: x.sigmoid()),
    "sin": (lambda x: x.sin(), lambda x: x.sin()), "sqrt": (lambda x: x.abs().sqrt(), lambda x: x.abs().sqrt()),
    "erf": (lambda x: x.erf(), lambda x: x.erf()), "relu": (nn.relu, F.relu), "gelu": (nn.gelu, F.gelu),
    "silu": (nn.silu, F.silu), "softplus": (nn.softplus, F.softplus),
}  # fmt: skip


@pytest.mark.parametrize("kind", LOW)
@pytest.mark.parametrize("name", EXACT)
def test_arithmetic_has_the_same_bits(name, kind):
    (a, s), (b, t) = pair(random.standard_normal(1001), kind), pair(random.standard_normal(1001) + 3, kind)
    assert np.array_equal(EXACT[name](a, b).numpy(), EXACT[name](s, t).detach().float().numpy())


@pytest.mark.parametrize("kind", LOW)
@pytest.mark.parametrize("name", SMOOTH)
def test_functions_and_gradients(name, kind):
    x, t = pair(random.uniform(-3, 3, (7, 33)), kind)
    ours, theirs = (function(v) for function, v in zip(SMOOTH[name], (x, t), strict=True))
    same(ours, theirs, kind, 2)
    theirs.sum().backward()
    same(mf.grad(ours.sum(), [x])[0], t.grad, kind, 3, 4 * STEP[kind])


REDUCED = {
    "sum": (lambda x: x.sum(1), lambda x: x.sum(1)),
    "sum-all": (lambda x: x.sum(), lambda x: x.sum().reshape(1)),
    "mean": (lambda x: x.mean(0), lambda x: x.mean(0)),
    "max": (lambda x: x.max(1), lambda x: x.amax(1)),
    "var": (lambda x: x.var(1), lambda x: x.var(1, correction=0)),
    "softmax": (lambda x: nn.softmax(x, dim=1), lambda x: x.softmax(1)),
    "log-softmax": (lambda x: nn.log_softmax(x, dim=1), lambda x: x.log_softmax(1)),
    "logsumexp": (lambda x: nn.logsumexp(x, 1), lambda x: x.logsumexp(1)),
    "layer-norm": (lambda x: nn.layer_norm(x, [300]), lambda x: F.layer_norm(x, [300])),
    "mse": (lambda x: nn.mse_loss(x, x * 0.5), lambda x: F.mse_loss(x, x * 0.5).reshape(1)),
}


@pytest.mark.parametrize("kind", LOW)
@pytest.mark.parametrize("name", REDUCED)
def test_folds_and_gradients(name, kind):
    x, t = pair(random.standard_normal((5, 300)), kind)
    ours, theirs = (function(v) for function, v in zip(REDUCED[name], (x, t), strict=True))
    same(ours, theirs, kind, 2, STEP[kind] * 0.5)
    slopes = random.standard_normal(tuple(theirs.shape))
    (g, s) = pair(slopes, kind)
    (theirs * s.detach()).sum().backward()
    same(mf.grad((ours * g).sum(), [x])[0], t.grad, kind, 3, 2 * STEP[kind])


PRODUCTS = {
    "matmul": (lambda a, b: a @ b, lambda a, b: a @ b, (17, 65), (65, 33)),
    "batched": (lambda a, b: a @ b, lambda a, b: a @ b, (3, 5, 70), (3, 70, 6)),
    "linear": (nn.linear, F.linear, (4, 9, 40), (12, 40)),
    "conv": (lambda x, w: nn.conv2d(x, w, None, 2, 1), lambda x, w: F.conv2d(x, w, None, 2, 1), (2, 6, 9, 9), (8, 6, 3, 3)),
    "conv-groups": (
        lambda x, w: nn.conv2d(x, w, None, 1, 1, 1, 2), lambda x, w: F.conv2d(x, w, None, 1, 1, 1, 2),
        (2, 6, 7, 7), (8, 3, 3, 3),
    ),
    "conv-transpose": (
        lambda x, w: nn.conv_transpose(x, w, None, 2), lambda x, w: F.conv_transpose2d(x, w, None, 2),
        (2, 6, 5, 5), (6, 4, 3, 3),
    ),
}  # fmt: skip


@pytest.mark.parametrize("library", [0, 1])
@pytest.mark.parametrize("kind", LOW)
@pytest.mark.parametrize("name", PRODUCTS)
def test_products_and_gradients(name, kind, library):
    mine, yours, first, second = PRODUCTS[name]
    (a, s), (b, t) = pair(random.standard_normal(first), kind), pair(random.standard_normal(second), kind)
    theirs = yours(s, t)
    slopes, upstream = pair(random.standard_normal(tuple(theirs.shape)), kind)
    (theirs * upstream.detach()).sum().backward()
    with mf.flag_scope(library=library):
        ours = mine(a, b)
        gradients = mf.grad((ours * slopes).sum(), [a, b])
        mf.sync([ours, *gradients])
    for got, wanted in ((ours, theirs), (gradients[0], s.grad), (gradients[1], t.grad)):
        same(got, wanted, kind, 1, STEP[kind] * float(wanted.detach().float().abs().max()))


# -- training -------------------------------------------------------------------------------------------------------------
DATA = random.standard_normal((128, 12)).astype(np.float32)
LABELS = (DATA @ random.standard_normal((12, 4))).argmax(1).astype(np.int64)


def networks(seed):
    """The same small network twice."""
    torch.manual_seed(seed)
    theirs = torch.nn.Sequential(
        torch.nn.Linear(12, 48), torch.nn.LayerNorm(48), torch.nn.ReLU(), torch.nn.Linear(48, 4)
    )
    ours = nn.Sequential(nn.Linear(12, 48), nn.LayerNorm(48), nn.ReLU(), nn.Linear(48, 4))
    ours.load_state_dict({k: v.detach().numpy() for k, v in theirs.state_dict().items()})
    return ours, theirs


def train_torch(net, kind, scope, steps):
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    x, y, losses = torch.from_numpy(DATA).to(kind), torch.from_numpy(LABELS), []
    for _ in range(steps):
        with scope():
            loss = F.cross_entropy(net(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def train(net, kind, scope, steps):
    optimizer = mf.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    x, y, losses = mf.array(DATA, kind), mf.array(LABELS), []
    for _ in range(steps):
        with scope():
            loss = nn.cross_entropy_loss(net(x), y)
        optimizer.step(loss)
        losses.append(loss.item())
    return losses


def plain():
    return mf.flag_scope()


def test_training_in_bfloat16():
    ours, theirs = networks(0)
    exact = train_torch(networks(0)[1], torch.float32, lambda: torch.autocast("cpu", enabled=False), 40)
    wanted = train_torch(theirs.bfloat16(), torch.bfloat16, lambda: torch.autocast("cpu", enabled=False), 40)
    got = train(ours.bfloat16(), "bfloat16", plain, 40)
    assert {p.dtype.name for p in ours.parameters()} == {"bfloat16"}
    np.testing.assert_allclose(got[:5], wanted[:5], rtol=0.03)
    assert got[-1] < 0.2 * got[0]
    assert abs(got[-1] - exact[-1]) < 0.05


@pytest.mark.parametrize("level", [1, 4, 5])
def test_training_with_mixed_precision(level):
    ours, theirs = networks(1)
    exact = train_torch(networks(1)[1], torch.float32, lambda: torch.autocast("cpu", enabled=False), 40)
    wanted = train_torch(theirs, torch.float32, lambda: torch.autocast("cpu", torch.bfloat16), 40)
    got = train(ours, "float32", lambda: autocast(level=level), 40)
    assert {p.dtype.name for p in ours.parameters()} == {"float32"}
    np.testing.assert_allclose(got[:5], wanted[:5], rtol=0.02)
    assert abs(got[-1] - exact[-1]) < 0.02


def test_the_scaler_follows_the_same_path():
    """Scales, skipped steps and parameters, over gradients that overflow now and then."""
    theirs = torch.nn.Parameter(torch.tensor([1.0, -2.0]))
    ours = nn.Parameter(np.float32([1.0, -2.0]))
    options = {"init_scale": 64.0, "growth_factor": 4.0, "backoff_factor": 0.25, "growth_interval": 3}
    scaler, other = GradScaler(**options), torch.amp.GradScaler("cpu", **options)
    first, second = mf.optim.Adam([ours], lr=0.1), torch.optim.Adam([theirs], lr=0.1)
    for factor in (np.inf, 1.0, 2.0, np.nan, 1.0, 1.0, 1.0, -1.0, np.inf, 3.0):
        second.zero_grad()
        other.scale((theirs * theirs * float(factor)).sum()).backward()
        other.step(second)
        other.update()
        scaler.step(first, (ours * ours * float(factor)).sum())
        scaler.update()
        assert scaler.get_scale() == other.get_scale()
        np.testing.assert_allclose(ours.numpy(), theirs.detach().numpy(), rtol=1e-5)
    assert scaler.state_dict() == other.state_dict()


def test_states_are_exchanged():
    ours, theirs = networks(2)
    ours.bfloat16().load_state_dict(theirs.bfloat16().state_dict())
    back = ours.state_dict("torch")
    for name, tensor in theirs.state_dict().items():
        assert back[name].dtype == torch.bfloat16
        assert torch.equal(back[name], tensor)
