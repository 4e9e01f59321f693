"""The C++ compiler as a function from source texts to one binary module.

What it is: finding a compiler, finding out once what it can do, calling it.
What it is not: a code generator, a loader, or a cache of kernels (that is the core's ``CompileCache``).
Who calls it: ``backend`` (``compile``, ``fingerprint``), ``codegen`` (``vector_math``) and ``plugin`` (``find``).

The compiler is ``METAFUSE_CXX``, else ``CXX``, else the first of g++, clang++, c++ on the path. Nothing is started on
import. What a compiler can do is probed before its first use and remembered in the cache directory under its path, size and
modification time, so that later processes start the compiler only to compile.

Kernels include no headers and link nothing but the mathematical library: they compile in a fraction of the time. Texts whose
first line is ``CODE_MARKER`` are users' snippets, which may use all of C++ and OpenMP.
"""

from __future__ import annotations

import errno
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

from metafuse.errors import BackendUnavailable, CompileError
from metafuse.runtime.compile_cache import CompileCache

from .machine import cpu_features

__all__ = [
    "CODE_MARKER",
    "Toolchain",
    "assembly",
    "compile",
    "find",
    "fingerprint",
    "toolchain",
    "vector_math",
]

#: The first line of a source that is a user's snippet.
CODE_MARKER = "// metafuse: code"
#: Raised when the flags or the probes below change meaning, so that older facts are not used.
FACTS_VERSION = 1
_PROBE_SECONDS = 60

