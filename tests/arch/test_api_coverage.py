"""The rules by which ``tools/api_tests.py`` says what has to be tested and what is: on objects and test files made for that."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "tools"))

import api_tests

import metafuse as mf
from metafuse import nn, optim
from metafuse.ops.registry import find


def answers_var(x: Any) -> mf.Var: ...
def answers_numbers(x: Any) -> list[float]: ...
def changes(x: mf.Var) -> None: ...
def saves(path: str) -> None: ...
def counts() -> int: ...


class Holder(nn.Module):
    """Computes nothing."""


class Distribution:
    def sample(self) -> mf.Var: ...


class Files:
    def names(self) -> list[str]: ...


#: what -> whether it is numeric, whether it has a gradient
EXPECTED = [
    (mf.exp, True, True),
    (mf.Var.exp_, True, True),
    (mf.floor, True, False),
    (nn.Linear, True, True),
    (Holder, False, False),
    (optim.Adam, True, False),
    (optim.LRScheduler, True, False),
    (Distribution, True, True),
    (Files, False, False),
    (answers_var, True, True),
    (answers_numbers, True, False),
    (changes, True, False),
    (saves, False, False),
    (counts, False, False),
    (mf.Var.data, True, False),
    (mf.Var.shape, False, False),
    (3, False, False),
]


def test_what_is_numeric():
    found = api_tests.classify(value for value, _, _ in EXPECTED)
    for (value, numeric, gradient), expected in zip(EXPECTED, found, strict=True):
        assert (expected is not None) is numeric, value
        assert (expected is not None and expected.gradient) is gradient, value
    assert found[0].record is found[1].record is find("exp")


KIT = """
import numpy as np
def close(x, y):
    np.testing.assert_allclose(x, y)
"""
TESTS = """
import numpy as np
import metafuse as mf
from metafuse import nn
from helpers import close
torch = __import__("pytest").importorskip("torch")
TABLE = {"a": lambda x: mf.alpha(x)}
NAMES = ["first", "second"]

def test_table():
    close(TABLE["a"](1).numpy(), 2)

def test_gradient():
    y = nn.beta(1).gamma() + torch.delta
    close(mf.grad(y, 1), 3)

def test_by_name():
    for name in NAMES:
        assert getattr(mf, name)(1).item() == 4

def test_shape_alone():
    assert mf.epsilon(1).shape == (2,)

def helper_that_nobody_calls():
    close(mf.zeta(1), 2)
"""


@pytest.fixture
def evidence(tmp_path):
    (tmp_path / "helpers.py").write_text(KIT)
    (tmp_path / "test_made.py").write_text(TESTS)
    return api_tests.Evidence.of([tmp_path])


def test_what_counts_as_compared(evidence):
    none = api_tests.Numeric(None, True)
    methods = {"gamma", "__add__"}
    names = ["alpha", "beta", "gamma", "first", "delta", "__add__", "epsilon", "zeta"]
    found = {name: evidence.of_name(name, name in methods, none) for name in names}
    assert found == {
        "alpha": (True, False),
        "beta": (True, True),
        "gamma": (True, True),
        "first": (True, False),
        "delta": (False, False),
        "__add__": (True, True),
        "epsilon": (False, False),
        "zeta": (False, False),
    }
    assert evidence.of_name("gamma", False, none) == (False, False)
    assert evidence.of_name("anything", False, api_tests.Numeric(find("exp"), True)) == (True, True)
