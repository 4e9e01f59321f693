"""Starting a script on several ranks: ``python -m metafuse launch -n 4 train.py``.

What it is: finds ``mpirun``, gives every rank cores of its own (and a device), tells which, runs the script, and answers the exit
code of the job.
What it is not: needed. ``mpirun`` and ``srun`` start scripts as well; then nothing is mapped.
Who calls it: ``cli``. ``apply`` is called by ``metafuse.dist`` in the ranks.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import DistributionError
from .contract import Start
from .guard import DONE_FOLDER, ENDING, leave_note

__all__ = ["Plan", "apply", "find_mpirun", "launch", "planned"]

#: cores of the ranks of a machine, "0,1;2,3", and their devices, "0;1"
CORES, DEVICES = "METAFUSE_LAUNCH_CORES", "METAFUSE_LAUNCH_DEVICES"

#: seconds between looks at the ranks, and until a job that has lost one is ended from outside
LOOK, GRACE = 0.5, 20.0

INSTALL = (
    "pip install metafuse-dist-mpi[mpich] brings one; else install your system's (apt install mpich, or openmpi-bin) or load the "
    "module of your cluster"
)


@dataclass(frozen=True)
class Plan:
    """Cores and device of every rank of this machine."""

    cores: tuple[tuple[int, ...], ...]
    devices: tuple[str, ...]
    threads: int

    def lines(self) -> list[str]:
        """The mapping, for people."""
        found = []
        for rank, cores in enumerate(self.cores):
            device = f", device {self.devices[rank]}" if self.devices else ""
            shown = ",".join(map(str, cores)) if cores else "any"
            found.append(
                f"rank {rank}: cores {shown}, {self.threads} thread{'s' * (self.threads > 1)}{device}"
            )
        return found


def find_mpirun(given: str = "") -> str:
    """The path of ``mpirun``: the one given, that beside this Python, then the first on the path.

    Errors: ``DistributionError`` that says what to install."""
    candidates = [given] if given else [str(Path(sys.executable).parent / "mpirun"), "mpirun", "mpiexec"]
    for name in candidates:
        path = shutil.which(name)
        if path:
            return path
    if given:
        raise DistributionError(f"[launch] there is no program {given!r}; give the path of mpirun")
    raise DistributionError(f"[launch] there is no mpirun; {INSTALL}")


def planned(
    count: int, threads: int = 0, devices: Sequence[str] = (), available: Sequence[int] | None = None
) -> Plan:
    """Share ``available`` cores (``None``: those this process may use) among ``count`` ranks.

    Ranks get equally many neighbouring cores; where there are fewer cores than ranks, none is bound. Errors:
    ``DistributionError`` if two ranks would share a device.

    Example:
        >>> planned(2, available=[0, 1, 2, 3, 4]).cores
        ((0, 1), (2, 3))
    """
    if devices:
        twice = sorted({d for d in devices if list(devices).count(d) > 1})
        if twice or len(devices) < count:
            what = (
                f"device {twice[0]} is named twice"
                if twice
                else f"there are {len(devices)} devices ({', '.join(devices)})"
            )
            raise DistributionError(
                f"[launch] {count} ranks need {count} devices of their own, and {what}; start fewer ranks"
            )
    if available is None:
        affinity = getattr(os, "sched_getaffinity", None)
        available = sorted(affinity(0)) if affinity else list(range(os.cpu_count() or 1))
    share = len(available) // count
    cores = tuple(tuple(available[r * share : (r + 1) * share]) for r in range(count))
    return Plan(cores, tuple(devices[:count]), threads or max(share, 1))


def launch(
    count: int,
    command: Sequence[str],
    threads: int = 0,
    devices: Sequence[str] = (),
    mpirun: str = "",
    mpi_args: Sequence[str] = (),
    bind: bool = True,
) -> int:
    """Run ``python command...`` on ``count`` ranks; answers the exit code of the job, which is not 0 if any rank failed."""
    if count < 1:
        raise DistributionError(f"[launch] -n must be >= 1, got {count}")
    if importlib.util.find_spec("metafuse_dist_mpi") is None:
        raise DistributionError(
            "[launch] nothing connects processes here; pip install metafuse-dist-mpi[mpich]"
        )
    program = find_mpirun(mpirun)
    plan = planned(count, threads, devices)
    environment = dict(os.environ)
    if bind and all(plan.cores):
        environment[CORES] = ";".join(",".join(map(str, cores)) for cores in plan.cores)
    if plan.devices:
        environment[DEVICES] = ";".join(plan.devices)
    environment["OMP_NUM_THREADS"] = environment["METAFUSE_NUM_THREADS"] = str(plan.threads)
    print(f"{count} ranks by {program}", file=sys.stderr)
    for line in plan.lines():
        print(line, file=sys.stderr)
    sys.stderr.flush()
    with tempfile.TemporaryDirectory(prefix="metafuse-launch-") as folder:
        environment[DONE_FOLDER] = folder
        arguments = [
            program,
            *_options(program, environment),
            *mpi_args,
            "-n",
            str(count),
            sys.executable,
            *command,
        ]
        code = _run(arguments, environment, Path(folder))
        return code or _unfinished(Path(folder))


def _run(arguments: list[str], environment: dict[str, str], folder: Path) -> int:
    """Run until the end. Ranks that are lost are the job's own affair first; if it does not end, it is ended."""
    with subprocess.Popen(arguments, env=environment) as process:
        since: float | None = None
        try:
            while True:
                try:
                    return process.wait(LOOK)
                except subprocess.TimeoutExpired:
                    lost = _lost(folder)
                if lost and since is None:
                    since = time.monotonic()
                if lost and since is not None and time.monotonic() - since > GRACE:
                    print(f"error: rank {lost[0]} is lost and the job goes on; it is ended", file=sys.stderr)
                    _end(process, folder)
                    return 1
        except KeyboardInterrupt:
            _end(process, folder)
            return 130


