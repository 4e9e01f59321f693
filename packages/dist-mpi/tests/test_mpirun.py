"""Real processes under a real launcher: collectives, training, failures, checkpoints."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from metafuse.dist import launch
from metafuse.dist.launch import find_mpirun
from metafuse.errors import DistributionError
from metafuse.testing.collectives import CHECKS

PROGRAMS = Path(__file__).parent / "programs"
SECONDS = 240  # that anything here may take on a busy machine


def _missing() -> str:
    if importlib.util.find_spec("metafuse_dist_mpi") is None:
        return "metafuse-dist-mpi is not installed"
    try:
        find_mpirun()
        from mpi4py import MPI  # noqa: F401
    except (DistributionError, ImportError, RuntimeError) as error:
        return f"no MPI: {error}"
    return ""


MISSING = _missing()
pytestmark = pytest.mark.skipif(bool(MISSING), reason=MISSING or "there is an MPI")


def run(
    ranks: int, *command: object, launcher: bool = True, **environment: str
) -> subprocess.CompletedProcess[str]:
    """A Python program on so many ranks, on the reference backend."""
    start = (
        [sys.executable, "-m", "metafuse", "launch", "-n", str(ranks)]
        if launcher
        else [find_mpirun(), "-n", str(ranks), sys.executable]
    )
    return run_command(*start, *command, **environment)


def run_command(*command: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """A command, on the reference backend."""
    more = {
        "METAFUSE_BACKEND": "reference",
        "OMPI_ALLOW_RUN_AS_ROOT": "1",
        "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
        "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",
        "OMPI_MCA_rmaps_base_oversubscribe": "1",
        **environment,
    }
    return subprocess.run(
        list(map(str, command)),
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
        env={**os.environ, **more},
    )


@pytest.mark.parametrize("ranks", [2, 3, 4])
def test_collectives(ranks):
    done = run(ranks, "-m", "metafuse.testing.collectives")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count(f"ok on {ranks} ranks by mpi") == len(CHECKS)


@pytest.mark.parametrize("ranks", [2, 3])
def test_training_equals_training_alone(tmp_path, ranks):
    alone = run(1, PROGRAMS / "train.py", tmp_path / "alone.json", tmp_path / "none.pkl")
    assert alone.returncode == 0, alone.stderr
    (tmp_path / "none.pkl").unlink()
    done = run(ranks, PROGRAMS / "train.py", tmp_path / "many.json", tmp_path / "none.pkl", launcher=False)
    assert done.returncode == 0, done.stderr
    curves = [json.loads((tmp_path / name).read_text()) for name in ("alone.json", "many.json")]
    assert len(curves[0]) == 12
    np.testing.assert_allclose(curves[1], curves[0], rtol=1e-4)


def test_a_killed_job_goes_on_from_its_checkpoint(tmp_path):
    whole = run(2, PROGRAMS / "train.py", tmp_path / "whole.json", tmp_path / "a.pkl")
    assert whole.returncode == 0, whole.stderr
    killed = run(2, PROGRAMS / "train.py", tmp_path / "resumed.json", tmp_path / "b.pkl", 8)
    assert killed.returncode != 0
    assert not (tmp_path / "resumed.json").exists()
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "a.pkl",
        "b.pkl",
        "whole.json",
    ]  # nothing half written
    resumed = run(2, PROGRAMS / "train.py", tmp_path / "resumed.json", tmp_path / "b.pkl")
    assert resumed.returncode == 0, resumed.stderr
    curves = [json.loads((tmp_path / name).read_text()) for name in ("whole.json", "resumed.json")]
    np.testing.assert_allclose(curves[1], curves[0], rtol=1e-5)


@pytest.mark.parametrize(
    ("kind", "code", "texts"),
    [
        ("raises", 1, ["rank 1 of 2 failed:", "ValueError: this rank is lost", "faults.py"]),
        ("before anything", 1, ["rank 1 of 2 failed:", "ValueError: this rank is lost"]),
        ("exits with 3", 3, ["rank 1 of 2 ends with exit code 3"]),
        ("is killed", None, []),
        ("hangs", 86, ["rank 0 of 2 has waited", "rank 1 of 2 is computing:", "time.sleep(0.1)"]),
        ("ends early", 86, ["for rank 1, which has ended", "recorded at", "rank 1 of 2 has come to its end"]),
        ("mismatch", 1, ["CollectiveMismatch", "of float32[1] recorded at", "of float32[2] recorded at"]),
        ("late mismatch", None, []),
        ("raises in a scope", 1, ["rank 1 of 2 failed:", "ValueError: this rank is lost"]),
        ("hangs at the end", 86, ["has come to its end, and rank 1 has done nothing for", "time.sleep(0.1)"]),
    ],
)
def test_one_rank_that_fails_ends_the_job(kind, code, texts):
    started = time.monotonic()
    done = run(2, PROGRAMS / "faults.py", kind, launcher=False, METAFUSE_DIST_TIMEOUT="3")
    assert time.monotonic() - started < 120
    assert done.returncode != 0
    if code is not None:
        assert done.returncode == code, done.stderr
    for text in texts:
        assert text in done.stderr
    assert "rank 1 is done" not in done.stdout


def test_a_rank_that_works_longer_than_the_others_is_waited_for():
    done = run(2, PROGRAMS / "faults.py", "works at the end", launcher=False, METAFUSE_DIST_TIMEOUT="2")
    assert done.returncode == 0, done.stderr
    assert "rank 1 is done" in done.stdout


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="what ranks have started is found in /proc")
def test_a_job_that_mpirun_does_not_end_is_ended_by_launch(monkeypatch, capfd):
    """mpirun waits for the output of what a killed rank has left behind."""
    monkeypatch.setenv("METAFUSE_BACKEND", "reference")
    monkeypatch.setenv("OMPI_ALLOW_RUN_AS_ROOT", "1")
    monkeypatch.setattr(launch, "GRACE", 3.0)
    monkeypatch.setattr(launch, "ENDING", 1.0)
    started = time.monotonic()
    assert launch.launch(2, [str(PROGRAMS / "faults.py"), "leaves a child, killed"]) != 0
    assert time.monotonic() - started < 60
    assert not _processes_with("leaves a child, killed")


def _processes_with(argument: str) -> list[str]:
    """Processes that were started with this argument."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_text().split("\0")
        except OSError:
            continue
        if argument in words and int(path.parent.name) != os.getpid():
            found.append(path.parent.name)
    return found


