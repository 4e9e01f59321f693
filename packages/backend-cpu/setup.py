"""The native part of the build: everything else is in pyproject.toml.

What it is: the description of the extension ``metafuse_backend_cpu._native`` and a probe for OpenMP, which compiles and
links a small program. Without OpenMP the extension uses plain threads.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from pybind11.setup_helpers import Pybind11Extension, build_ext
from setuptools import setup

OPENMP_PROGRAM = """
#include <omp.h>
int main() {
    int sum = 0;
#pragma omp parallel reduction(+ : sum)
    sum += omp_get_num_threads() > 0;
    return sum == 0;
}
"""


class BuildExtension(build_ext):
    """Adds OpenMP where the compiler has it."""

    def build_extensions(self) -> None:
        """Build with the flags that the probe found."""
        if self._openmp_works():
            for extension in self.extensions:
                extension.define_macros.append(("METAFUSE_OPENMP", "1"))
                extension.extra_compile_args.append("-fopenmp")
                extension.extra_link_args.append("-fopenmp")
        else:
            print("metafuse-backend-cpu: no OpenMP in this compiler; using plain threads")
        super().build_extensions()

    def _openmp_works(self) -> bool:
        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder) / "probe.cpp"
            source.write_text(OPENMP_PROGRAM)
            try:
                objects = self.compiler.compile([str(source)], output_dir="/", extra_postargs=["-fopenmp"])
                self.compiler.link_executable(
                    objects, "probe", output_dir=folder, extra_postargs=["-fopenmp"], target_lang="c++"
                )
            except Exception:  # whatever a compiler class raises: it does not work
                return False
            return True


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
    cmdclass={"build_ext": BuildExtension},
)
