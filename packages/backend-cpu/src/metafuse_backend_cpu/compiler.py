"""The C++ compiler as a function from source texts to one binary module.

What it is: finding a compiler, finding out once what it can do, calling it.
What it is not: a code generator, a loader, or a cache of kernels (that is the core's ``CompileCache``).
Who calls it: ``backend`` (``compile``, ``fingerprint``, ``vector_math``), ``codeop`` (``CODE_MARKER``) and ``plugin``
(``problem``).

The compiler is ``METAFUSE_CXX``, else ``CXX``, else the first of g++, clang++, c++ on the path. Nothing is started on
import. What a compiler can do is probed before its first use and remembered in the cache directory under its path, size and
modification time, so that later processes start the compiler only to compile. One that can't build an empty program counts as
none; that isn't remembered, for a licence, memory or space may be there the next time.

Kernels include no headers and link nothing but the mathematical library: they compile in a fraction of the time. Texts whose
first line is ``CODE_MARKER`` are users' snippets, which may use all of C++ and OpenMP.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import asdict, dataclass
from functools import lru_cache, partial

from metafuse.errors import BackendUnavailable, CompileError
from metafuse.runtime.compile_cache import CompileCache

from . import process
from .libraries import requested
from .machine import cpu_features
from .process import build_module, checked, in_folder, is_library, product, run, write_objects

__all__ = [
    "CODE_MARKER",
    "Toolchain",
    "assembly",
    "compile",
    "find",
    "fingerprint",
    "problem",
    "toolchain",
    "vector_math",
]

#: The first line of a source that is a user's snippet.
CODE_MARKER = "// metafuse: code"
#: Raised when the flags or the probes below change meaning, so that older facts are not used.
FACTS_VERSION = 1

# In order of use; a flag that the compiler refuses is left out.
_OPTIONAL_FLAGS = (
    "-march=native",
    "-mprefer-vector-width=512",
    # these two copy loops for cases that kernels do not have; without them compilation takes half the time
    "-fno-unswitch-loops",
    "-fno-version-loops-for-strides",
    # several addresses of one stream in a loop keep the hardware from foreseeing what it needs
    "-fno-loop-unroll-and-jam",
    # takes choices apart into branches, after which loops are not vectorised; the text repeats nothing anyway
    "-fno-tree-pre",
    "-fopenmp-simd",
    "-fno-semantic-interposition",
    "-fno-gnu-unique",
)
_KERNEL_FLAGS = (
    "-std=gnu++17",
    "-O3",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-fno-exceptions",
    "-fno-rtti",
)
_CODE_FLAGS = ("-std=gnu++17", "-O3", "-fno-math-errno", "-Wno-narrowing")
_SHARED_FLAGS = ("-fPIC", "-shared", "-pipe")

_REJECTED = "the generated code was rejected"
_EMPTY_PROGRAM = 'extern "C" int probe() { return 1; }'
_VECTOR_MATH_PROGRAM = """
extern "C" __attribute__((simd("notinbranch"), const)) float expf(float);
extern "C" void probe(float* x) {
#pragma omp simd
    for (int i = 0; i < 1024; ++i) x[i] = expf(x[i]);
}
"""
_OPENMP_PROGRAM = """
extern "C" int omp_get_max_threads();
extern "C" int probe() {
    int sum = 0;
#pragma omp parallel for reduction(+ : sum)
    for (int i = 0; i < 100; ++i) sum += i;
    return sum + omp_get_max_threads();
}
"""


@dataclass(frozen=True)
class Toolchain:
    """A compiler and what is known about it. ``command`` is the program with the arguments that the user gave it."""

    command: tuple[str, ...]
    version: str
    flags: tuple[str, ...]
    vector_math: bool
    openmp: bool

    def kernel_arguments(self) -> list[str]:
        """Arguments that make a module of kernels."""
        libraries = ["-lmvec"] if self.vector_math else []
        return [*_KERNEL_FLAGS, *self.flags, *_SHARED_FLAGS, *_linker_flags(), *libraries, "-lm"]

    def code_arguments(self) -> list[str]:
        """Arguments that make a module of one user's snippet."""
        parallel = ["-fopenmp"] if self.openmp else []
        linking = [*_SHARED_FLAGS, *_linker_flags(), *_linker_lines()]
        return [*_CODE_FLAGS, *self.flags, *parallel, *linking, "-lm"]


