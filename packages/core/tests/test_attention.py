"""Attention without another framework: masks, dropout, what nobody may look at, parameters, errors."""

from __future__ import annotations

import numpy as np
import pytest

import metafuse as mf
from metafuse.attention import (
    MultiheadAttention,
    baddbmm,
    multi_head_attention_forward,
    scaled_dot_product_attention,
)
from metafuse.errors import ArgumentError, DTypeError, ShapeError

close = np.testing.assert_allclose
RANDOM = np.random.default_rng(9)


@pytest.fixture(autouse=True)
def reference_backend():
    with mf.flag_scope(backend="reference"):
        mf.set_global_seed(1)
        yield


def draw(*shape):
    return mf.array64(RANDOM.standard_normal(shape))


def softmax(scores):
    e = np.exp(scores - scores.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def test_a_mask_of_bools_says_what_takes_part():
    q, k, v = draw(2, 3, 4), draw(2, 5, 4), draw(2, 5, 3)
    mask = RANDOM.random((2, 3, 5)) < 0.6
    mask[..., 0] = True
    scores = q.numpy() @ k.numpy().transpose(0, 2, 1) / 2
    expected = softmax(np.where(mask, scores, -np.inf)) @ v.numpy()
    close(scaled_dot_product_attention(q, k, v, mf.array(mask)).numpy(), expected)
    both = mask & np.tri(3, 5, dtype=bool)
    expected = softmax(np.where(both, scores, -np.inf)) @ v.numpy()
    close(scaled_dot_product_attention(q, k, v, mf.array(mask), is_causal=True).numpy(), expected)


def test_who_may_look_at_nothing_gets_zeros_and_no_gradient():
    q, k, v = draw(2, 4), draw(3, 4), draw(3, 4)
    for mask in (mf.array([[False] * 3, [True] * 3]), mf.array64([[-np.inf] * 3, [0.0] * 3])):
        answer = scaled_dot_product_attention(q, k, v, mask)
        assert not answer.numpy()[0].any()
        assert answer.numpy()[1].any()
        gradients = [g.numpy() for g in mf.grad(answer.sum(), [q, k, v])]
        assert all(np.isfinite(g).all() for g in gradients)
        assert not gradients[0][0].any()
    layer = MultiheadAttention(4, 2)
    x = mf.ones(3, 2, 4)
    answer, weights = layer(x, x, x, key_padding_mask=mf.array([[True] * 3, [False] * 3]))
    assert not weights.numpy()[0].any()
    assert np.isfinite(answer.numpy()).all()


def test_dropout():
    q, k, v = mf.ones(1, 200, 4), mf.ones(1, 50, 4), mf.ones(1, 50, 1)
    dropped = scaled_dot_product_attention(q, k, v, dropout_p=0.5).numpy()
    assert 0.9 < dropped.mean() < 1.1
    assert dropped.std() > 0.05
    layer = MultiheadAttention(4, 2, dropout=0.5)
    x = draw(30, 1, 4).cast("float32")
    assert (layer(x, x, x)[1].numpy() == 0).any()
    layer.eval()
    close(layer(x, x, x)[1].numpy().sum(-1), np.ones((1, 30)), rtol=1e-5)


def test_a_causal_layer_does_not_see_what_comes_later():
    layer = MultiheadAttention(4, 2, dtype="float64")
    x = draw(5, 2, 4)
    answer, weights = layer(x, x, x, is_causal=True)
    assert not np.triu(weights.numpy(), 1).any()
    changed = x.numpy()
    changed[3:] += 1
    again, _ = layer(mf.array64(changed), mf.array64(changed), mf.array64(changed), is_causal=True)
    close(again.numpy()[:3], answer.numpy()[:3])


def test_static_keys_and_values():
    layer = MultiheadAttention(4, 2, dtype="float64")
    x = draw(3, 2, 4)
    packed, zero = layer.in_proj_weight, mf.zeros(12, dtype="float64")
    tail = (None, None, False, 0.0, layer.out_proj.weight, None)
    expected, _ = multi_head_attention_forward(x, x, x, 4, 2, packed, zero, *tail)

    def heads(part):
        y = x @ packed[4 * part : 4 * part + 4].transpose()
        return y.reshape([3, 4, 2]).transpose(1, 0, 2)

    found, _ = multi_head_attention_forward(
        x, x, x, 4, 2, packed, zero, *tail, static_k=heads(1), static_v=heads(2)
    )  # fmt: skip
    close(found.numpy(), expected.numpy())


def test_parameters():
    names = dict(MultiheadAttention(6, 2, add_bias_kv=True).named_parameters())
    assert {k: tuple(p.shape) for k, p in names.items()} == {
        "in_proj_weight": (18, 6), "in_proj_bias": (18,), "out_proj.weight": (6, 6), "out_proj.bias": (6,),
        "bias_k": (1, 1, 6), "bias_v": (1, 1, 6),
    }  # fmt: skip
    assert all(p.requires_grad for p in names.values())
    separate = dict(MultiheadAttention(6, 2, bias=False, kdim=5, vdim=4, dtype="float64").named_parameters())
    assert {k: tuple(p.shape) for k, p in separate.items()} == {
        "q_proj_weight": (6, 6), "k_proj_weight": (6, 5), "v_proj_weight": (6, 4), "out_proj.weight": (6, 6),
    }  # fmt: skip
    assert all(p.dtype == "float64" for p in separate.values())


def test_baddbmm():
    a, b, c = draw(2, 3, 4), draw(2, 4, 5), draw(2, 3, 5)
    close(baddbmm(c, a, b, beta=0.5, alpha=2).numpy(), 0.5 * c.numpy() + 2 * (a.numpy() @ b.numpy()))


def test_empty():
    assert scaled_dot_product_attention(
        mf.ones(2, 0, 4), mf.ones(2, 3, 4), mf.ones(2, 3, 1)
    ).numpy().shape == (2, 0, 1)
    layer = MultiheadAttention(4, 2)
    x = mf.zeros(3, 0, 4)
    assert layer(x, x, x)[0].numpy().shape == (3, 0, 4)


X = mf.ones(3, 2, 4)


@pytest.mark.parametrize(
    ("function", "error", "words"),
    [
        (
            lambda: scaled_dot_product_attention(mf.ones(2, 3), mf.ones(2, 4), mf.ones(2, 4)),
            ShapeError,
            "needs query",
        ),
        (lambda: scaled_dot_product_attention(X, X, X, mf.ones(5, 5)), ShapeError, "attn_mask"),
        (lambda: scaled_dot_product_attention(X, X, X, dropout_p=2), ArgumentError, "p must be"),
        (lambda: MultiheadAttention(5, 2), ArgumentError, "embed_dim 5 must be a multiple of num_heads 2"),
        (lambda: MultiheadAttention(4, 0), ArgumentError, "num_heads must be >= 1"),
        (lambda: MultiheadAttention(4, 2, dtype="int32"), DTypeError, "dtype must be floating"),
        (lambda: MultiheadAttention(6, 2)(X, X, X), ShapeError, "embed_dim = 6 features, got 4"),
        (lambda: MultiheadAttention(4, 2)(X, X[:2], X), ShapeError, "must agree"),
        (lambda: MultiheadAttention(4, 2)(X, X[:, 0], X), ShapeError, "must all be"),
        (
            lambda: MultiheadAttention(4, 2)(X, X, X, attn_mask=mf.ones(2, 2)),
            ShapeError,
            r"\[3, 3\] or \[4, 3, 3\]",
        ),
        (lambda: MultiheadAttention(4, 2)(X, X, X, mf.ones(2, 5)), ShapeError, r"\[batch, keys\] = \[2, 3\]"),
        (lambda: MultiheadAttention(4, 2)(X, X, X, mf.array([[1, 1, 1]] * 2)), DTypeError, "must be bool"),
    ],
)
def test_errors(function, error, words):
    with pytest.raises(error, match=words):
        function()
