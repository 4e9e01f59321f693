"""Attention against PyTorch: answers, weights, gradients of inputs and parameters, in every arrangement of options."""

from __future__ import annotations

import numpy as np
import pytest

import metafuse as mf
from metafuse.attention import MultiheadAttention, scaled_dot_product_attention

torch = pytest.importorskip("torch")

RANDOM = np.random.default_rng(5)
L, S, N, E, H = 3, 4, 2, 6, 2


def draw(*shape):
    return RANDOM.standard_normal(shape)


def both(array):
    return mf.array64(array), torch.tensor(array, requires_grad=True)


def close(found, expected):
    np.testing.assert_allclose(found.numpy(), expected.detach().numpy(), rtol=1e-9, atol=1e-10)


def compare_gradients(ours, theirs, inputs, others):
    """Gradients of a weighted sum of the answers."""
    weights = np.random.default_rng(1).uniform(0.5, 1.5, tuple(ours.shape))
    gradients = mf.grad((ours * mf.array64(weights)).sum(), inputs)
    (theirs * torch.tensor(weights)).sum().backward()
    for g, x in zip(gradients, others):
        close(g, x.grad)


def allowed_mask():
    mask = RANDOM.random((L, S)) < 0.6
    mask[:, 0] = True
    return mask


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"is_causal": True},
        {"scale": 0.3},
        {"attn_mask": allowed_mask()},
        {"attn_mask": draw(L, S)},
        {"attn_mask": draw(N, 1, L, S)},
    ],
    ids=str,
)
def test_scaled_dot_product_attention(options):
    shapes = [(N, H, L, 5), (N, H, S, 5), (N, H, S, 4)]
    ours, theirs = zip(*(both(draw(*shape)) for shape in shapes))
    theirs_options = {k: torch.tensor(v) if isinstance(v, np.ndarray) else v for k, v in options.items()}
    ours_options = {k: mf.array64(v) if isinstance(v, np.ndarray) else v for k, v in options.items()}
    expected = torch.nn.functional.scaled_dot_product_attention(*theirs, **theirs_options)
    found = scaled_dot_product_attention(*ours, **ours_options)
    close(found, expected)
    compare_gradients(found, expected, list(ours), theirs)


LAYERS = {
    "plain": {},
    "no-bias": {"bias": False},
    "bias-kv": {"add_bias_kv": True},
    "zero": {"add_zero_attn": True},
    "both-extra": {"add_bias_kv": True, "add_zero_attn": True},
    "separate": {"kdim": 5, "vdim": 3},
    "batch-first": {"batch_first": True},
}
PADDING = np.array([[False, True, False, False], [False, False, False, True]])
CALLS = {
    "plain": {},
    "heads": {"average_attn_weights": False},
    "no-weights": {"need_weights": False},
    "mask": {"attn_mask": ~allowed_mask()},
    "float-mask": {"attn_mask": draw(L, S)},
    "mask-per-head": {"attn_mask": draw(N * H, L, S)},
    "padding": {"key_padding_mask": PADDING},
    "padding-and-mask": {"key_padding_mask": np.where(PADDING, -1.0, 0.5), "attn_mask": draw(L, S)},
}


def layers(options):
    """The same layer twice, with the same parameters, in float64."""
    theirs = torch.nn.MultiheadAttention(E, H, dtype=torch.float64, **options)
    ours = MultiheadAttention(E, H, dtype="float64", **options)
    state = {k: RANDOM.standard_normal(tuple(v.shape)) for k, v in theirs.state_dict().items()}
    theirs.load_state_dict({k: torch.tensor(v) for k, v in state.items()})
    assert {k: tuple(v.shape) for k, v in ours.state_dict().items()} == {k: v.shape for k, v in state.items()}
    for name, var in ours.named_parameters():
        var.assign(mf.array64(state[name]))
    return ours, theirs


def check(options, call, shapes):
    ours, theirs = layers(options)
    inputs, others = zip(*(both(draw(*shape)) for shape in shapes))
    found, weights = ours(
        *inputs, **{k: mf.array64(v) if isinstance(v, np.ndarray) else v for k, v in call.items()}
    )
    expected, expected_weights = theirs(
        *others, **{k: torch.tensor(v) if isinstance(v, np.ndarray) else v for k, v in call.items()}
    )
    close(found, expected)
    if expected_weights is None:
        assert weights is None
    else:
        close(weights, expected_weights)
    named = dict(theirs.named_parameters())
    names = [name for name, _ in ours.named_parameters()]
    parameters = [var for _, var in ours.named_parameters()]
    compare_gradients(found, expected, [*inputs, *parameters], [*others, *(named[n] for n in names)])


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("call", ["plain", "padding-and-mask"])
def test_layers(layer, call):
    options = LAYERS[layer]
    if layer == "batch-first":
        shapes = [(N, L, E), (N, S, E), (N, S, E)]
    else:
        shapes = [(L, N, E), (S, N, options.get("kdim", E)), (S, N, options.get("vdim", E))]
    check(options, CALLS[call], shapes)


@pytest.mark.parametrize("call", CALLS)
def test_calls(call):
    check({}, CALLS[call], [(L, N, E), (S, N, E), (S, N, E)])


@pytest.mark.parametrize("call", ["plain", "heads", "mask", "float-mask"])
def test_a_single_sequence(call):
    check({}, CALLS[call], [(L, E), (S, E), (S, E)])


def test_self_attention_takes_one_product_and_gives_the_same():
    ours, theirs = layers({})
    x, other = both(draw(L, N, E))
    found, expected = ours(x, x, x)[0], theirs(other, other, other)[0]
    close(found, expected)
    compare_gradients(found, expected, [x, ours.in_proj_weight], [other, theirs.in_proj_weight])


def test_a_state_of_torch_loads():
    theirs = torch.nn.MultiheadAttention(E, H)
    ours = MultiheadAttention(E, H)
    ours.load_state_dict({k: v.numpy() for k, v in theirs.state_dict().items()})
    x = draw(L, N, E).astype(np.float32)
    found = ours(*[mf.array(x)] * 3)[0].numpy()
    expected = theirs(*[torch.tensor(x)] * 3)[0].detach().numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
