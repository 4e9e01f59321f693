"""Starting ranks: what is planned, found and refused; and predictions of scaling."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import time

import pytest

from metafuse.cli import main
from metafuse.dist import launch, scaling
from metafuse.dist.contract import Start
from metafuse.errors import DistributionError


@pytest.mark.parametrize(
    ("count", "cores", "expected", "threads"),
    [
        (2, range(4), ((0, 1), (2, 3)), 2),
        (2, [0, 2, 4, 6, 8], ((0, 2), (4, 6)), 2),
        (1, [3], ((3,),), 1),
        (3, [0, 1], ((), (), ()), 1),
    ],
)
def test_ranks_share_the_cores(count, cores, expected, threads):
    plan = launch.planned(count, available=list(cores))
    assert plan.cores == expected
    assert plan.threads == threads
    assert launch.planned(count, threads=7, available=list(cores)).threads == 7


def test_the_mapping_is_told():
    lines = launch.planned(2, devices=["0", "1"], available=[0, 1, 2, 3]).lines()
    assert lines == ["rank 0: cores 0,1, 2 threads, device 0", "rank 1: cores 2,3, 2 threads, device 1"]
    assert launch.planned(3, available=[0]).lines()[2] == "rank 2: cores any, 1 thread"


@pytest.mark.parametrize(
    ("devices", "text"), [(["0", "0"], "device 0 is named twice"), (["3"], r"there are 1 devices \(3\)")]
)
def test_two_ranks_on_one_device_are_refused(devices, text):
    with pytest.raises(DistributionError, match=f"2 ranks need 2 devices of their own, and {text}"):
        launch.planned(2, devices=devices)


def test_without_mpirun_it_says_what_to_install(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    with pytest.raises(
        DistributionError, match=r"there is no mpirun; pip install metafuse-dist-mpi\[mpich\]"
    ):
        launch.find_mpirun()
    with pytest.raises(DistributionError, match="there is no program '/no/mpirun'"):
        launch.find_mpirun("/no/mpirun")
    monkeypatch.setattr(launch.importlib.util, "find_spec", lambda name: None)
    assert main(["launch", "-n", "2", "train.py"]) == 1
    assert "pip install metafuse-dist-mpi[mpich]" in capsys.readouterr().err
    assert main(["launch", "-n", "2"]) == 2


def test_the_mpirun_beside_python_comes_first(monkeypatch, tmp_path):
    for folder in ("beside", "path"):
        (tmp_path / folder).mkdir()
        program = tmp_path / folder / "mpirun"
        program.write_text("#!/bin/sh\n")
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(tmp_path / "path"))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "beside" / "python"))
    assert launch.find_mpirun() == str(tmp_path / "beside" / "mpirun")
    (tmp_path / "beside" / "mpirun").unlink()
    assert launch.find_mpirun() == str(tmp_path / "path" / "mpirun")


def fake_mpirun(folder, version, code=0):
    program = folder / "mpirun"
    program.write_text(
        f'#!/bin/sh\nif [ "$1" = --version ]; then echo "{version}"; exit 0; fi\necho "$@" > {folder}/arguments\n'
        f"env > {folder}/environment\ntouch $METAFUSE_LAUNCH_FOLDER/begun-0 $METAFUSE_LAUNCH_FOLDER/begun-1 "
        f"$METAFUSE_LAUNCH_FOLDER/0\nexit {code}\n"
    )
    program.chmod(0o755)
    return str(program)


@pytest.mark.skipif(os.name != "posix", reason="the stand-in for mpirun is a shell script")
def test_what_mpirun_is_told(monkeypatch, tmp_path, capfd):
    monkeypatch.setattr(launch.importlib.util, "find_spec", lambda name: object())
    arguments = [
        "launch",
        "-n",
        "2",
        "--mpirun",
        fake_mpirun(tmp_path, "mpirun (Open MPI) 5.0.11"),
        "--mpi-args",
        "-x A=b c",
        "train.py",
        "--lr",
        "1",
    ]
    assert main(arguments) == 1  # rank 1 began and never ended
    assert "error: rank 1 left without coming to its end" in capfd.readouterr().err
    told = (tmp_path / "arguments").read_text().split()
    assert told == ["--bind-to", "none", "-x", "A=b", "c", "-n", "2", sys.executable, "train.py", "--lr", "1"]
    assert "PRTE_MCA_rmaps_default_mapping_policy=:oversubscribe" in (tmp_path / "environment").read_text()
    fake_mpirun(tmp_path, "HYDRA build details:", code=5)
    assert main(arguments) == 5
    assert (tmp_path / "arguments").read_text().split()[0] == "-x"


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="what is left of a job is found in /proc")
@pytest.mark.parametrize("how", ["has failed", "is gone"])
def test_a_job_that_goes_on_without_a_rank_is_ended(monkeypatch, tmp_path, capfd, how):
    """An mpirun that hangs, and that does not end when it is asked to."""
    monkeypatch.setattr(launch.importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(launch, "GRACE", 0.2)
    monkeypatch.setattr(launch, "ENDING", 0.2)
    program = tmp_path / "mpirun"
    notes = 'touch "$METAFUSE_LAUNCH_FOLDER/failed-0"' if how == "has failed" else ""
    program.write_text(
        '#!/bin/sh\nif [ "$1" = --version ]; then exit 0; fi\ntrap "" TERM\n'
        f'(exit 0) & echo "$! $(uname -n)" > "$METAFUSE_LAUNCH_FOLDER/begun-0"; wait $!\n{notes}\n'
        f"sleep 100 & echo $! > {tmp_path}/child\nwait\nsleep 100\n"
    )
    program.chmod(0o755)
    assert launch.launch(1, ["train.py"], mpirun=str(program)) == 1
    assert "error: rank 0 is lost and the job goes on; it is ended" in capfd.readouterr().err
    child = int((tmp_path / "child").read_text())
    end = time.monotonic() + 30  # a process that was killed is there until the system comes to it
    while launch._alive(child) and time.monotonic() < end:
        time.sleep(0.01)
    assert not launch._alive(child)


def test_what_ends_a_rank_needs_no_interpreter():
    """A process that never gives the interpreter away is ended all the same."""
    program = (
        "import re, sys, metafuse.dist.guard as guard\n"
        "with guard.deadline(0.5):\n    pass\n"
        "if sys.argv[1] == 'told':\n"
        "    with guard.deadline(0.5):\n        re.match('(a+)+b', 'a' * 40)\n"
        "guard.end_within(0.5, 7)\n"
        "if sys.argv[1] == 'waits':\n    __import__('time').sleep(100)\n"
        "re.match('(a+)+b', 'a' * 40)\n"
    )
    for how, code in (("told", 1), ("silent", 1), ("waits", 7)):
        done = subprocess.run(
            [sys.executable, "-c", program, how], capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == code
        assert ("Timeout" in done.stderr) == (how == "told")


def test_a_rank_takes_what_was_planned_for_it(monkeypatch, tmp_path):
    taken = []
    monkeypatch.setattr(os, "sched_setaffinity", lambda pid, cores: taken.append(cores), raising=False)
    monkeypatch.setenv(launch.CORES, "0,1;2,3")
    monkeypatch.setenv(launch.DEVICES, "4;7")
    monkeypatch.setenv(launch.DONE_FOLDER, str(tmp_path))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    launch.apply(Start(5, 8, 1, 2, "MPICH"))
    assert taken == [{2, 3}]
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "7"
    assert [p.name for p in tmp_path.iterdir()] == ["begun-5"]
    launch.apply(Start(6, 8, 2, 3, "MPICH"))  # more ranks here than were planned for
    assert len(taken) == 1


# -- predictions -----------------------------------------------------------------------------------------------------
NETWORK = scaling.Network("", latency=1e-5, bandwidth=1e9, adding=4e9)


def simulated_ring(ranks, nbytes):
    """The ring, step by step: each rank sends a piece to the next, first adding, then copying."""
    clock = [0.0] * ranks
    piece = nbytes / ranks
    for step in range(2 * (ranks - 1)):
        adding = piece / NETWORK.adding if step < ranks - 1 else 0.0
        sent = [t + NETWORK.latency + piece / NETWORK.bandwidth for t in clock]
        clock = [max(sent[r - 1], clock[r]) + adding for r in range(ranks)]
    return max(clock)


@pytest.mark.parametrize("ranks", [2, 3, 8, 100])
def test_the_ring_formula_is_what_a_ring_does(ranks):
    assert scaling.all_reduce_seconds(ranks, 1e7, NETWORK) == pytest.approx(simulated_ring(ranks, 1e7))


def test_predictions_behave():
    work = scaling.Work(0.5, 1e8)
    for way in scaling.WAYS:
        times = [scaling.step_seconds(p, work, NETWORK, way) for p in (1, 2, 4, 16, 64, 1024)]
        assert times[0] == 0.5
        assert times == sorted(times)
    sending = scaling.all_reduce_seconds(8, work.nbytes, NETWORK)
    whole = scaling.step_seconds(8, scaling.Work(0.5, 1e8, bucket=1e9), NETWORK)
    assert whole == pytest.approx(0.5 + sending)  # one bucket hides nothing
    assert scaling.step_seconds(8, work, NETWORK) < whole
    with pytest.raises(ValueError, match="way must be one of ring"):
        scaling.all_reduce_seconds(2, 1, NETWORK, "pigeon")


def test_the_command_prints_a_table(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["scaling", "--ranks", "2", "1024"])
    assert scaling.main() == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    assert "1,024" in lines[2]
