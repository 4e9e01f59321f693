"""NCCL without a GPU: what the library is asked for, against a stand-in that has its signatures and computes on host memory."""

from __future__ import annotations

import importlib.util
import inspect
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("metafuse_dist_nccl", reason="metafuse-dist-nccl is not installed")

import metafuse as mf
from metafuse import nn
from metafuse.dist import loopback, process
from metafuse.dist.contract import DeviceArray, Start
from metafuse.errors import DistributionError
from metafuse.plugins.registry import registry
from metafuse.testing.collectives import CHECKS
from metafuse.testing.kit import Kit, hosted

_spec = importlib.util.spec_from_file_location("nccl_stand_in", Path(__file__).parent / "stand_in.py")
stand_in = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(stand_in)
STREAM = stand_in.STREAM


@pytest.fixture
def library(monkeypatch):
    """nccl4py replaced; the plugin's descriptor meant for the pretended device, which is the backend."""
    package = __import__("types").ModuleType("nccl")
    package.core = stand_in.module()
    monkeypatch.setitem(sys.modules, "nccl", package)
    monkeypatch.setitem(sys.modules, "nccl.core", package.core)
    monkeypatch.delitem(sys.modules, "metafuse_dist_nccl.communicator", raising=False)
    from metafuse_dist_nccl.plugin import metafuse_communicators

    offered = [replace(metafuse_communicators()[0], memory="pretended")]
    monkeypatch.setattr(process, "_descriptors", lambda memory: offered if memory == "pretended" else [])
    stand_in.Communicator.calls.clear()
    with hosted(stand_in.Addressed()), mf.flag_scope(backend="pretended"):
        yield stand_in.Communicator.calls
    sys.modules.pop("metafuse_dist_nccl.communicator", None)


def test_collectives_go_by_the_library(library):
    def main(rank):
        x = mf.array([1.0 + rank, 2.0])
        return [
            x.mpi_all_reduce("mean").numpy().tolist(),
            x.nccl_all_reduce().numpy().tolist(),
            x.nccl_reduce(1).numpy().tolist(),
            x.nccl_broadcast(1).numpy().tolist(),
            x.nccl_all_gather().numpy().tolist(),
            x.mpi_reduce_scatter("maximum").numpy().tolist(),
        ]

    first, second = loopback.run(2, main)
    assert first == [[1.5, 2.0], [3.0, 4.0], [0.0, 0.0], [2.0, 2.0], [1.0, 2.0, 2.0, 2.0], [2.0]]
    assert second == [[1.5, 2.0], [3.0, 4.0], [3.0, 4.0], [2.0, 2.0], [1.0, 2.0, 2.0, 2.0], [2.0]]
    op = stand_in.NcclRedOp
    assert [c for c in library if c[1] == 0] == [
        ("allreduce", 0, "float32", 2, op.AVG, STREAM),
        ("allreduce", 0, "float32", 2, op.SUM, STREAM),
        ("reduce", 0, "float32", 2, op.SUM, 1, STREAM),
        ("broadcast", 0, "uint8", 8, 1, STREAM),
        ("allgather", 0, "uint8", 8, STREAM),
        ("reduce_scatter", 0, "float32", 2, op.MAX, STREAM),
    ]


@pytest.mark.parametrize("check", list(CHECKS))
@pytest.mark.parametrize("count", [2, 3])
def test_the_conformance_kit(library, check, count):
    kit = Kit("pretended")
    with kit.active():
        loopback.run(count, lambda rank: CHECKS[check](kit))


def test_types_that_the_library_does_not_combine_go_over_the_host(library):
    def main(rank):
        return [
            mf.array(np.ones(3), d).mpi_all_reduce().numpy().tolist()
            for d in ("bfloat16", "float16", "int16", "bool")
        ]

    assert loopback.run(2, main)[0] == [[2.0] * 3, [2.0] * 3, [2] * 3, [True] * 3]
    assert library == []


