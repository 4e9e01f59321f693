"""What is alive, graphs as text, traced networks."""

from __future__ import annotations

import gc
import io

import numpy as np
import pytest

import metafuse as mf
from metafuse.config import flag_scope
from metafuse.debug import fill_module_name, graph_dot, trace_module
from metafuse.errors import BackendError, DTypeError


@pytest.fixture(autouse=True)
def reference_backend():
    mf.sync_all()
    gc.collect()
    with flag_scope(backend="reference"):
        yield
        gc.collect()
        mf.sync_all()


# -- liveness -------------------------------------------------------------------------------------------------------
def test_counts_grow_and_shrink_with_what_is_held():
    before = mf.liveness_info()
    x = mf.array([1.0, 2.0]).stop_grad()
    y = x * 2 + 1
    held = mf.liveness_info()
    assert {k: held[k] - before[k] for k in held} == {"hold_vars": 2, "lived_vars": 3, "lived_ops": 2}
    assert (mf.number_of_hold_vars(), mf.number_of_lived_vars(), mf.number_of_lived_ops()) == tuple(
        held[k] for k in ("hold_vars", "lived_vars", "lived_ops")
    )
    y.sync()
    assert mf.number_of_lived_ops() == before["lived_ops"]
    del x, y
    gc.collect()
    assert mf.liveness_info() == before


def test_a_dump_shows_who_computes_what():
    x = mf.array([1.0, 2.0]).name("x")
    y = x + x
    dump = mf.dump_all_graphs()
    (place,) = [k for k in dump.hold_vars if dump.nodes_info[k].startswith("add float32[2] pending")]
    assert len(dump.inputs[place]) == 2 and dump.inputs[place][0] == dump.inputs[place][1]
    source = dump.inputs[place][0]
    assert "'x'" in dump.nodes_info[source] and "test_inspection.py" in dump.nodes_info[source]
    assert place in dump.outputs[source] and y.shape == (2,)


def test_a_graph_that_is_wrong_is_noticed():
    x = mf.array([1.0, 2.0])
    y = x + 1
    mf.graph_check()
    inputs = y._node.inputs
    y._node.inputs = (mf.ones(3)._node,)
    with pytest.raises(BackendError, match=r"add.*test_inspection\.py:\d+: its inputs are \[float32\[3\]\]"):
        mf.graph_check()
    y._node.inputs = inputs
    mf.graph_check()


def test_memory_is_counted_and_given_back():
    mf.gc()
    before = mf.get_mem_info()
    x = mf.ones(1 << 16).sync()
    during = mf.get_mem_info()
    assert during.total_cpu_used - before.total_cpu_used == x.nbytes == 1 << 18
    assert during.total_cpu_ram >= during.total_cpu_used and during.total_cuda_ram == 0
    pending = x + 1
    mf.clean()
    assert pending._node.buffer is not None
    del x, pending
    mf.gc()
    assert mf.get_mem_info() == before
    text = io.StringIO()
    mf.display_max_memory_info(text)
    mf.display_memory_info(file=text)
    assert "at most" in text.getvalue() and mf.get_max_memory_info() in text.getvalue()


# -- graphs ---------------------------------------------------------------------------------------------------------
def test_operators_as_a_graph():
    x = mf.array([1.0, 2.0]).name('the "input"')
    y = (x * 2 + x).exp()
    text = graph_dot([y])
    assert text.startswith("digraph {") and text.count(" -> ") == 4
    assert '[label="the \\"input\\"\\nfloat32[2]", shape=box]' in text
    assert text.count("shape=ellipse") == 3 and "test_inspection.py" in text
    assert y._node.buffer is None
    assert graph_dot(y, limit=2).count("shape=") == 2 + 0
    with pytest.raises(DTypeError, match=r"values\[0\]"):
        graph_dot([3])


class Branches(mf.nn.Module):
    def __init__(self) -> None:
        self.left = mf.nn.Sequential(mf.nn.Linear(4, 8), mf.nn.ReLU())
        self.right = mf.nn.Linear(4, 8)

    def execute(self, pair, scale=1):
        return {"sum": self.left(pair[0]) * scale + self.right(pair[1]), "again": self.right(pair[0])}


def test_a_traced_network():
    net, x = Branches(), mf.array(np.ones((3, 4), np.float32))
    trace = trace_module(net, [x, x + 1], scale=2)
    assert [(c.name, c.kind, c.depth, c.leaf) for c in trace.calls] == [
        ("", "Branches", 0, False), ("left", "Sequential", 1, False), ("left.0", "Linear", 2, True), ("left.1", "ReLU", 2, True),
        ("right", "Linear", 1, True), ("right", "Linear", 1, True),
    ]  # fmt: skip
    assert trace.calls[2].inputs == ["float32[3,4]"] and trace.calls[2].outputs == ["float32[3,8]"]
    assert trace.calls[0].parameters == 2 * (4 * 8 + 8) and trace.calls[3].parameters == 0
    assert trace.calls[3].operators == 1 and trace.calls[0].operators == 2 and trace.calls[1].operators == 0
    assert [c.sources for c in trace.calls] == [[-1, -2], [-1], [-1], [2], [-2], [-1]]
    edges = {line.strip(" ;") for line in trace.dot().splitlines() if "->" in line}
    assert edges == {f'"{a}" -> "{b}"' for a, b in [("in0", "m2"), ("m2", "m3"), ("in1", "m4"), ("in0", "m5"),
                                                    ("m3", "out"), ("m4", "out"), ("m5", "out")]}  # fmt: skip
    text = str(trace)
    assert "6 calls, 80 parameters in all" in text and "    0         Linear" in text
    np.testing.assert_allclose(trace.result["again"].numpy(), net.right(x).numpy())


def test_tracing_ends_also_after_a_failure():
    call = mf.nn.Module.__call__
    net = Branches()
    with pytest.raises(TypeError):
        trace_module(net, 5)
    assert mf.nn.Module.__call__ is call
    with pytest.raises(DTypeError, match="must be a Module"):
        trace_module(5)


def test_names_of_modules():
    net = Branches()
    fill_module_name(net, "net")
    assert (net._module_name, net.left[1]._module_name, net.right._module_name) == (
        "net",
        "net.left.1",
        "net.right",
    )
    assert "_module_name" not in net.state_dict()