def _linker_flags() -> list[str]:
    # Kernels use nothing of libstdc++, which the driver names anyway: loading is faster without it. A module's own
    # functions are never replaced by equally named ones of the process.
    return [] if sys.platform == "darwin" else ["-Wl,--as-needed", "-Wl,-Bsymbolic"]


def _linker_lines() -> list[str]:
    # What a snippet names and nobody defines is told with its line when it is linked, not by the loader later on; for
    # that the linker knows lines, of which the module keeps nothing. Apple's linker does the same by itself.
    return [] if sys.platform == "darwin" else ["-g1", "-Wl,-z,defs", "-Wl,--strip-debug"]


# -- finding ------------------------------------------------------------------------------------------------------
def find() -> tuple[tuple[str, ...] | None, str]:
    """The command of the compiler to use, or ``None`` with the reason in one sentence. Starts no process."""
    return _find(*(os.environ.get(name, "").strip() for name in ("METAFUSE_CXX", "CXX", "PATH")))


@lru_cache(maxsize=8)
def _find(chosen: str, usual: str, path: str) -> tuple[tuple[str, ...] | None, str]:
    for text in filter(None, (chosen, usual)):
        command = _split(text)
        program = shutil.which(command[0], path=path) if command else None
        if program:
            return (program, *command[1:]), ""
        if text is chosen:
            return None, f"METAFUSE_CXX names a compiler that can't be run: {text!r}"
    for name in ("g++", "clang++", "c++"):
        program = shutil.which(name, path=path)
        if program:
            return (program,), ""
    return (
        None,
        "no C++ compiler found (g++, clang++ or c++ on PATH, or METAFUSE_CXX); install one, for example g++",
    )


def _split(text: str) -> list[str]:
    """A whole path with spaces, or a command with arguments (``ccache g++``)."""
    if os.path.exists(text):
        return [text]
    try:
        return shlex.split(text)
    except ValueError:  # an unbalanced quote
        return [text]


_lock = threading.Lock()
_known: dict[tuple[str, ...], Toolchain] = {}


def toolchain() -> Toolchain:
    """The compiler in use, probed if nobody did before. ``BackendUnavailable`` where there is none."""
    command, reason = find()
    if command is None:
        raise BackendUnavailable(f"[cpu] {reason}")
    known = _known.get(command)
    if known is None:
        with _lock:
            known = _known.get(command) or _remembered(command)
            _known[command] = known
    return known


def problem() -> str | None:
    """Why nothing can be compiled here, in one sentence; ``None`` where something can. Starts a compiler that is not known."""
    command, reason = find()
    if command is None:
        return reason
    try:
        toolchain()
    except CompileError as error:
        told = " ".join(str(error).removeprefix("[compile] ").split())
        return f"{' '.join(command)} can't build an empty program: {told}"
    return None


def vector_math() -> bool:
    """Whether loops over ``expf`` and its kin become calls of a vector library (linked by ``compile``). False where
    there is no compiler, so that code can be emitted anywhere."""
    try:
        return toolchain().vector_math
    except (BackendUnavailable, CompileError):
        return False


def fingerprint() -> str:
    """What decides, beside source text, what ``compile`` yields: compiler, flags and CPU features, never a CPU's name."""
    try:
        known = toolchain()
    except (BackendUnavailable, CompileError):
        return "cpu:no compiler"
    return _fingerprint(known)


@lru_cache(maxsize=8)
def _fingerprint(known: Toolchain) -> str:
    flags = (*known.kernel_arguments(), *known.code_arguments())
    return "\n".join(["cpu", *known.command, known.version, *flags, *sorted(cpu_features())])


