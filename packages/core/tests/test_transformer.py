"""Transformers against plain NumPy, gradients against finite differences; modes, states, errors."""

from __future__ import annotations

import numpy as np
import pytest

import metafuse as mf
from metafuse import nn
from metafuse.errors import ArgumentError, DTypeError
from metafuse.testing import check_grads

RANDOM = np.random.default_rng(2)
E, H, F, L, S, N = 4, 2, 6, 3, 2, 2


def normed(x, layer):
    y = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + layer.eps)
    return y * layer.weight.numpy() + layer.bias.numpy()


def linear(x, layer):
    return x @ layer.weight.numpy().T + layer.bias.numpy()


def attended(x, memory, layer, blocked):
    """Attention of ``[length, batch, e]``; ``blocked`` ``[length, memory length]`` says who may not look where."""
    weights = np.split(layer.in_proj_weight.numpy(), 3)
    biases = np.split(layer.in_proj_bias.numpy(), 3)
    q, k, v = (np.moveaxis(np.stack(np.split(y @ w.T + b, H, -1)), 2, 0)
               for y, w, b in zip((x, memory, memory), weights, biases))  # [batch, heads, length, e / heads]  # fmt: skip
    scores = np.where(blocked, -np.inf, q @ np.swapaxes(k, -1, -2) / np.sqrt(E // H))
    chances = np.exp(scores - scores.max(-1, keepdims=True))
    answer = chances / chances.sum(-1, keepdims=True) @ v
    return linear(np.concatenate([answer[:, h].swapaxes(0, 1) for h in range(H)], -1), layer.out_proj)


def computed(layer, x, blocked, memory=None):
    """What a layer answers."""

    def feed(y):
        return linear(np.maximum(linear(y, layer.linear1), 0), layer.linear2)

    parts = [lambda y: attended(y, y, layer.self_attn, blocked), feed]
    if memory is not None:
        parts.insert(1, lambda y: attended(y, memory, layer.multihead_attn, np.zeros((L, S), bool)))
    for number, part in enumerate(parts, 1):
        norm = getattr(layer, f"norm{number}")
        x = x + part(normed(x, norm)) if layer.norm_first else normed(x + part(x), norm)
    return x


def made(module):
    """The module in float64 with parameters that are nothing special."""
    module.float64()
    for var in module.parameters():
        var.assign(mf.array64(RANDOM.standard_normal(tuple(var.shape)) * 0.7))
    return module


CAUSAL = np.triu(np.ones((L, L), bool), 1)


@pytest.mark.parametrize("norm_first", [False, True])
@pytest.mark.parametrize("batch_first", [False, True])
def test_encoder_layer(norm_first, batch_first):
    layer = made(nn.TransformerEncoderLayer(E, H, F, 0.0, norm_first=norm_first, batch_first=batch_first))
    x = RANDOM.standard_normal((L, N, E))
    given = mf.array64(x.swapaxes(0, 1) if batch_first else x)
    for found in (layer(given, mf.array(CAUSAL)), layer(given, is_causal=True)):
        found = found.numpy().swapaxes(0, 1) if batch_first else found.numpy()
        np.testing.assert_allclose(found, computed(layer, x, CAUSAL), rtol=1e-9)
    check_grads(lambda x: layer(x, mf.array(CAUSAL)), [given])


def test_decoder_layer():
    layer = made(nn.TransformerDecoderLayer(E, H, F, 0.0))
    x, memory = RANDOM.standard_normal((L, N, E)), RANDOM.standard_normal((S, N, E))
    found = layer(mf.array64(x), mf.array64(memory), tgt_is_causal=True)
    np.testing.assert_allclose(found.numpy(), computed(layer, x, CAUSAL, memory), rtol=1e-9)
    check_grads(lambda x, y: layer(x, y), [mf.array64(x), mf.array64(memory)])


def test_stacks_and_the_whole():
    encoder = made(nn.TransformerEncoder(nn.TransformerEncoderLayer(E, H, F, 0.0), 2, nn.LayerNorm(E)))
    x = RANDOM.standard_normal((L, N, E))
    free = np.zeros((L, L), bool)
    memory = normed(computed(encoder.layers[1], computed(encoder.layers[0], x, free), free), encoder.norm)
    np.testing.assert_allclose(encoder(mf.array64(x)).numpy(), memory, rtol=1e-9)
    net = made(nn.Transformer(E, H, 1, 1, F, 0.0, custom_encoder=encoder))
    memory, y = RANDOM.standard_normal((S, N, E)), RANDOM.standard_normal((L, N, E))
    free = np.zeros((S, S), bool)
    expected = normed(
        computed(encoder.layers[1], computed(encoder.layers[0], memory, free), free), encoder.norm
    )
    expected = normed(computed(net.decoder.layers[0], y, CAUSAL, expected), net.decoder.norm)
    mask = net.generate_square_subsequent_mask(L)
    np.testing.assert_allclose(
        net(mf.array64(memory), mf.array64(y), tgt_mask=mask).numpy(), expected, rtol=1e-9
    )
    check_grads(lambda x, y: net(x, y, tgt_is_causal=True), [mf.array64(memory), mf.array64(y)])


def test_copies_begin_alike_and_are_apart():
    encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(E, H, F), 2)
    first, second = (layer.linear1.weight for layer in encoder.layers)
    np.testing.assert_array_equal(first.numpy(), second.numpy())
    first.assign(first * 2)
    assert abs(first.numpy() - second.numpy()).max() > 0
    assert len({name for name, _ in encoder.named_parameters()}) == 24


def test_dropout_is_for_training_only():
    layer = nn.TransformerEncoderLayer(E, H, F, dropout=0.5)
    x = mf.array(RANDOM.standard_normal((L, N, E)).astype(np.float32))
    assert abs(layer(x).numpy() - layer(x).numpy()).max() > 0
    layer.eval()
    np.testing.assert_array_equal(layer(x).numpy(), layer(x).numpy())


def test_it_learns():
    mf.set_global_seed(0)
    net = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, 0.0, batch_first=True), 1)
    x = mf.array(RANDOM.standard_normal((4, 5, 8)).astype(np.float32))
    optimizer = mf.optim.Adam(net.parameters(), 0.01)
    losses = []
    for _ in range(15):
        loss = (net(x) - x.flip(1)).sqr().mean()
        optimizer.step(loss)
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]


