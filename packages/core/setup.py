"""The native part of the build: everything else is in pyproject.toml.

What it is: the description of the extension ``metafuse._compiled``, which needs a C++17 compiler and the headers of Python. It is
optional: where it can't be built it is left out, and everything works, slower (``metafuse.hot``).
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from setuptools import Extension, setup

os.chdir(Path(__file__).resolve().parent)
FLAGS = ["/std:c++17"] if sys.platform == "win32" else ["-O2", "-std=c++17", "-g0", "-Wall", "-Wextra"]

setup(
    ext_modules=[
        Extension(
            "metafuse._compiled",
            sorted(str(path) for path in Path("native").glob("*.cpp")),
            depends=sorted(str(path) for path in Path("native").glob("*.hpp")),
            language="c++",
            extra_compile_args=FLAGS,
            optional=True,
        )
    ]
)
