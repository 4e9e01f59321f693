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
# Without exceptions: a thread that asks for the interpreter while the process ends is unwound where it stands, and must not give
# references back on the way, without the interpreter's lock.
FLAGS = (
    ["/std:c++17"]
    if sys.platform == "win32"
    else ["-O2", "-std=c++17", "-fno-exceptions", "-g0", "-Wall", "-Wextra"]
)

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