def test_a_layer_norm_without_bias():
    norm = nn.LayerNorm(E, bias=False)
    norm.weight.assign(mf.array(RANDOM.standard_normal(E).astype(np.float32)))
    x = RANDOM.standard_normal((3, E)).astype(np.float32)
    expected = (
        (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5) * norm.weight.numpy()
    )
    np.testing.assert_allclose(norm(mf.array(x)).numpy(), expected, rtol=1e-4, atol=1e-5)
    assert [name for name, _ in norm.named_parameters()] == ["weight"]


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: nn.TransformerEncoderLayer(5, 2), ArgumentError, "multiple of num_heads"),
        (
            lambda: nn.TransformerEncoderLayer(4, 2, activation="tanhh"),
            ArgumentError,
            "'relu', 'gelu' or a function",
        ),
        (lambda: nn.TransformerEncoderLayer(4, 2, dropout=2), ArgumentError, "from 0 to 1"),
        (
            lambda: nn.TransformerDecoderLayer(4, 2, norm_first="yes"),
            (ArgumentError, DTypeError),
            "norm_first",
        ),
        (lambda: nn.TransformerEncoder(3, 2), DTypeError, r"\[TransformerEncoder\] needs a layer, got int"),
        (lambda: nn.TransformerDecoder(nn.Identity(), 1.5), DTypeError, "num_layers"),
        (lambda: nn.TransformerEncoder(nn.Identity(), 1, 3), DTypeError, "norm must be a module"),
        (lambda: nn.Transformer.generate_square_subsequent_mask(-1), ArgumentError, "sz"),
    ],
)
def test_errors(make, error, words):
    with pytest.raises(error, match=words):
        make()
