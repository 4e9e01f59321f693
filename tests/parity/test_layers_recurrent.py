"""Recurrent layers against PyTorch: outputs, states, gradients of inputs, states and every weight."""

from __future__ import annotations

import numpy as np
import pytest

import metafuse as mf
from metafuse import nn

torch = pytest.importorskip("torch")

CASES = {
    "rnn": ("RNN", {}),
    "rnn-relu": ("RNN", {"nonlinearity": "relu", "num_layers": 2}),
    "rnn-no-bias": ("RNN", {"bias": False, "bidirectional": True}),
    "lstm": ("LSTM", {}),
    "lstm-levels": ("LSTM", {"num_layers": 2, "bidirectional": True}),
    "lstm-projection": ("LSTM", {"num_layers": 2, "proj_size": 3, "bidirectional": True}),
    "lstm-batch-first": ("LSTM", {"batch_first": True, "bias": False}),
    "gru": ("GRU", {}),
    "gru-levels": ("GRU", {"num_layers": 3, "bidirectional": True, "batch_first": True}),
    "gru-no-bias": ("GRU", {"bias": False}),
}
LENGTH, BATCH, INPUTS, HIDDEN = 6, 3, 4, 5


def close(found, expected, name):
    np.testing.assert_allclose(found.numpy(), expected.detach().numpy(), rtol=2e-4, atol=2e-5, err_msg=name)


def pair(state):
    return state if isinstance(state, tuple) else (state,)


def made(kind, options):
    torch.manual_seed(0)
    ours, theirs = (
        getattr(nn, kind)(INPUTS, HIDDEN, **options),
        getattr(torch.nn, kind)(INPUTS, HIDDEN, **options),
    )
    assert list(ours.state_dict()) == list(theirs.state_dict())
    ours.load_state_dict(theirs.state_dict())
    return ours, theirs


@pytest.mark.filterwarnings("ignore:LSTM with projections")
@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("given", [False, True], ids=["zeros", "given"])
def test_sequence(name, given):
    kind, options = CASES[name]
    ours, theirs = made(kind, options)
    generator = np.random.default_rng(1)
    shape = (BATCH, LENGTH, INPUTS) if options.get("batch_first") else (LENGTH, BATCH, INPUTS)
    arrays = [generator.standard_normal(shape)]
    if given:
        count = options.get("num_layers", 1) * (2 if options.get("bidirectional") else 1)
        arrays.append(generator.standard_normal((count, BATCH, options.get("proj_size") or HIDDEN)))
        if kind == "LSTM":
            arrays.append(generator.standard_normal((count, BATCH, HIDDEN)))
    arrays = [a.astype(np.float32) for a in arrays]
    a = [mf.array(v) for v in arrays]
    b = [torch.from_numpy(v).requires_grad_() for v in arrays]

    def states(values):
        return () if not given else (tuple(values[1:]) if kind == "LSTM" else values[1],)

    y, hy = ours(a[0], *states(a))
    z, hz = theirs(b[0], *states(b))
    results, expected = [y, *pair(hy)], [z, *pair(hz)]
    weights = [generator.standard_normal(tuple(r.shape)).astype(np.float32) for r in expected]
    for k, (r, e) in enumerate(zip(results, expected)):
        assert tuple(r.shape) == tuple(e.shape)
        close(r, e, f"result {k}")
    sum((e * torch.from_numpy(w)).sum() for e, w in zip(expected, weights)).backward()
    loss = sum((r * mf.array(w)).sum() for r, w in zip(results, weights))
    named = ours.named_parameters()
    gradients = mf.grad(loss, [*a, *(p for _, p in named)])
    for k, v in enumerate(b):
        close(gradients[k], v.grad, f"gradient of argument {k}")
    theirs_named = dict(theirs.named_parameters())
    for (n, _), g in zip(named, gradients[len(a) :]):
        close(g, theirs_named[n].grad, f"gradient of {n}")


@pytest.mark.parametrize("kind", ["RNNCell", "LSTMCell", "GRUCell"])
@pytest.mark.parametrize("bias", [True, False])
def test_cell(kind, bias):
    ours, theirs = made(kind, {"bias": bias})
    generator = np.random.default_rng(2)
    x, h, c = (generator.standard_normal((BATCH, n)).astype(np.float32) for n in (INPUTS, HIDDEN, HIDDEN))
    states = (h, c) if kind == "LSTMCell" else (h,)
    a, b = [mf.array(v) for v in (x, *states)], [torch.from_numpy(v).requires_grad_() for v in (x, *states)]
    y = pair(ours(a[0], tuple(a[1:]) if len(a) > 2 else a[1]))
    z = pair(theirs(b[0], tuple(b[1:]) if len(b) > 2 else b[1]))
    for r, e in zip(y, z):
        close(r, e, kind)
    sum((e * e).sum() for e in z).backward()
    found = mf.grad(sum((r * r).sum() for r in y), [*a, *ours.parameters()])
    for g, v in zip(found, [*b, *theirs.parameters()]):
        close(g, v.grad, kind)
    for r, e in zip(pair(ours(a[0])), pair(theirs(b[0]))):
        close(r, e, f"{kind} from zeros")


def test_training_follows_the_same_path():
    ours, theirs = made("LSTM", {"num_layers": 2})
    first = nn.SGD(ours.parameters(), 0.5, 0.9)
    second = torch.optim.SGD(theirs.parameters(), 0.5, momentum=0.9)
    generator = np.random.default_rng(3)
    for _ in range(5):
        x = generator.standard_normal((LENGTH, BATCH, INPUTS)).astype(np.float32)
        loss = (ours(mf.array(x))[0] ** 2).mean()
        expected = (theirs(torch.from_numpy(x))[0] ** 2).mean()
        first.step(loss)
        second.zero_grad()
        expected.backward()
        second.step()
        assert loss.item() == pytest.approx(expected.item(), rel=1e-3)
