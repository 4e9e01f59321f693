"""Running a compiler: processes, temporary folders, and messages that people can read.

What it is: the one place that starts processes, always from lists of arguments and never through a shell.
What it is not: knowledge about compilers (``compiler``). Who calls it: ``compiler``.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import re
import shutil
import signal
import stat
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from metafuse.errors import CompileError

__all__ = [
    "build_module",
    "checked",
    "in_folder",
    "is_library",
    "product",
    "readable",
    "run",
    "write_objects",
]

#: what temporary folders are called, and nothing else
PREFIX = "metafuse-compile-"
#: no compilation takes this long: what is older was left by a process that was killed
STALE_SECONDS = 24 * 3600.0
PROBE_SECONDS = 60
#: no text takes this long; a compiler that does hangs
COMPILE_SECONDS = 900
#: of a message that is longer, the beginning and the end are read
MESSAGE_BYTES = 1 << 18
#: a place in a snippet, as ``metafuse.code`` calls its texts
_OWN = re.compile(r"cpu_(header|src|grad_src\[\d+\]):\d+")
#: the linker puts the folder of the program in front
_OWN_IN_FOLDER = re.compile(rf"\S*/(?={_OWN.pattern})")
#: what the texts around a snippet are called
_OURS = ("wrapper:", "entry:")
_LINKER = re.compile(r"(\S*/)?(\S+-)?ld(\.\w+)?: ")
_CHOOSE = "choose another compiler by METAFUSE_CXX"


def build_module(
    command: tuple[str, ...],
    arguments: Sequence[str],
    source: str,
    what: str,
    objects: Sequence[bytes] = (),
    seconds: float | None = None,
) -> bytes:
    """Compile one text to a shared object and link it with ``objects``; in so many ``seconds`` or ``COMPILE_SECONDS``."""
    # Libraries stand behind the source that needs them.
    options = [argument for argument in arguments if not is_library(argument)]
    libraries = [argument for argument in arguments if is_library(argument)]

    def build(folder: str) -> bytes:
        target = os.path.join(folder, "module.so")
        linked = [*write_objects(objects, folder), *libraries]
        words = [*command, *options, "-x", "c++", "-", "-x", "none", *linked, "-o", target]
        checked(words, source, what, folder, seconds)
        return product(target, command[0])

    return in_folder(build)


def product(target: str, compiler: str) -> bytes:
    """What a compiler that ended without an error has written."""
    try:
        return Path(target).read_bytes()
    except FileNotFoundError:
        if not os.path.isdir(os.path.dirname(target)):
            raise  # somebody has removed the folder
        raise CompileError(
            f"[compile] {compiler!r} reported no error, but wrote no module; {_CHOOSE}"
        ) from None


def is_library(argument: str) -> bool:
    """Whether an argument names code to link with, whose place is behind the code that needs it."""
    return argument.startswith("-l") or (
        not argument.startswith("-")
        and (argument.endswith((".a", ".o", ".so", ".dylib")) or ".so." in argument)
    )


def write_objects(objects: Sequence[bytes], folder: str) -> list[str]:
    """Write object files into ``folder``; answers their paths."""
    paths = [os.path.join(folder, f"library{number}.o") for number in range(len(objects))]
    for path, content in zip(paths, objects, strict=True):
        Path(path).write_bytes(content)
    return paths


def in_folder(build: Callable[[str], bytes]) -> bytes:
    """Run ``build(folder)`` in a temporary folder; where that disk is full or missing, in the next one."""
    problem: Exception | None = None
    for parent in _folders():
        try:
            _clean(parent)
            with tempfile.TemporaryDirectory(prefix=PREFIX, dir=parent, ignore_cleanup_errors=True) as folder:
                return build(folder)
        except OSError as error:
            problem = problem or error
        except DiskFull as error:
            problem = problem or error
    raise CompileError(
        f"[compile] no room for the compiler's files: {problem}; point TMPDIR at a disk with space"
    )


@functools.lru_cache(maxsize=None)
def _clean(parent: str) -> None:
    """Remove what processes of this user that were killed in the middle of a compilation have left in ``parent``: once in a
    process, and nothing that one which lives may use. Should one have slept that long, it goes on in the next folder."""
    own = getattr(os, "getuid", lambda: 0)()
    now = time.time()
    with contextlib.suppress(OSError), os.scandir(parent) as entries:
        for entry in entries:
            if not entry.name.startswith(PREFIX):
                continue
            with contextlib.suppress(OSError):  # gone meanwhile
                status = entry.stat(follow_symlinks=False)
                if (
                    stat.S_ISDIR(status.st_mode)
                    and status.st_uid == own
                    and now - status.st_mtime > STALE_SECONDS
                ):
                    shutil.rmtree(entry.path, ignore_errors=True)


def _folders() -> list[str]:
    try:
        first = [tempfile.gettempdir()]
    except OSError:
        first = []
    return [
        *first,
        *(folder for folder in ("/dev/shm", "/var/tmp") if folder not in first and os.path.isdir(folder)),
    ]


class DiskFull(CompileError):
    """The compiler failed for want of space; another folder may do."""


def run(
    arguments: Sequence[str], source: str, timeout: float = PROBE_SECONDS, folder: str | None = None
) -> subprocess.CompletedProcess[bytes]:
    environment = dict(os.environ, LC_ALL="C")  # messages that can be recognised and quoted
    if folder is not None:
        environment["TMPDIR"] = folder  # the compiler's own files go where ours are
    try:
        # A group of its own: the driver starts other programs, which have to end with it.
        process = subprocess.Popen(
            list(arguments),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
            start_new_session=True,
        )
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise CompileError(f"[compile] {arguments[0]!r} can't be started: {error}; {_CHOOSE}") from error
    with process:
        try:
            output, words = process.communicate(source.encode("utf-8", "surrogateescape"), timeout)
        except subprocess.TimeoutExpired as error:
            _end(process)
            raise CompileError(
                f"[compile] {arguments[0]!r} gave no answer within {timeout:.0f} seconds; {_CHOOSE}"
            ) from error
        except BaseException:  # the user does not want to wait
            _end(process)
            raise
    return subprocess.CompletedProcess(list(arguments), process.returncode, output, words)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill a compiler with all that it has started."""
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.kill()


