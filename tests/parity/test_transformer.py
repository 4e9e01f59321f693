"""Transformers against PyTorch: answers and gradients of inputs and parameters, in every arrangement of options and masks."""

from __future__ import annotations

import numpy as np
import pytest

import metafuse as mf
from metafuse import nn

torch = pytest.importorskip("torch")

RANDOM = np.random.default_rng(11)
L, S, N, E, H, F = 4, 3, 2, 6, 2, 10
PADDING = np.array([[False, False, False, True], [False, False, True, True]])
MEMORY_PADDING = np.array([[False, True, False], [False, False, True]])
CAUSAL = np.triu(np.ones((L, L), bool), 1)
BIAS = RANDOM.standard_normal((N * H, L, L))


def theirs_of(value):
    return torch.tensor(value) if isinstance(value, np.ndarray) else value


def ours_of(value):
    return mf.array64(value) if isinstance(value, np.ndarray) else value


def twins(name, *args, **options):
    """The same module twice, in float64, with the same random parameters; dropout is switched off in both."""
    theirs = getattr(torch.nn, name)(*args, **options).double().train()
    ours = getattr(nn, name)(*args, **options)
    fill(ours, theirs)
    return ours, theirs


def fill(ours, theirs):
    state = {k: RANDOM.standard_normal(tuple(v.shape)) * 0.5 for k, v in theirs.state_dict().items()}
    theirs.load_state_dict({k: torch.tensor(v) for k, v in state.items()})
    ours.float64()
    assert {k: tuple(v.shape) for k, v in ours.named_parameters()} == {k: v.shape for k, v in state.items()}
    for key, var in ours.named_parameters():
        var.assign(mf.array64(state[key]))


def check(ours, theirs, shapes, **masks):
    arrays = [RANDOM.standard_normal(shape) for shape in shapes]
    inputs = [mf.array64(a) for a in arrays]
    others = [torch.tensor(a, requires_grad=True) for a in arrays]
    found = ours(*inputs, **{k: ours_of(v) for k, v in masks.items()})
    expected = theirs(*others, **{k: theirs_of(v) for k, v in masks.items()})
    np.testing.assert_allclose(found.numpy(), expected.detach().numpy(), rtol=1e-8, atol=1e-9)
    weights = np.random.default_rng(1).uniform(0.5, 1.5, tuple(found.shape))
    named = dict(theirs.named_parameters())
    names, parameters = zip(*ours.named_parameters())
    gradients = mf.grad((found * mf.array64(weights)).sum(), [*inputs, *parameters])
    (expected * torch.tensor(weights)).sum().backward()
    for label, g, x in zip(
        ["x", "y"][: len(inputs)] + list(names), gradients, [*others, *(named[n] for n in names)]
    ):
        np.testing.assert_allclose(g.numpy(), x.grad.numpy(), rtol=1e-7, atol=1e-8, err_msg=label)


def sequence(length, batch_first):
    return (N, length, E) if batch_first else (length, N, E)


MASKS = {
    "none": {},
    "bool": {"src_mask": CAUSAL},
    "float": {"src_mask": BIAS},
    "padding": {"src_key_padding_mask": PADDING},
    "both": {"src_mask": BIAS[0], "src_key_padding_mask": np.where(PADDING, -1e9, 0.0)},
    "causal": {"src_mask": CAUSAL, "is_causal": True},
}


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("norm_first", [False, True])
@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_encoder_layer(batch_first, norm_first, activation):
    options = {"activation": activation, "batch_first": batch_first, "norm_first": norm_first}
    ours, theirs = twins("TransformerEncoderLayer", E, H, F, 0.0, **options)
    check(ours, theirs, [sequence(L, batch_first)], src_mask=CAUSAL, src_key_padding_mask=PADDING)


@pytest.mark.parametrize("masks", MASKS)
def test_masks(masks):
    ours, theirs = twins("TransformerEncoderLayer", E, H, F, 0.0, batch_first=True)
    check(ours, theirs, [(N, L, E)], **MASKS[masks])


def test_further_options():
    ours, theirs = twins("TransformerEncoderLayer", E, H, F, 0.0, layer_norm_eps=0.1, bias=False)
    check(ours, theirs, [(L, N, E)])
    ours = nn.TransformerEncoderLayer(E, H, F, 0.0, nn.silu)
    theirs = torch.nn.TransformerEncoderLayer(E, H, F, 0.0, torch.nn.functional.silu).double()
    fill(ours, theirs)
    check(ours, theirs, [(L, E)])


@pytest.mark.filterwarnings("ignore:enable_nested_tensor")
@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("norm_first", [False, True])
def test_encoder(batch_first, norm_first):
    options = {"batch_first": batch_first, "norm_first": norm_first}
    theirs = torch.nn.TransformerEncoder(
        torch.nn.TransformerEncoderLayer(E, H, F, 0.0, **options), 3, torch.nn.LayerNorm(E)
    ).double()
    ours = nn.TransformerEncoder(nn.TransformerEncoderLayer(E, H, F, 0.0, **options), 3, nn.LayerNorm(E))
    fill(ours, theirs)
    check(ours, theirs, [sequence(L, batch_first)], mask=CAUSAL, src_key_padding_mask=PADDING)


@pytest.mark.parametrize("norm_first", [False, True])
def test_decoder(norm_first):
    options = {"batch_first": True, "norm_first": norm_first, "activation": "gelu"}
    theirs = torch.nn.TransformerDecoder(
        torch.nn.TransformerDecoderLayer(E, H, F, 0.0, **options), 2
    ).double()
    ours = nn.TransformerDecoder(nn.TransformerDecoderLayer(E, H, F, 0.0, **options), 2)
    fill(ours, theirs)
    masks = {"tgt_mask": CAUSAL, "memory_key_padding_mask": MEMORY_PADDING, "tgt_key_padding_mask": PADDING}
    check(ours, theirs, [(N, L, E), (N, S, E)], **masks)


@pytest.mark.filterwarnings("ignore:enable_nested_tensor")
def test_transformer():
    ours, theirs = twins("Transformer", E, H, 2, 1, F, 0.0)
    found = nn.Transformer.generate_square_subsequent_mask(L).numpy()
    np.testing.assert_array_equal(found, torch.nn.Transformer.generate_square_subsequent_mask(L).numpy())
    masks = {"tgt_mask": found.astype(np.float64), "memory_mask": RANDOM.standard_normal((L, S))}
    check(ours, theirs, [(S, N, E), (L, N, E)], **masks)
