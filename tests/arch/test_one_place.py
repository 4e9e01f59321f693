"""One operator is one record: what registers it is all there is to write, everything else follows from it."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

import metafuse as mf
from metafuse.cli import main
from metafuse.config import flag_scope
from metafuse.kernel.expr import call, const
from metafuse.ops.elementwise import elementwise, floating
from metafuse.ops.registry import Sample, Tensor, find, operator, unregister
from metafuse.plugins.registry import registry
from metafuse.testing import check_grads
from metafuse.testing.kit import Kit
from metafuse.testing.levels import autograd
from metafuse.testing.levels import elementwise as level
from metafuse.testing.levels.samples import sampled
from metafuse.testing.random_graphs import candidates

ROOT = Path(__file__).resolve().parents[2]
BACKENDS = [s.descriptor.name for s in registry().backends() if s.usable and s.descriptor.name != "null"]


def wobble(x):
    return np.sin(x) / (1 + x * x)


@pytest.fixture
def record():
    """An operator that nobody has heard of before."""
    elementwise(
        "wobble",
        "Sine under a bell, ``sin(x) / (1 + x * x)``.",
        lambda a: call("div", call("sin", a), call("add", const(1, a.dtype), call("mul", a, a))),
        rule=floating,
        numpy=wobble,
        gradients=[lambda g, x, y: g * ((mf.cos(x) - y * x * 2) / (x * x + 1))],
        domain=[Tensor((), "float")],
        source="made up",
    )
    yield find("wobble")
    unregister("wobble")


@pytest.fixture
def composed():
    """A composition that nobody has heard of before."""

    @operator(
        category="made up", numpy=lambda x: x - x.mean(), samples=[Sample((Tensor((3, 4)),))], method=True
    )
    def centred(x):
        "``x`` without its mean."
        return x - x.mean()

    yield find("centred")
    unregister("centred")


def test_it_is_a_function_and_a_method_until_it_is_taken_out(record, composed):
    x = mf.array([0.5, -1.0])
    for result in (mf.wobble(x), x.wobble()):
        np.testing.assert_allclose(result.numpy(), wobble(np.array([0.5, -1.0])), rtol=1e-6)
    assert mf.centred(x).numpy().tolist() == x.centred().numpy().tolist() == [0.75, -0.75]
    assert {"wobble", "centred"} <= set(dir(mf))
    assert "made up" in mf.wobble.__doc__


def test_nothing_is_left_of_it_afterwards():
    assert find("wobble") is None
    assert not hasattr(mf, "wobble")
    assert not hasattr(mf.Var, "wobble")


def test_the_command_line_and_the_documentation_list_it(record, composed, capsys):
    assert main(["ops", "wobble"]) == 0
    assert "Sine under a bell" in capsys.readouterr().out
    spec = importlib.util.spec_from_file_location("generate_docs", ROOT / "tools" / "generate_docs.py")
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    table = tool.operators_table()
    assert "| `wobble` | Sine under a bell, ``sin(x) / (1 + x * x)``. |" in table
    assert "## made up" in table


def test_it_is_fused_with_its_neighbours(record):
    with flag_scope(backend="null"):
        counters = registry().backend("null").counters
        x = mf.array(np.ones((5, 7), np.float32)).stop_grad()
        before = counters.calls
        y = mf.softmax((x * 2 - 1).wobble() + x, 1)
        y.sync()
        assert counters.calls - before == 1


def test_it_differentiates_twice_and_with_others(record):
    with flag_scope(backend="reference"):
        check_grads(lambda x, y: mf.wobble(x * y).exp(), [[0.3, -1.2], [1.5, 0.4]], order=2)


@pytest.mark.parametrize("backend", BACKENDS)
def test_it_runs_everywhere_and_the_conformance_kit_tests_it(record, composed, backend):
    kit = Kit(backend)
    assert ("wobble", record) in level.records()
    assert ("wobble", record) in autograd.elementwise()
    assert ("centred", composed) in sampled("fusion")()
    assert record in candidates()
    with kit.active():
        level.test_elementwise(kit, record)
        level.test_elementwise_specials(kit, record)
        autograd.test_gradient_elementwise(kit, record)
        autograd.test_gradient_samples(kit, composed)


def test_the_kit_sees_a_wrong_record():
    elementwise(
        "crooked", "Claims to be a sine.", lambda a: call("cos", a), rule=floating, numpy=np.sin,
        gradients=[lambda g, x, y: g * y], domain=[Tensor((), "float")],
    )  # fmt: skip
    try:
        kit = Kit("reference")
        with kit.active(), pytest.raises(AssertionError, match=r"\[crooked\] float"):
            level.test_elementwise(kit, find("crooked"))
        with kit.active(), pytest.raises(AssertionError, match=r"\[crooked\] gradient of input 0"):
            autograd.test_gradient_elementwise(kit, find("crooked"))
    finally:
        unregister("crooked")
