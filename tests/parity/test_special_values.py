"""NaN, infinities, signed zeros, tiny and huge numbers through every function that PyTorch has by the same name.

The functions are found by their names, so that a new one is compared as soon as there is one.
"""

from __future__ import annotations

import warnings

import numpy as np
import pytest

import metafuse as mf
from metafuse.ops.creation import array64
from metafuse.ops.registry import all_operators

torch = pytest.importorskip("torch")

NUMBERS = np.array(
    [
        0.0,
        -0.0,
        1,
        -1,
        0.5,
        np.nan,
        np.inf,
        -np.inf,
        2.5,
        -2.5,
        30,
        -30,
        1e-30,
        88,
        -88,
        100,
        -100,
        1e15,
        -1e15,
    ],
    np.float32,
)
ROWS = np.array(
    [
        [1, 2, np.nan, 4, 5, 0],
        [1, np.inf, 2, -np.inf, 0, 3],
        [1, np.inf, 2, np.inf, 0, 3],
        [1, -np.inf, 2, -np.inf, 0, 3],
        [-np.inf] * 6,
        [np.inf] * 6,
        [0.0, -0.0, 0.0, -0.0, 0.0, -0.0],
        [3, 3, 1, 1, 2, 2],
    ],
    np.float32,
)
#: name -> why it is not compared
DIFFERENT = {
    "argmax": "answers the values too",
    "argmin": "answers the values too",
    "argsort": "answers the values too, and keeps the order of equal ones",
    "fmod": "PyTorch: NaN where the quotient is far beyond float32",
    "gelu": "PyTorch: NaN of infinity",
    "norm": "another default for the dimension",
    "sign": "PyTorch: 0 of NaN; here as NumPy has it",
    "var": "another default for the correction",
    **dict.fromkeys(("dropout", "empty_like", "normal", "rand_like", "randint_like", "randn_like"), "random"),
}
#: how a function is called -> its arguments, and how many functions at least can be called so
CALLS = {
    "numbers": ((NUMBERS,), 80),
    "two numbers": ((NUMBERS[:, None], NUMBERS[None]), 10),
    "rows": ((ROWS, 1), 40),
    "columns": ((ROWS, 0), 40),
    "rows and numbers": ((ROWS, 2, 1), 10),
}
HOMES = (torch, torch.nn.functional, torch.special)


def shared():
    """(name, our function, PyTorch's) of the operators by their names."""
    for record in all_operators():
        theirs = next((getattr(home, record.name) for home in HOMES if hasattr(home, record.name)), None)
        if callable(theirs) and not record.name.endswith("_") and record.name not in DIFFERENT:
            yield record.name, record.function, theirs


def floating(answers, kind):
    """The floating answers as arrays."""
    many = answers if isinstance(answers, (tuple, list)) else (answers,)
    arrays = [
        np.atleast_1d((a.detach() if kind is torch.Tensor else a).numpy())
        for a in many
        if isinstance(a, kind)
    ]
    return [a for a in arrays if a.dtype.kind == "f"]


@pytest.mark.parametrize("call", CALLS)
def test_special_values(call):
    arguments, least = CALLS[call]
    compared, wrong = [], []
    for name, ours, theirs in shared():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                answers = theirs(
                    *(torch.from_numpy(a.copy()) if isinstance(a, np.ndarray) else a for a in arguments)
                )
                found = ours(*(array64(a) if isinstance(a, np.ndarray) else a for a in arguments))
            except (AttributeError, TypeError, ValueError, RuntimeError, IndexError, NotImplementedError):
                continue  # not called like this
        for got, expected in zip(floating(found, mf.Var), floating(answers, torch.Tensor), strict=True):
            compared.append(name)
            try:
                np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-6)
            except AssertionError as error:
                wrong.append(f"{name}: {error}")
    assert not wrong, "\n".join(wrong)
    assert len(compared) >= least