# In order of use; a flag that the compiler refuses is left out.
_OPTIONAL_FLAGS = (
    "-march=native",
    "-mprefer-vector-width=512",
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
        return [*_CODE_FLAGS, *self.flags, *parallel, *_SHARED_FLAGS, *_linker_flags(), "-lm"]


def _linker_flags() -> list[str]:
    # Kernels use nothing of libstdc++, which the driver names anyway: loading is faster without it. A module's own
    # functions are never replaced by equally named ones of the process.
    return [] if sys.platform == "darwin" else ["-Wl,--as-needed", "-Wl,-Bsymbolic"]


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
    version = _run([*command, "--version"], "").stdout.decode("utf-8", "replace").strip()
    simple = 'extern "C" int probe() { return 1; }'
    required = [*_KERNEL_FLAGS, *_SHARED_FLAGS]
    flags = _wanted_flags()
    # -Werror turns flags that a compiler only warns about and ignores into refusals.
    if _try(command, [*required, *flags, "-Werror"], simple) is None:
        flags = [flag for flag in flags if _try(command, [*required, flag, "-Werror"], simple) is not None]
    if not flags:
        _build(command, required, simple, "the compiler can't build a shared object")
    loop = _try(command, [*required, *flags, *_linker_flags(), "-lmvec", "-lm"], _VECTOR_MATH_PROGRAM)
    openmp = _try(command, [*_CODE_FLAGS, *flags, *_SHARED_FLAGS, "-fopenmp"], _OPENMP_PROGRAM)
    return Toolchain(command, version, tuple(flags), loop is not None and b"_ZGV" in loop, openmp is not None)


def _try(command: tuple[str, ...], arguments: Sequence[str], source: str) -> bytes | None:
    try:
        return _build(command, arguments, source, "probe")
    except CompileError:
        return None


# -- compiling ----------------------------------------------------------------------------------------------------
def compile(sources: Sequence[str]) -> bytes:  # the contract's word
    """One shared object that holds all ``sources``.

    Kernels of one call are compiled as one text; what several of them bring along is guarded against being defined
    twice. Safe to call from several threads.

    Errors: ``CompileError`` with the compiler's message; ``BackendUnavailable`` without a compiler.
    """
    known = toolchain()
    snippets = [source for source in sources if source.startswith(CODE_MARKER)]
    kernels = [source for source in sources if not source.startswith(CODE_MARKER)]
    if not snippets:
        return _build(
            known.command, known.kernel_arguments(), _joined(kernels), "the generated code was rejected"
        )
    if len(snippets) == 1 and not kernels:
        return _build(known.command, known.code_arguments(), snippets[0], "the code was rejected")
    return _build_mixed(known, snippets, kernels)


def assembly(source: str) -> str:
    """The instructions that ``compile`` makes of one source. Errors: as ``compile``."""
    known = toolchain()
    snippet = source.startswith(CODE_MARKER)
    arguments = known.code_arguments() if snippet else known.kernel_arguments()
    options = [a for a in arguments if a != "-shared" and not a.startswith(("-l", "-Wl,"))]

    def build(folder: str) -> bytes:
        target = os.path.join(folder, "module.s")
        _checked(
            [*known.command, *options, "-S", "-x", "c++", "-", "-o", target], source, "the code was rejected"
        )
        return Path(target).read_bytes()

    lines = _in_folder(build).decode("utf-8", "replace").splitlines()
    return "\n".join(line for line in lines if not line.lstrip().startswith(".") or line.startswith(".L"))


def _joined(kernels: Sequence[str]) -> str:
    return "\n".join(f'#line 1 "kernel {number}"\n{source}' for number, source in enumerate(kernels))


def _build_mixed(known: Toolchain, snippets: Sequence[str], kernels: Sequence[str]) -> bytes:
    """Snippets and kernels need different flags: an object file of each, then a link."""

    def build(folder: str) -> bytes:
        objects: list[str] = []
        parts = [(source, known.code_arguments(), "the code was rejected") for source in snippets]
        if kernels:
            parts.append((_joined(kernels), known.kernel_arguments(), "the generated code was rejected"))
        for number, (source, arguments, what) in enumerate(parts):
            objects.append(os.path.join(folder, f"{number}.o"))
            compiling = [
                argument
                for argument in arguments
                if argument != "-shared" and not argument.startswith(("-l", "-Wl,"))
            ]
            _checked(
                [*known.command, *compiling, "-c", "-x", "c++", "-", "-o", objects[-1]], source, what, folder
            )
        target = os.path.join(folder, "module.so")
        linking = [argument for argument in known.code_arguments() if not argument.startswith("-l")]
        vector = ["-lmvec"] if known.vector_math else []
        _checked(
            [*known.command, *linking, *objects, *vector, "-lm", "-o", target],
            "",
            "the modules can't be linked",
            folder,
        )
        return Path(target).read_bytes()

    return _in_folder(build)


def _build(command: tuple[str, ...], arguments: Sequence[str], source: str, what: str) -> bytes:
    """Compile one text to a shared object."""
    # Libraries stand behind the source that needs them.
    options = [argument for argument in arguments if not argument.startswith("-l")]
    libraries = [argument for argument in arguments if argument.startswith("-l")]

    def build(folder: str) -> bytes:
        target = os.path.join(folder, "module.so")
        _checked(
            [*command, *options, "-x", "c++", "-", "-x", "none", *libraries, "-o", target],
            source,
            what,
            folder,
        )
        return Path(target).read_bytes()

    return _in_folder(build)


def _in_folder(build: Callable[[str], bytes]) -> bytes:
    """Run ``build(folder)`` in a temporary folder; where that disk is full or missing, in the next one."""
    problem: Exception | None = None
    for parent in _folders():
        try:
            with tempfile.TemporaryDirectory(
                prefix="metafuse-", dir=parent, ignore_cleanup_errors=True
            ) as folder:
                return build(folder)
        except OSError as error:
            problem = problem or error
        except _DiskFull as error:
            problem = problem or error
    raise CompileError(
        f"[compile] no room for the compiler's files: {problem}; point TMPDIR at a disk with space"
    )


def _folders() -> list[str | None]:
    try:
        first: list[str | None] = [tempfile.gettempdir()]
    except OSError:
        first = []
    return [
        *first,
        *(folder for folder in ("/dev/shm", "/var/tmp") if folder not in first and os.path.isdir(folder)),
    ]


class _DiskFull(CompileError):
    """The compiler failed for want of space; another folder may do."""


def _run(
    arguments: Sequence[str], source: str, timeout: float | None = _PROBE_SECONDS, folder: str | None = None
) -> subprocess.CompletedProcess[bytes]:
    environment = dict(os.environ, LC_ALL="C")  # messages that can be recognised and quoted
    if folder is not None:
        environment["TMPDIR"] = folder  # the compiler's own files go where ours are
    try:
        return subprocess.run(
            list(arguments),
            input=source.encode("utf-8", "surrogateescape"),
            capture_output=True,
            timeout=timeout,
            env=environment,
            check=False,
        )
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise CompileError(f"[compile] {arguments[0]!r} can't be started: {error}") from error
    except subprocess.TimeoutExpired as error:
        raise CompileError(
            f"[compile] {arguments[0]!r} gave no answer within {timeout:.0f} seconds"
        ) from error


def _checked(arguments: Sequence[str], source: str, what: str, folder: str) -> None:
    """Run the compiler; its failure becomes a ``CompileError`` with its words."""
    done = _run(arguments, source, None, folder)
    if done.returncode == 0:
        return
    words = done.stderr.decode("utf-8", "replace")
    if done.returncode < 0:
        number = -done.returncode
        try:
            name = signal.Signals(number).name
        except ValueError:
            name = str(number)
        words = f"the compiler was killed by {name} (out of memory?)\n{words}"
    if "No space left on device" in words or "Disk quota exceeded" in words:
        raise _DiskFull(readable(words))
    raise CompileError(f"[compile] {what} by {arguments[0]}:\n{readable(words)}")


def readable(words: str, limit: int = 24) -> str:
    """The part of a compiler's message that helps: its errors with what directly explains them, at most ``limit`` lines."""
    lines = [line.rstrip() for line in words.splitlines() if line.strip()]
    kept = [
        line for line in lines if "error" in line or "undefined reference" in line or "killed" in line.lower()
    ]
    if not kept:
        kept = lines
    if len(kept) > limit:
        kept = [*kept[:limit], f"... and {len(kept) - limit} more lines"]
    return "\n".join(kept) or "(no message)"
