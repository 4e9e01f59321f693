"""How processes were started, and which communicator they get."""

from __future__ import annotations

import os
import types

import pytest

import metafuse as mf
from metafuse.dist import detect, process
from metafuse.dist.alone import Alone
from metafuse.dist.contract import COMMUNICATOR_VERSION, CommunicatorDescriptor, Start
from metafuse.errors import (
    DistributionError,
)
from metafuse.plugins import registry as registry_module
from metafuse.plugins.hookspecs import hookimpl
from metafuse.plugins.manager import PluginRecord, Plugins
from metafuse.plugins.registry import Registry


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, None),
        ({"PMI_RANK": "1", "PMI_SIZE": "4"}, (1, 4, 1, 4, "MPICH")),
        ({"PMI_RANK": "0", "PMI_SIZE": "1"}, None),
        (
            {"OMPI_COMM_WORLD_RANK": "5", "OMPI_COMM_WORLD_SIZE": "8", "OMPI_COMM_WORLD_LOCAL_RANK": "1",
             "OMPI_COMM_WORLD_LOCAL_SIZE": "4"},
            (5, 8, 1, 4, "Open MPI"),
        ),
        (
            {"SLURM_PROCID": "3", "SLURM_STEP_NUM_TASKS": "4", "SLURM_LOCALID": "1", "SLURM_STEP_TASKS_PER_NODE": "2(x2)"},
            (3, 4, 1, 2, "Slurm"),
        ),
        (  # srun --mpi=pmi2
            {"PMI_RANK": "3", "PMI_SIZE": "4", "SLURM_PROCID": "3", "SLURM_STEP_NUM_TASKS": "4", "SLURM_LOCALID": "1",
             "SLURM_STEP_TASKS_PER_NODE": "2(x2)"},
            (3, 4, 1, 2, "MPICH"),
        ),
        (  # mpirun within an allocation: Slurm has started one proxy for each of two machines
            {"PMI_RANK": "3", "PMI_SIZE": "4", "MPI_LOCALRANKID": "1", "MPI_LOCALNRANKS": "2", "SLURM_PROCID": "1",
             "SLURM_STEP_NUM_TASKS": "2", "SLURM_LOCALID": "0", "SLURM_STEP_TASKS_PER_NODE": "1(x2)"},
            (3, 4, 1, 2, "MPICH"),
        ),
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "4"}, None),
        ({"PMI_RANK": "1", "PMI_SIZE": "4", detect.CLAIM: "1"}, None),
        ({"PMI_RANK": "1", "PMI_SIZE": "4", detect.CLAIM: str(os.getpid())}, (1, 4, 1, 4, "MPICH")),
    ],
)  # fmt: skip
def test_launchers_are_recognised(environment, expected):
    found = detect.started(environment)
    assert (found and (found.rank, found.size, found.local_rank, found.local_size, found.how)) == expected


class Two(Alone):
    name, size = "two", 2


def connected(monkeypatch, *descriptors):
    """What ``world`` finds with plugins that bring these communicators."""
    plugins = Plugins([])
    monkeypatch.setattr(plugins, "call", lambda hook: [(PluginRecord("p", "m", ""), list(descriptors))])
    monkeypatch.setattr(registry_module, "_registry", Registry(plugins))
    monkeypatch.setattr(process, "started", lambda: Start(0, 2, 0, 2, "MPICH"))
    process.set_world(None)
    try:
        return mf.dist.world()
    finally:
        process.set_world(None)


def descriptor(name="two", create=Two, why=None, priority=1, version=COMMUNICATOR_VERSION):
    return CommunicatorDescriptor(name, "made up", create, lambda start: why, priority, version)


def test_the_usable_communicator_of_highest_priority_is_taken(monkeypatch):
    class Better(Two):
        name = "better"

    found = connected(
        monkeypatch,
        descriptor(),
        descriptor("better", Better, priority=5),
        descriptor("best", why="it is Monday", priority=9),
    )
    assert found.name == "better"
    with mf.flag_scope(distribution="two"):
        assert connected(monkeypatch, descriptor(), descriptor("better", Better, priority=5)).name == "two"
    with mf.flag_scope(distribution="none"):
        assert connected(monkeypatch).size == 1


@pytest.mark.parametrize(
    ("descriptors", "text"),
    [
        (
            (),
            r"process 0 of 2 started by MPICH, and nothing connects them: none is installed; pip install metafuse-dist-mpi",
        ),
        ((descriptor(why="there is no MPI"),), "'two': there is no MPI"),
        ((descriptor(version=9),), "version 9 of the contract"),
        ((descriptor(create=Alone),), "started 2 processes, but two connects 1"),
    ],
)
def test_what_cannot_be_connected_is_explained(monkeypatch, descriptors, text):
    with pytest.raises(DistributionError, match=text):
        connected(monkeypatch, *descriptors)


def test_the_hook_is_called_through_plugins(monkeypatch):
    module = types.ModuleType("made_up_dist")

    @hookimpl
    def metafuse_communicators():
        return [descriptor()]

    module.metafuse_communicators = metafuse_communicators
    from importlib.metadata import EntryPoint

    point = EntryPoint("made_up", "made_up_dist", "metafuse")
    monkeypatch.setitem(__import__("sys").modules, "made_up_dist", module)
    monkeypatch.setattr(registry_module, "_registry", Registry(Plugins([point])))
    monkeypatch.setattr(process, "started", lambda: Start(1, 2, 1, 2, "MPICH"))
    process.set_world(None)
    try:
        assert mf.dist.world().name == "two"
    finally:
        process.set_world(None)
