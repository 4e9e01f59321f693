"""The native part of the build: everything else is in pyproject.toml.

What it is: the description of the extension ``metafuse_backend_cpu._native``. It needs a C++17 compiler and nothing else.
"""

from __future__ import annotations

import os
from pathlib import Path

from pybind11.setup_helpers import Pybind11Extension, build_ext
from setuptools import setup

os.chdir(Path(__file__).resolve().parent)
setup(
    ext_modules=[
        Pybind11Extension(
            "metafuse_backend_cpu._native",
            sorted(str(path) for path in Path("native").glob("*.cpp")),
            depends=sorted(str(path) for path in Path("native").glob("*.hpp")),
            include_dirs=["native"],
            cxx_std=17,
            extra_compile_args=["-O2", "-Wall", "-Wextra", "-pthread"],
            extra_link_args=["-pthread"],
        )
    ],
    cmdclass={"build_ext": build_ext},
)
