"""A stranger's backend: built as a wheel, installed beside core's wheel, found by its entry point, tested by its own
three-line file, without anything of this source tree on the path."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LEFT_OUT = shutil.ignore_patterns("build", "*.egg-info", "__pycache__", "tests", ".hypothesis")


def run(*command: str | Path, cwd: Path, timeout: int = 600, **environment: str) -> str:
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    return done.stdout


def build(package: Path, folder: Path) -> None:
    """A wheel of a clean copy of ``package``; without a network where this environment has the build tools."""
    copy = folder / "source" / package.name
    shutil.copytree(package, copy, ignore=LEFT_OUT)
    here = ["--no-build-isolation"] if importlib.util.find_spec("setuptools") is not None else []
    run(
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "-q",
        "--no-deps",
        *here,
        "-w",
        folder / "wheels",
        copy,
        cwd=folder,
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A folder with core and the minimal backend installed from wheels."""
    folder = tmp_path_factory.mktemp("stranger")
    for package in (ROOT / "packages" / "core", ROOT / "examples" / "backend-minimal"):
        build(package, folder)
    wheels = sorted((folder / "wheels").glob("*.whl"))
    assert len(wheels) == 2
    options = ("-q", "--no-deps", "--no-index", "--target", folder / "site")
    run(sys.executable, "-m", "pip", "install", *options, *wheels, cwd=folder)
    return folder / "site"


@pytest.mark.slow
def test_the_installed_backend_is_found_and_used_only_when_named(site):
    code = (
        "import metafuse as mf; print(mf.__file__); x = mf.exp(mf.arange(3)); print(x.numpy().tolist());"
        "from metafuse.plugins.registry import registry; print(registry().default_backend().name)"
    )
    told = run(sys.executable, "-c", code, cwd=site.parent, PYTHONPATH=str(site), METAFUSE_BACKEND="minimal")
    path, values, name = told.splitlines()
    assert Path(path).is_relative_to(site)
    assert values.startswith("[1.0, 2.718281")
    assert name == "minimal"
    told = run(
        sys.executable,
        "-m",
        "metafuse",
        "backends",
        cwd=site.parent,
        PYTHONPATH=str(site),
        METAFUSE_BACKEND="",
    )
    assert re.search(r"^minimal +usable +-1", told, re.MULTILINE)
    assert "default: minimal" not in told


@pytest.mark.slow
def test_the_installed_backend_passes_the_conformance_kit(site):
    tests = site.parent / "tests"
    tests.mkdir()
    shutil.copy(ROOT / "examples" / "backend-minimal" / "tests" / "test_conformance.py", tests)
    told = run(
        sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-W", "error", tests,
        cwd=tests, PYTHONPATH=str(site), METAFUSE_CACHE_DIR=str(site.parent / "cache"),
    )  # fmt: skip
    passed = re.search(r"(\d+) passed", told)
    assert passed is not None
    assert int(passed[1]) > 400
    assert "failed" not in told


@pytest.mark.slow
def test_the_example_in_its_text_runs(site):
    code = "import doctest, metafuse_backend_minimal.codegen as m; print(*doctest.testmod(m))"
    failed, attempted = map(
        int, run(sys.executable, "-c", code, cwd=site.parent, PYTHONPATH=str(site)).split()
    )
    assert failed == 0
    assert attempted > 0