def test_gradients_stay_on_the_device(library):
    x = np.random.default_rng(0).normal(size=(12, 3)).astype(np.float32)

    def main(rank):
        mf.set_global_seed(1)
        net = nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 1))
        optimizer = nn.Adam(net.parameters(), 0.1)
        curve = []
        for (batch,) in mf.data.TensorDataset(x).set_attrs(batch_size=5):
            loss = (net(batch) ** 2).mean()
            curve.append(mf.dist.global_mean(loss))
            optimizer.step(loss)
        return [c.item() for c in curve]

    alone = main(0)
    library.clear()
    np.testing.assert_allclose(loopback.run(2, main), [alone, alone], rtol=1e-4)
    sums = [
        c for c in library if c[0] == "allreduce" and c[1] == 0 and c[3] == 26
    ]  # 3 * 5 + 5 + 5 + 1 parameters
    assert len(sums) == 3


def test_groups_and_what_goes_one_to_one(library):
    def main(rank):
        from metafuse_dist_nccl.communicator import connect

        group = connect(mf.dist.world())
        assert (group.rank, group.size, group.memory) == (rank, 2, "cuda")
        a = np.full(4, float(rank), np.float32)
        there = DeviceArray(a.ctypes.data, 4, "float32", STREAM)
        group.send(there, 1) if rank == 0 else group.recv(there, 0)
        group.barrier()
        assert group.exchange(b"x" * rank) == [b"", b"x"]
        part = group.split(rank)
        assert (part.rank, part.size, group.split(None)) == (0, 1, None)
        empty = DeviceArray(0, 0, "float32", STREAM)
        for call in (lambda: group.all_reduce(empty, empty, "add"), lambda: group.broadcast(empty, empty, 0)):
            call()
        return a.tolist()

    assert loopback.run(2, main) == [[0.0] * 4] * 2
    assert [c[0] for c in library] == ["send", "recv"]


def test_a_rank_that_cannot_start_is_named(library, monkeypatch):
    def init(nranks, rank, unique_id, config=None):
        raise stand_in.NcclInvalid(f"Duplicate GPU detected : rank {rank} and rank 0")

    monkeypatch.setattr(sys.modules["nccl.core"].Communicator, "init", init)
    with pytest.raises(
        DistributionError, match=r"could not start on rank 0: NcclInvalid: Duplicate GPU .* launch --devices"
    ):
        loopback.run(2, lambda rank: mf.array([1.0]).mpi_all_reduce().sync())


def test_ranks_that_do_not_agree_go_over_the_host(library, monkeypatch):
    offered = process._descriptors("pretended")
    monkeypatch.setattr(process, "_descriptors", lambda memory: offered if mf.rank == 0 else [])
    assert loopback.run(2, lambda rank: mf.array([1.0]).mpi_all_reduce().item()) == [2.0, 2.0]
    assert library == []


def test_without_the_library_the_plugin_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "nccl", None)
    from metafuse_dist_nccl.plugin import metafuse_communicators

    (descriptor,) = metafuse_communicators()
    assert "pip install metafuse-dist-nccl[cu12]" in descriptor.probe(Start(0, 2, 0, 2, "MPICH"))
    assert descriptor.memory == "cuda"


def test_the_plugin_is_found():
    records = [r for r in registry().plugins.records() if r.name == "nccl"]
    assert [r.status for r in records] == ["loaded"]


def test_the_stand_in_has_the_signatures_of_the_library():
    try:
        import nccl.core as real
    except Exception as error:  # whatever a machine without CUDA raises
        pytest.skip(f"nccl4py can't be loaded: {error}")
    for name in ("init", "allreduce", "reduce", "broadcast", "allgather", "reduce_scatter", "send", "recv"):
        ours = inspect.signature(getattr(stand_in.Communicator, name)).parameters
        theirs = inspect.signature(getattr(real.Communicator, name)).parameters
        assert [(p.name, p.kind) for p in ours.values()] == [(p.name, p.kind) for p in theirs.values()]
    assert {op.name: op.value for op in real.NcclRedOp} == {op.name: op.value for op in stand_in.NcclRedOp}
