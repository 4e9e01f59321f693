"""Arguments without an end are refused, or handled, where they come in: iterators that go on, structures in themselves."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import metafuse as mf
from metafuse.errors import ArgumentError, DTypeError, MetafuseError


class Endless:
    """An iterator without an end, which a test that would read it to the end does not wait for."""

    def __init__(self, entry: Any) -> None:
        self.entry, self.read = entry, 0

    def __iter__(self) -> Endless:
        return self

    def __next__(self) -> Any:
        self.read += 1
        assert self.read < 10_000_000, "it is read without end"
        return self.entry


X = mf.ones(2)
ITERATORS: list[tuple[str, Callable[[], Any]]] = [
    ("grad", lambda: mf.grad((X * 2).sum(), Endless(X))),
    ("sync", lambda: mf.sync(Endless(X))),
    ("fetch_sync", lambda: mf.fetch_sync(Endless(X))),
    ("SGD", lambda: mf.optim.SGD(Endless(X), 0.1)),
    ("Adam", lambda: mf.optim.Adam([{"params": Endless(X)}], 0.1)),
    ("Subset", lambda: mf.data.Subset([1, 2], Endless(0))),
    ("ConcatDataset", lambda: mf.data.ConcatDataset(Endless([1]))),
    ("broadcast_vars", lambda: mf.dist.parallel.broadcast_vars(Endless(X))),
    ("eye", lambda: mf.init.eye(itertools.count())),
    ("invariant_uniform", lambda: mf.init.invariant_uniform(itertools.count())),
    ("zeros", lambda: mf.zeros(itertools.count())),
    ("reshape", lambda: X.reshape(itertools.count())),
    ("array", lambda: mf.array(itertools.count())),
]


@pytest.mark.parametrize(("name", "call"), ITERATORS, ids=[name for name, _ in ITERATORS])
def test_iterators_without_an_end_are_refused(name, call):
    with pytest.raises(MetafuseError, match=rf"^\[{name}\] "):
        call()


def test_einops_gets_no_iterator_without_an_end():
    pytest.importorskip("einops")
    with pytest.raises(ArgumentError, match=r"^\[einops.unpack\] packed_shapes .* goes on"):
        mf.einops.unpack(mf.ones(2, 7), Endless((3,)), "a *")


def test_iterators_with_an_end_are_read():
    assert mf.data.Subset([5, 6, 7], iter([2, 0])).indices == [2, 0]
    assert mf.grad((X * 2).sum(), iter([X]))[0].tolist() == [2, 2]


def own_list() -> list[Any]:
    value: list[Any] = [mf.ones(2)]
    value.append(value)
    return value


def own_dict() -> dict[str, Any]:
    value: dict[str, Any] = {"a": mf.ones(2)}
    value["b"] = value
    return value


@pytest.mark.parametrize("own", [own_list, own_dict])
@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("peek_s", lambda own: mf.peek_s(own)),
        ("dfs_to_numpy", lambda own: mf.dfs_to_numpy(own)),
        ("collate_batch", lambda own: mf.data.collate_batch([own, own])),
        ("to_vars", lambda own: mf.data.Dataset().to_jittor(own)),
        ("GradScaler", lambda own: mf.amp.GradScaler().scale(own)),
        ("compile", lambda own: mf.compile(lambda x: 1)(own)),
        ("save", lambda own: mf.save(own, "x.pkl")),
        ("save", lambda own: mf.save(own, "x.pth")),
        ("save", lambda own: mf.save(own, "x.npy")),
        ("SGD", lambda own: mf.optim.SGD(own, 0.1)),
        ("SGD", lambda own: mf.optim.SGD([mf.ones(2)], 0.1).load_state_dict(own)),
    ],
)
def test_structures_in_themselves_are_refused(own, name, call):
    with pytest.raises((ArgumentError, DTypeError), match=rf"^\[{name}\] ") as caught:
        call(own())
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("own", [own_list, own_dict])
def test_a_trace_looks_into_a_structure_once(own):
    class First(mf.nn.Module):
        def execute(self, x, more):
            return x * 2

    trace = mf.debug.trace_module(First(), mf.ones(3), own())
    assert trace.calls[0].inputs == ["float32[3]", "float32[2]"]


def test_a_compiled_function_that_answers_a_structure_in_itself_runs_uncaptured(capsys):
    value = own_list()
    function = mf.compile(lambda x: value)
    assert all(function(mf.ones(1)) is value for _ in range(4))
    assert "what it answers is nested too deeply, or contains itself" in capsys.readouterr().err


def test_a_compiled_function_that_does_so_later_runs_uncaptured_from_then_on(capsys):
    value, later = own_list(), [False]
    function = mf.compile(lambda x: value if later[0] else x * 2)
    assert [function(mf.ones(1)).item() for _ in range(3)] == [2.0] * 3
    later[0] = True  # a list that was there before; the walk through new ones must not go into it
    assert all(function(mf.ones(1)) is value for _ in range(4))
    assert "what it answers is nested too deeply, or contains itself" in capsys.readouterr().err


def test_modules_that_contain_themselves():
    net = mf.nn.Sequential(mf.nn.Linear(2, 2))
    net.add_module("me", net)
    assert repr(net).count("Linear") == 1
    assert len(net.parameters()) == len(net.state_dict()) == 2
    met: list[str | None] = []
    net.dfs([], None, lambda parents, name, module, count: met.append(name))
    assert met == [None, "0"]


def test_more_entries_than_memory_holds():
    with pytest.raises(ArgumentError, match=r"\[ConcatDataset\] datasets has 1099511627776 entries"):
        mf.data.ConcatDataset(np.broadcast_to(np.float32(1), (2**40,)))
