"""The native part of the build: everything else is in pyproject.toml.

What it is: the description of the extension ``metafuse_backend_cpu._native``, which needs a C++17 compiler and nothing else,
and of ``metafuse_backend_cpu._onednn``, which is built where the wheel of oneDNN is installed and left out elsewhere.
"""

from __future__ import annotations

import os
import sys
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from pybind11.setup_helpers import ParallelCompile, Pybind11Extension, build_ext
from setuptools import setup

FLAGS = ["-O2", "-Wall", "-Wextra", "-pthread"]


def installed(name: str, ending: str) -> Path | None:
    """A file of an installed distribution; wheels may put headers and libraries anywhere below the environment."""
    try:
        files = distribution(name).files or []
    except PackageNotFoundError:
        return None
    return next((Path(str(file.locate())).resolve() for file in files if str(file).endswith(ending)), None)


def extensions() -> list[Pybind11Extension]:
    """The runtime, and oneDNN where it is."""
    found = [
        Pybind11Extension(
            "metafuse_backend_cpu._native",
            sorted(str(path) for path in Path("native").glob("*.cpp")),
            depends=sorted(str(path) for path in Path("native").glob("*.hpp")),
            include_dirs=["native"],
            cxx_std=17,
            extra_compile_args=FLAGS,
            extra_link_args=["-pthread"],
        )
    ]
    header = installed("onednn-devel-cpu-gomp", "oneapi/dnnl/dnnl.hpp")
    library = installed("onednn-cpu-gomp", "/libdnnl.so.3")
    if sys.platform == "linux" and header is not None and library is not None:
        found.append(
            Pybind11Extension(
                "metafuse_backend_cpu._onednn",
                sorted(str(path) for path in Path("native/onednn").glob("*.cpp")),
                depends=sorted(str(path) for path in Path("native").rglob("*.hpp")),
                include_dirs=["native/onednn", str(header.parents[2])],
                cxx_std=17,
                extra_compile_args=FLAGS,
                # Not by a path of ours: the library is loaded by its own before this extension is imported.
                extra_link_args=["-pthread", str(library)],
            )
        )
    return found


ParallelCompile(default=0).install()
os.chdir(Path(__file__).resolve().parent)
setup(ext_modules=extensions(), cmdclass={"build_ext": build_ext})