# -- probing ------------------------------------------------------------------------------------------------------
def _remembered(command: tuple[str, ...]) -> Toolchain:
    cache = CompileCache()
    key = _facts_key(command)
    text = cache.get_text(key)
    if text is not None:
        try:
            facts = json.loads(text)
            return Toolchain(
                command,
                facts["version"],
                tuple(facts["flags"]),
                bool(facts["vector_math"]),
                bool(facts["openmp"]),
            )
        except (ValueError, KeyError, TypeError):
            pass  # written by something else: ask the compiler again
    probed = _probe(command)
    cache.put_text(key, json.dumps(asdict(probed)))
    return probed


def _facts_key(command: tuple[str, ...]) -> str:
    status = os.stat(command[0])
    identity = (FACTS_VERSION, *command, os.path.realpath(command[0]), status.st_size, status.st_mtime_ns)
    wanted = (*_KERNEL_FLAGS, *_wanted_flags(), *_CODE_FLAGS, *_SHARED_FLAGS, *sorted(cpu_features()))
    return "cpu toolchain\n" + "\n".join(map(str, identity + wanted))


def _wanted_flags() -> list[str]:
    wide = "avx512f" in cpu_features()
    return [flag for flag in _OPTIONAL_FLAGS if wide or "vector-width" not in flag]


def _probe(command: tuple[str, ...]) -> Toolchain:
    """Ask the compiler for its version, and let it build small programs."""
    version = run([*command, "--version"], "").stdout.decode("utf-8", "replace").strip()
    required = [*_KERNEL_FLAGS, *_SHARED_FLAGS]
    flags = _wanted_flags()
    # -Werror turns flags that a compiler only warns about and ignores into refusals.
    if _try(command, [*required, *flags, "-Werror"], _EMPTY_PROGRAM) is None:
        _build_empty(command)
        flags = [
            flag for flag in flags if _try(command, [*required, flag, "-Werror"], _EMPTY_PROGRAM) is not None
        ]
    loop = _try(command, [*required, *flags, *_linker_flags(), "-lmvec", "-lm"], _VECTOR_MATH_PROGRAM)
    openmp = _try(command, [*_CODE_FLAGS, *flags, *_SHARED_FLAGS, "-fopenmp"], _OPENMP_PROGRAM)
    return Toolchain(command, version, tuple(flags), loop is not None and b"_ZGV" in loop, openmp is not None)


def _build_empty(command: tuple[str, ...]) -> None:
    """Raise ``CompileError`` if the compiler works for nothing at all."""
    what = "the empty program was rejected"
    build_module(command, [*_KERNEL_FLAGS, *_SHARED_FLAGS], _EMPTY_PROGRAM, what, (), _probe_seconds())


def _probe_seconds() -> float:
    return min(process.PROBE_SECONDS, process.COMPILE_SECONDS)


def _doubt(known: Toolchain) -> None:
    """After a failure: what is remembered of a compiler that builds nothing any more is forgotten. The next process asks it
    again, before it decides where to compute."""
    try:
        _build_empty(known.command)
    except CompileError:
        _known.pop(known.command, None)
        CompileCache().drop_text(_facts_key(known.command))


def _try(command: tuple[str, ...], arguments: Sequence[str], source: str) -> bytes | None:
    try:
        return build_module(command, arguments, source, "probe", (), _probe_seconds())
    except CompileError:
        return None


# -- compiling ----------------------------------------------------------------------------------------------------
def compile(sources: Sequence[str]) -> bytes:  # the contract's word
    """One shared object that holds all ``sources`` and the libraries that they ask for.

    Kernels of one call are compiled as one text; what several of them bring along is guarded against being defined
    twice. Safe to call from several threads.

    Errors: ``CompileError`` with the compiler's message; ``BackendUnavailable`` without a compiler.
    """
    known = toolchain()
    try:
        return _compiled(known, sources)
    except CompileError:
        _doubt(known)
        raise