def _lost(folder: Path) -> list[int]:
    """Ranks that have failed, or are no longer there and never came to their end."""
    here = os.uname().nodename if hasattr(os, "uname") else ""
    names = {path.name for path in folder.iterdir()}
    lost = []
    for rank in sorted(int(name[6:]) for name in names if name.startswith("begun-")):
        pid, _, machine = (folder / f"begun-{rank}").read_text().strip().partition(" ")
        gone = machine == here != "" and pid.isdigit() and not _alive(int(pid))
        # whoever is gone by now may have left its note since
        if f"failed-{rank}" in names or (gone and not (folder / str(rank)).exists()):
            lost.append(rank)
    return lost


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    stat = Path(f"/proc/{pid}/stat")
    try:
        return stat.read_text().rpartition(")")[2].split()[0] != "Z"
    except (OSError, IndexError):
        return not stat.parent.parent.is_dir()  # there is no /proc, or it has gone just now


def _end(process: subprocess.Popen[bytes], folder: Path) -> None:
    """End ``mpirun``, and whatever of the job is left on this machine: also what ranks have started."""
    process.terminate()
    try:
        process.wait(ENDING)
    except subprocess.TimeoutExpired:
        process.kill()
    mark = f"{DONE_FOLDER}={folder}".encode()
    for path in Path("/proc").glob("[0-9]*/environ"):
        pid = int(path.parent.name)
        try:
            if pid != os.getpid() and mark in path.read_bytes().split(b"\0"):
                os.kill(pid, signal.SIGKILL)
        except OSError:  # another user's, or gone
            continue


def _options(program: str, environment: dict[str, str]) -> list[str]:
    """What Open MPI needs to do as it is told; others need nothing."""
    told = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=60, check=False)
    text = told.stdout + told.stderr
    if "Open MPI" not in text and "OpenRTE" not in text and "PRRTE" not in text:
        return []
    environment.setdefault("OMPI_MCA_rmaps_base_oversubscribe", "1")
    environment.setdefault("PRTE_MCA_rmaps_default_mapping_policy", ":oversubscribe")
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        environment.setdefault("OMPI_ALLOW_RUN_AS_ROOT", "1")
        environment.setdefault("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1")
    return ["--bind-to", "none"]


def _unfinished(folder: Path) -> int:
    """1 if a rank that imported metafuse left without coming to its end, which some launchers overlook."""
    names = {path.name for path in folder.iterdir()}
    lost = sorted(int(name[6:]) for name in names if name.startswith("begun-") and name[6:] not in names)
    for rank in lost:
        print(f"error: rank {rank} left without coming to its end", file=sys.stderr)
    return int(bool(lost))


def apply(start: Start) -> None:
    """In a rank: take the cores and the device that were planned for it."""
    machine = os.uname().nodename if hasattr(os, "uname") else ""
    leave_note(f"begun-{start.rank}", f"{os.getpid()} {machine}")
    cores = os.environ.get(CORES, "").split(";")
    if start.local_rank < len(cores) and cores[start.local_rank] and hasattr(os, "sched_setaffinity"):
        try:
            os.sched_setaffinity(0, {int(core) for core in cores[start.local_rank].split(",")})
        except OSError as error:  # another machine than the one that was planned for
            print(f"metafuse: rank {start.rank} is not bound to cores: {error}", file=sys.stderr)
    devices = os.environ.get(DEVICES, "").split(";")
    if start.local_rank < len(devices) and devices[start.local_rank]:
        os.environ["CUDA_VISIBLE_DEVICES"] = devices[start.local_rank]