def checked(
    arguments: Sequence[str], source: str, what: str, folder: str, seconds: float | None = None
) -> None:
    """Run the compiler; its failure becomes a ``CompileError`` with its words."""
    done = run(arguments, source, seconds or COMPILE_SECONDS, folder)
    if done.returncode == 0:
        return
    said = done.stderr
    if len(said) > 2 * MESSAGE_BYTES:
        said = said[:MESSAGE_BYTES] + b"\n" + said[-MESSAGE_BYTES:]
    words = said.decode("utf-8", "replace")
    if done.returncode < 0:
        number = -done.returncode
        try:
            name = signal.Signals(number).name
        except ValueError:
            name = str(number)
        words = f"the compiler was killed by {name} (out of memory?)\n{words}"
    if "No space left on device" in words or "Disk quota exceeded" in words:
        raise DiskFull(readable(words))
    raise CompileError(f"[compile] {what} by {arguments[0]}:\n{readable(words)}")


def _helps(line: str) -> bool:
    """Whether a line is an error, a linker's complaint, or names a line of the user that a library's error comes from."""
    if "error" in line or "undefined reference" in line or "killed" in line.lower():
        return True
    if _LINKER.match(line):
        return "in function" not in line  # a name of ours
    return _OWN.match(line) is not None and "warning:" not in line


def readable(words: str, limit: int = 24) -> str:
    """The part of a compiler's message that helps: its errors with what directly explains them, at most ``limit`` lines."""
    lines = [_OWN_IN_FOLDER.sub("", line.rstrip()) for line in words.splitlines() if line.strip()]
    told = [line for line in lines if _helps(line)]
    # what stumbles over a bracket of the user's in our own text says nothing more
    kept = [line for line in told if not line.startswith(_OURS)] or told or lines
    if len(kept) > limit:
        kept = [*kept[:limit], f"... and {len(kept) - limit} more lines"]
    return "\n".join(kept) or "(no message)"