def _compiled(known: Toolchain, sources: Sequence[str]) -> bytes:
    snippets = [source for source in sources if source.startswith(CODE_MARKER)]
    kernels = [source for source in sources if not source.startswith(CODE_MARKER)]
    libraries = requested(kernels, _fingerprint(known), partial(_build_library, known))
    if not snippets and all(library.done() for library in libraries):
        objects = [library.result() for library in libraries]
        return build_module(known.command, known.kernel_arguments(), _joined(kernels), _REJECTED, objects)
    if len(snippets) == 1 and not kernels:
        arguments = [*known.code_arguments(), *_asked(snippets[0])]
        return build_module(known.command, arguments, snippets[0], "the code was rejected")
    return _build_parts(known, snippets, kernels, libraries)


def _asked(snippet: str) -> list[str]:
    """The arguments that a snippet asks for, behind the marker in its first line."""
    return shlex.split(snippet[len(CODE_MARKER) : snippet.index("\n")])


def assembly(source: str) -> str:
    """The instructions that ``compile`` makes of one source. Errors: as ``compile``."""
    known = toolchain()
    snippet = source.startswith(CODE_MARKER)
    arguments = [*known.code_arguments(), *_asked(source)] if snippet else known.kernel_arguments()
    options = _without_linking(arguments)

    def build(folder: str) -> bytes:
        target = os.path.join(folder, "module.s")
        checked(
            [*known.command, *options, "-g0", "-S", "-x", "c++", "-", "-o", target],
            source,
            "the code was rejected",
            folder,
        )
        return product(target, known.command[0])

    lines = in_folder(build).decode("utf-8", "replace").splitlines()
    return "\n".join(line for line in lines if not line.lstrip().startswith(".") or line.startswith(".L"))


def _joined(kernels: Sequence[str]) -> str:
    return "\n".join(f'#line 1 "kernel {number}"\n{source}' for number, source in enumerate(kernels))


def _without_linking(arguments: Sequence[str]) -> list[str]:
    return [
        part
        for part in arguments
        if part != "-shared" and not part.startswith("-Wl,") and not is_library(part)
    ]


def _build_library(known: Toolchain, source: str) -> bytes:
    def build(folder: str) -> bytes:
        target = _build_object(known, known.kernel_arguments(), source, _REJECTED, folder, "library")
        return product(target, known.command[0])

    return in_folder(build)


def _build_object(
    known: Toolchain, arguments: Sequence[str], source: str, what: str, folder: str, name: str
) -> str:
    """Compile one text to an object file; answers its path."""
    target = os.path.join(folder, f"{name}.o")
    options = _without_linking(arguments)
    checked([*known.command, *options, "-c", "-x", "c++", "-", "-o", target], source, what, folder)
    return target


def _build_parts(
    known: Toolchain, snippets: Sequence[str], kernels: Sequence[str], libraries: Sequence[Future[bytes]]
) -> bytes:
    """An object file of each snippet and one of all kernels, for they need different flags, then a link. Meanwhile the
    libraries may be made."""

    def build(folder: str) -> bytes:
        asked = {source: _asked(source) for source in snippets}
        parts = [
            (source, [*known.code_arguments(), *asked[source]], "the code was rejected")
            for source in snippets
        ]
        if kernels:
            parts.append((_joined(kernels), known.kernel_arguments(), _REJECTED))
        objects = [
            _build_object(known, arguments, source, what, folder, str(number))
            for number, (source, arguments, what) in enumerate(parts)
        ]
        objects += write_objects([library.result() for library in libraries], folder)
        target = os.path.join(folder, "module.so")
        arguments = known.code_arguments() if snippets else known.kernel_arguments()
        arguments += [argument for own in asked.values() for argument in own]
        linking = [argument for argument in arguments if not is_library(argument)]
        named = [argument for argument in arguments if is_library(argument) and argument != "-lm"]
        vector = ["-lmvec"] if known.vector_math else []
        command = [*known.command, *linking, *objects, *dict.fromkeys([*named, *vector, "-lm"]), "-o", target]
        checked(command, "", "the modules can't be linked", folder)
        return product(target, known.command[0])

    return in_folder(build)
