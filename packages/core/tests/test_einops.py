"""metafuse.einops against the package's own results on NumPy arrays; gradients; layers; what happens without the package."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

import metafuse as mf
from metafuse.ops.registry import Sample, Tensor
from metafuse.testing import check_grads
from metafuse.testing.compositions import check_composition

einops = pytest.importorskip("einops")
from metafuse.einops import layers  # noqa: E402

RANDOM = np.random.default_rng(10)
X = RANDOM.standard_normal((2, 3, 4, 6)).astype(np.float32)


@pytest.fixture(autouse=True)
def reference_backend():
    with mf.flag_scope(backend="reference"):
        yield


def same(found, expected):
    expected = np.asarray(expected)
    np.testing.assert_allclose(found.numpy(), expected.reshape(expected.shape or (1,)), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("pattern", "lengths"),
    [
        ("b c h w -> b (c h w)", {}), ("b c (h p) (w q) -> b h w (p q c)", {"p": 2, "q": 3}), ("b c h w -> w h c b", {}),
        ("... w -> w ...", {}), ("b c h w -> b 1 c (h w)", {}), ("(a b) c h w -> a b c h w", {"a": 2}), ("b ... -> b (...)", {}),
    ],
)  # fmt: skip
def test_rearrange(pattern, lengths):
    expected = einops.rearrange(X, pattern, **lengths)
    same(mf.einops.rearrange(mf.array(X), pattern, **lengths), expected)
    same(einops.rearrange(mf.array(X), pattern, **lengths), expected)  # the package itself knows Vars now
    check_grads(lambda x: mf.einops.rearrange(x, pattern, **lengths), [X])


@pytest.mark.parametrize("reduction", ["min", "max", "sum", "mean", "prod"])
@pytest.mark.parametrize(
    "pattern",
    ["b c h w -> b c", "b c (h 2) (w 3) -> b h w c", "b c h w ->", "b c h w -> 1 c 1 1", "b ... w -> ..."],
)
def test_reduce(pattern, reduction):
    same(mf.einops.reduce(mf.array(X), pattern, reduction), einops.reduce(X, pattern, reduction))
    check_grads(lambda x: mf.einops.reduce(x, pattern, reduction), [X])


def test_reduce_bools_and_by_functions():
    x = X > 0
    for reduction in ("any", "all"):
        same(
            mf.einops.reduce(mf.array(x), "b c h w -> b c", reduction),
            einops.reduce(x, "b c h w -> b c", reduction),
        )
    spread = mf.einops.reduce(mf.array(X), "b c h w -> b c", lambda t, axes: t.max(axes) - t.min(axes))
    same(spread, X.max((2, 3)) - X.min((2, 3)))


@pytest.mark.parametrize(
    ("pattern", "lengths"),
    [
        ("b c h w -> b k c h w", {"k": 3}),
        ("b c h w -> b c (h 2) (w k)", {"k": 2}),
        ("... -> ... k", {"k": 2}),
    ],
)
def test_repeat(pattern, lengths):
    same(mf.einops.repeat(mf.array(X), pattern, **lengths), einops.repeat(X, pattern, **lengths))
    check_grads(lambda x: mf.einops.repeat(x, pattern, **lengths), [X])


def test_lists_are_stacked():
    found = mf.einops.rearrange([mf.array(X), mf.array(X + 1)], "k b c h w -> b c h (k w)")
    same(found, einops.rearrange([X, X + 1], "k b c h w -> b c h (k w)"))


def test_the_other_functions():
    x, y = mf.array(X), mf.array(X[0, 0])
    assert mf.einops.parse_shape(x, "b _ h w") == {"b": 2, "h": 4, "w": 6}
    np.testing.assert_array_equal(mf.einops.asnumpy(x), X)
    same(
        mf.einops.einsum(x, y, "b c h w, h k -> b c k w"),
        einops.einsum(X, X[0, 0], "b c h w, h k -> b c k w"),
    )
    same(mf.einops.einsum(x, mf.array([2.0]), "b c h w, -> b"), 2 * X.sum((1, 2, 3)))
    packed, shapes = mf.einops.pack([x, mf.array(X[:, :, 0, 0])], "b c *")
    expected, theirs = einops.pack([X, X[:, :, 0, 0]], "b c *")
    assert [tuple(s) for s in shapes] == [tuple(s) for s in theirs]
    same(packed, expected)
    for one, other in zip(
        mf.einops.unpack(packed, shapes, "b c *"), einops.unpack(expected, theirs, "b c *")
    ):
        same(one, other)


def test_the_backend_answers_all_that_the_package_may_ask():
    from einops._backends import get_backend

    backend = get_backend(mf.array(X))
    assert backend.framework_name == "metafuse"
    np.testing.assert_array_equal(backend.to_numpy(backend.from_numpy(X)), X)
    np.testing.assert_array_equal(backend.arange(2, 5).numpy(), [2, 3, 4])
    same(backend.tile(mf.array([[1.0, 2.0]]), (2, 3)), np.tile([[1.0, 2.0]], (2, 3)))
    same(backend.stack_on_zeroth_dimension([mf.ones(2), mf.zeros(2)]), [[1, 1], [0, 0]])
    assert backend.is_float_type(mf.ones(1))
    assert not backend.is_float_type(mf.array([1]))
    assert backend.layers().Rearrange is mf.einops.layers.Rearrange


def test_layers():
    from einops.layers import RearrangeMixin

    from metafuse.einops.layers import EinMix, Rearrange, Reduce
    from metafuse.einops.layers import RearrangeMixin as same_mixin

    assert same_mixin is RearrangeMixin
    net = mf.nn.Sequential(
        Rearrange("b c (h p) (w q) -> b h w (c p q)", p=2, q=2),
        Reduce("b h w c -> b c", "mean"),
        EinMix("b (g i) -> b (g o)", "g i o", "g o", g=3, i=4, o=2),
    )
    assert [name for name, _ in net.named_parameters()] == ["2.weight", "2.bias"]
    mean = einops.reduce(X, "b c (h p) (w q) -> b (c p q)", "mean", p=2, q=2)
    mixed = np.einsum("bgi,gio->bgo", mean.reshape(2, 3, 4), net[2].weight.numpy()) + net[2].bias.numpy()
    same(net(mf.array(X)), mixed.reshape(2, 6))
    assert abs(net[2].weight.numpy()).max() <= (3 / 4) ** 0.5
    plain = EinMix("b c h w -> b c h k", "w k", w=6, k=5)
    assert plain.bias is None
    same(plain(mf.array(X)), X @ plain.weight.numpy())
    assert "EinMix('b c h w -> b c h k'" in repr(plain)


def test_mistakes_in_patterns_are_the_packages_errors():
    assert mf.einops.EinopsError is einops.EinopsError
    with pytest.raises(mf.einops.EinopsError, match="Wrong shape"):
        mf.einops.rearrange(mf.array(X), "a b -> b a")
    with pytest.raises(AttributeError, match="nothing"):
        _ = mf.einops.nothing


def test_without_the_package_there_is_an_error_that_helps():
    code = """