def test_a_rank_that_leaves_unseen_is_noticed_by_launch():
    done = run(2, PROGRAMS / "faults.py", "leaves unseen", METAFUSE_DIST_TIMEOUT="3")
    assert done.returncode != 0  # by mpirun itself, by the rank that waits, or by the launcher's own look
    assert "is done" not in done.stdout


def test_nothing_fails():
    done = run(2, PROGRAMS / "faults.py", "nothing")
    assert done.returncode == 0, done.stderr
    assert sorted(done.stdout.split("\n")) == ["", "rank 0 is done", "rank 1 is done"]


@pytest.mark.skipif(
    not hasattr(os, "sched_getaffinity"), reason="this system does not bind processes to cores"
)
def test_ranks_get_what_was_planned(tmp_path):
    program = tmp_path / "tell.py"
    program.write_text(
        "import os, metafuse as mf\n"
        "names = ('METAFUSE_NUM_THREADS', 'CUDA_VISIBLE_DEVICES')\n"
        "told = (mf.rank, sorted(os.sched_getaffinity(0)), *(os.environ[n] for n in names))\n"
        "told = mf.dist.gather_objects(told)\n"
        "if mf.rank == 0: print(told)\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "metafuse", "launch", "-n", "2", "--devices", "4,7", "--threads", "1", str(program)],
        capture_output=True, text=True, timeout=SECONDS, check=False, env={**os.environ, "METAFUSE_BACKEND": "reference"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    told = eval(done.stdout)
    assert [(rank, threads, device) for rank, _, threads, device in told] == [(0, "1", "4"), (1, "1", "7")]
    if len(os.sched_getaffinity(0)) > 1:
        assert not set(told[0][1]) & set(told[1][1])
        assert "rank 1: cores" in done.stderr
    assert "1 thread, device 7" in done.stderr


#: what ``srun`` sets for the processes of a step, and what it does not; ``--mpi=pmi2`` and ``--mpi=pmix``
STEP = """
export SLURM_PROCID=${PMI_RANK-$OMPI_COMM_WORLD_RANK} SLURM_STEP_NUM_TASKS=${PMI_SIZE-$OMPI_COMM_WORLD_SIZE}
export SLURM_NTASKS=$SLURM_STEP_NUM_TASKS SLURM_STEP_TASKS_PER_NODE=$SLURM_STEP_NUM_TASKS SLURM_LOCALID=$SLURM_PROCID
unset MPI_LOCALRANKID MPI_LOCALNRANKS
for name in $(env | sed -n "s/^\\(OMPI_COMM_WORLD_[A-Z_]*\\)=.*/\\1/p"); do unset $name; done
exec "$@"
"""


def test_a_step_of_slurm(tmp_path):
    """A stand-in for ``srun``: Slurm's variables, and the process manager's interface of the MPI that is here."""
    srun = tmp_path / "step.sh"
    srun.write_text(STEP)
    program = tmp_path / "tell.py"
    program.write_text(
        "import metafuse as mf\nfrom metafuse.dist import detect\n"
        "start = detect.started()\n"
        "told = mf.dist.gather_objects((start.rank, start.size, start.local_rank, start.local_size, start.how))\n"
        "if mf.rank == 0: print(told)\n"
    )
    command = [find_mpirun(), "-n", "2", "sh", str(srun), sys.executable]
    done = run_command(*command, program)
    assert done.returncode == 0, done.stderr
    told = eval(done.stdout)
    assert [t[:4] for t in told] == [(0, 2, 0, 2), (1, 2, 1, 2)]
    assert {t[4] for t in told} <= {"MPICH", "Slurm"}
    done = run_command(*command, "-m", "metafuse.testing.collectives")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("ok on 2 ranks by mpi") == len(CHECKS)


def test_each_may_compute_alone():
    done = run(
        2,
        "-c",
        "import metafuse as mf; print(f' {mf.world_size} ', flush=True)",
        METAFUSE_DISTRIBUTION="none",
    )
    assert done.stdout.split() == ["1", "1"]


def test_without_a_distribution_nothing_starts_silently():
    done = run(2, "-c", "import metafuse as mf; mf.world_size", launcher=False, METAFUSE_PLUGINS="none")
    assert done.returncode != 0
    assert "nothing connects them: none is installed; pip install metafuse-dist-mpi" in done.stderr


def test_children_of_a_rank_are_no_ranks(tmp_path):
    program = tmp_path / "parent.py"
    program.write_text(
        "import os, subprocess, sys, metafuse as mf\n"
        "child = [sys.executable, '-c', 'import metafuse as mf; print(mf.world_size)']\n"
        "found = subprocess.run(child, capture_output=True, text=True).stdout.strip()\n"
        "pid = os.fork()\n"
        "if pid == 0:\n"
        "    os._exit(mf.world_size)\n"
        "code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])\n"
        # spaces around: another rank may write between a line and its end
        "print(f' {mf.world_size} {found} {code} ', flush=True)\n"
    )
    done = run(2, program)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["2", "1", "1", "2", "1", "1"]
