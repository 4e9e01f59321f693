"""The checks of communicators catch communicators that are wrong in one way each."""

from __future__ import annotations

import numpy as np
import pytest

import metafuse as mf
from metafuse.dist import execution, loopback, parallel
from metafuse.dist.loopback import Loopback
from metafuse.errors import ArgumentError, CollectiveMismatch
from metafuse.testing.collectives import CHECKS
from metafuse.testing.errors import ConformanceError
from metafuse.testing.kit import Kit

KIT = Kit("reference")


def forgets_the_last(given, op):
    return given[0].copy() if len(given) == 2 else np.add.reduce(given[:-1]).astype(given[0].dtype)


def broadcast_from_0(self, source, target, root):
    target[...] = self._meet("broadcast", source)[0].reshape(target.shape)


def gather_backwards(self, source, target):
    given = self._meet("all_gather", source)
    target.reshape(-1)[...] = np.concatenate([a.reshape(-1) for a in given[::-1]])


def scatter_the_first_part(self, source, target, op):
    given = self._meet("reduce_scatter", source)
    target.reshape(-1)[...] = np.split(loopback._combined(given, op).reshape(-1), self.size)[0]


def reduce_at_all(self, source, target, op, root):
    target[...] = loopback._combined(self._meet("reduce", source), op).reshape(target.shape)


def receive_nothing(self, array, source, tag=0):
    array.fill(0)


def split_ignoring_keys(self, color, key=0):
    return SPLIT(self, color, 0)


SPLIT = Loopback.split


@pytest.mark.parametrize(
    ("where", "name", "wrong", "check"),
    [
        (loopback, "_combined", forgets_the_last, "reductions"),
        (Loopback, "broadcast", broadcast_from_0, "moves"),
        (Loopback, "all_gather", gather_backwards, "moves"),
        (Loopback, "reduce_scatter", scatter_the_first_part, "reductions"),
        (Loopback, "recv", receive_nothing, "one to one"),
        (Loopback, "split", split_ignoring_keys, "groups"),
        (execution, "narrowed", lambda wide, dtype: dtype.encode(wide * 2), "reductions"),
        (execution, "compare", lambda group, what: None, "mismatches"),
        (parallel, "shared_out", lambda entries: (list(entries), parallel.Share(len(entries), len(entries))), "helpers"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_caught(monkeypatch, where, name, wrong, check):
    monkeypatch.setattr(where, name, wrong)
    with KIT.active(), mf.flag_scope(dist_check=0), pytest.raises((ConformanceError, CollectiveMismatch)):
        loopback.run(3, lambda rank: CHECKS[check](KIT))


def test_an_order_that_depends_on_reading_is_caught(monkeypatch):
    """Without the edges from one collective to the next, ranks that read in different orders call in different orders."""
    from metafuse.dist import collectives

    def without_order(call, inputs, spec, rule, name):
        sig = collectives.signature("opaque", name, call, tuple(n.spec for n in inputs), spec, None, (), rule)
        return collectives.record(sig, tuple(inputs))

    monkeypatch.setattr(collectives, "record_in_order", without_order)
    with KIT.active(), pytest.raises((ConformanceError, CollectiveMismatch)):
        loopback.run(3, lambda rank: CHECKS["order"](KIT))


@pytest.mark.parametrize("rank", [2, 99, -1])
def test_ranks_that_are_not_there_are_refused_by_name(rank):
    row = np.ones(2, np.float32)

    def main(_):
        group = mf.dist.world()
        for call in (
            lambda: parallel.broadcast_vars([mf.ones(2)], rank),
            lambda: mf.nn.Linear(2, 2).mpi_param_broadcast(rank),
            lambda: group.broadcast(row, row, rank),
            lambda: group.reduce(row, row, "add", rank),
            lambda: group.send(row, rank),
            lambda: group.recv(row, rank),
        ):
            with pytest.raises(
                ArgumentError, match=rf"^\[\S+\] \w+ must be a rank, 0 <= \w+ < 2, got {rank}"
            ):
                call()

    loopback.run(2, main)