import sys
sys.modules["einops"] = None  # as if it were not installed
import metafuse as mf
from metafuse.errors import MetafuseError
for call in (lambda: mf.einops.rearrange(mf.ones(2), "a -> a"), lambda: __import__("metafuse.einops.layers")):
    try:
        call()
    except ImportError as error:
        assert isinstance(error, MetafuseError)
        print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("pip install metafuse[einops]") == 2


def test_import_of_metafuse_does_not_import_it():
    code = "import sys, metafuse; print('einops' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )
    assert done.stdout.strip() == "False"


def mixed(x, w):
    layer = layers.EinMix("a b -> a c", weight_shape="b c", b=4, c=2)
    layer.weight = w
    return layer(x)


#: layer -> (ours, NumPy's, shapes)
LAYERS = {
    "rearrange": (
        lambda x: layers.Rearrange("a (b c) -> c a b", c=2)(x),
        lambda x: x.reshape(x.shape[0], -1, 2).transpose(2, 0, 1),
        (3, 4),
    ),
    "reduce": (lambda x: layers.Reduce("a b -> b", "mean")(x), lambda x: x.mean(0), (3, 4)),
    "mix": (mixed, lambda x, w: x @ w, (3, 4), (4, 2)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_layers_of_every_type_and_shape(name):
    ours, theirs, *shapes = LAYERS[name]
    fixed = (2, 4) if name == "mix" else ()
    check_composition(ours, theirs, [Sample(tuple(map(Tensor, shapes)))], fixed=fixed, name=name)
