"""What the tests of this package share: a backend, memory, and a private cache directory."""

from __future__ import annotations

import stat
import sys
from pathlib import Path

import pytest

from metafuse.config import flags

sys.path.insert(0, str(Path(__file__).parent))  # the kits beside the tests


@pytest.fixture(scope="session", autouse=True)
def private_cache(tmp_path_factory):
    """Nothing of a user's cache is read or changed."""
    former = flags.cache_dir
    flags.cache_dir = str(tmp_path_factory.mktemp("cache"))
    yield
    flags.cache_dir = former


@pytest.fixture(scope="session")
def backend(private_cache):
    from metafuse_backend_cpu.backend import CpuBackend

    return CpuBackend()


@pytest.fixture(scope="session")
def axpy(backend):
    """(kernel, loaded) of ``AXPY``."""
    from runtime_kit import AXPY, axpy_kernel

    kernel = axpy_kernel()
    binary = backend.compile([AXPY.replace("SYMBOL", "axpy")])
    return kernel, backend.load(binary, {"axpy": kernel})["axpy"]


@pytest.fixture
def table(backend):
    from runtime_kit import Table

    made = Table(backend)
    yield made
    made.free()


@pytest.fixture
def threads(backend):
    """Sets the number of threads for one test."""
    former = backend.threads
    yield backend.set_threads
    backend.set_threads(former)


@pytest.fixture
def script(tmp_path, monkeypatch):
    """script(text): a compiler that is a shell script, under a path with spaces and other letters."""

    def make(text: str, name: str = "my compiler ü") -> Path:
        folder = tmp_path / "bin with space"
        folder.mkdir(exist_ok=True)
        path = folder / name
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setenv("METAFUSE_CXX", str(path))
        return path

    return make


@pytest.fixture
def spoilt(script):
    """spoilt(action): a compiler that works until it was accepted, and from then on does ``action`` first (shell)."""
    from metafuse_backend_cpu import compiler

    def make(action: str) -> None:
        path = script(f'[ -e "$0.spoilt" ] && {{ {action}; }}\nexec g++ "$@"')
        compiler._known.clear()
        compiler.toolchain()
        path.with_name(f"{path.name}.spoilt").touch()

    return make


@pytest.fixture
def empty_cache(tmp_path, monkeypatch):
    """Nothing is known of any compiler."""
    from metafuse_backend_cpu import compiler

    monkeypatch.setattr(flags, "cache_dir", str(tmp_path / "cache"))
    former = flags.cache_dir
    flags.cache_dir = str(tmp_path / "cache")
    compiler._known.clear()
    yield
    flags.cache_dir = former
    compiler._known.clear()
