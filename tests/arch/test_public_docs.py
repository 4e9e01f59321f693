"""``help`` of everything public tells what it takes, what it raises, where it comes from, and shows an example.

That the examples do what they show is tested in ``packages/core/tests/test_docstring_examples.py``.
"""

from __future__ import annotations

import inspect

import pytest

import metafuse as mf
from metafuse.ops.registry import Operator, all_operators
from metafuse.testing.surface import Public, callables

#: (beginning of a name, why it has no example)
WITHOUT_EXAMPLE = [
    ("metafuse.data.CIFAR", "downloads"),
    ("metafuse.data.EMNIST", "downloads"),
    ("metafuse.data.MNIST", "downloads"),
    ("metafuse.data.VOC", "reads a data set that is not here"),
    ("metafuse.data.download", "downloads"),
    ("metafuse.debug.Explanation", "what explain answers"),
    ("metafuse.debug.Launch", "what record_launches answers"),
    ("metafuse.debug.LiveArray", "what live_arrays answers"),
    ("metafuse.debug.Module", "what trace_module answers"),
    ("metafuse.DumpGraphs", "what dump_all_graphs answers"),
    ("metafuse.Finfo", "what finfo answers"),
    ("metafuse.MemInfo", "what get_mem_info answers"),
    ("metafuse.profiler.Report", "what profile_scope answers"),
    ("metafuse.dist.CommunicatorDescriptor", "for authors of communicators"),
    ("metafuse.dist.contract", "for authors of communicators"),
    ("metafuse.dist.guard", "ends the process"),
    ("metafuse.dist.loopback.Loopback", "made by run"),
    ("metafuse.dist.parallel.Share", "what current_share answers"),
]
PUBLIC = callables()


def excused(name: str) -> bool:
    return any(name.startswith(start) for start, _ in WITHOUT_EXAMPLE)


def text_of(value: object) -> str:
    return inspect.getdoc(value) or ""


def test_a_good_part_of_the_package_is_looked_at() -> None:
    assert len(PUBLIC) > 1000
    assert {"metafuse.exp", "metafuse.exp_", "metafuse.nn.Linear", "metafuse.Var.numpy"} <= {
        p.name for p in PUBLIC
    }


@pytest.mark.parametrize("public", PUBLIC, ids=lambda public: public.name)
def test_it_is_described(public: Public) -> None:
    summary = text_of(public.value).partition("\n")[0]
    assert len(summary) > 3
    if public.is_class:
        assert vars(public.value).get("__doc__"), "the docstring is another class's"


@pytest.mark.parametrize(
    "public",
    [
        p for p in PUBLIC
        if not excused(p.name) and not (p.is_class and issubclass(p.value, BaseException))
    ],
    ids=lambda public: public.name,
)  # fmt: skip
def test_it_has_an_example(public: Public) -> None:
    assert ">>>" in text_of(public.value)


def test_nothing_is_excused_that_has_an_example_or_does_not_exist() -> None:
    for start, _ in WITHOUT_EXAMPLE:
        found = [p for p in PUBLIC if p.name.startswith(start)]
        assert found, start
        assert any(">>>" not in text_of(p.value) for p in found), start


@pytest.mark.parametrize("record", all_operators(), ids=lambda record: record.name)
def test_an_operator_tells_what_it_takes_raises_and_where_it_comes_from(record: Operator) -> None:
    text = text_of(record.function)
    assert any(word in text for word in ("Args:", "Takes:", "Returns:"))
    assert "Errors:" in text
    assert "Source:" in text


@pytest.mark.parametrize(
    "layer",
    [p for p in PUBLIC if p.is_class and issubclass(p.value, mf.nn.Module) and p.name.startswith("metafuse.nn.")],
    ids=lambda public: public.name,
)  # fmt: skip
def test_a_layer_tells_what_it_raises_and_where_it_comes_from(layer: Public) -> None:
    text = text_of(layer.value)
    assert "Errors:" in text
    containers = (
        mf.nn.Sequential,
        mf.nn.ModuleList,
        mf.nn.ModuleDict,
        mf.nn.ParameterList,
        mf.nn.ParameterDict,
    )
    assert "Source:" in text or layer.value is mf.nn.Module or issubclass(layer.value, containers)
