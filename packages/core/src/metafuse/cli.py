"""The command line: ``python -m metafuse <command>``, or ``metafuse <command>``.

What it is: small commands that show what is installed, what works here and why not, that clean the cache, and that start a script
on several ranks; and the way to commands of plugins, which are looked for only when a word is none of these or help is asked for.
What it is not: those things themselves.
Who calls it: people. Each command prints plain text; the exit code is 0 if what was asked for is fine, 1 if not,
2 for a wrong command line.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .plugins.commands import Command

__all__ = ["main"]


def table(rows: Iterable[Sequence[str]], header: Sequence[str] = ()) -> str:
    """``rows`` with aligned columns; the last column is not padded.

    Example:
        >>> print(table([("add", "sum"), ("subtract", "difference")]))
        add       sum
        subtract  difference
    """
    lines = [tuple(header), *rows] if header else list(rows)
    if not lines:
        return ""
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip() for line in lines
    )


#: commands that other packages of the project bring
ELSEWHERE = {"convert": "metafuse-converter"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; answers the exit code."""
    from .errors import MetafuseError

    words = list(sys.argv[1:] if arguments is None else arguments)
    words = ["version"] if words == ["--version"] else words
    parser, own = _parser()
    further = {} if words and words[0] in own.choices else _of_plugins(own.choices)
    for command in further.values():
        own.add_parser(command.name, help=command.summary)
    try:
        if words and words[0] in further:
            return further[words[0]].run(words[1:])
        if words and words[0] not in own.choices and not words[0].startswith("-"):
            print(*_broken_plugins(), sep="", end="", file=sys.stderr)  # one of them may have had the command
            if words[0] in ELSEWHERE:
                package = ELSEWHERE[words[0]]
                print(f"{words[0]} is a command of {package}: pip install {package}", file=sys.stderr)
        options = parser.parse_args(words)
        return int(options.command(options))
    except MetafuseError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:  # the reader, `head` say, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _of_plugins(own: Collection[str]) -> dict[str, Command]:
    """The commands that plugins add to those of ``own``."""
    from .plugins.commands import commands
    from .plugins.registry import registry

    return commands(registry().plugins, own)


def _broken_plugins() -> list[str]:
    """A line for each plugin that can't be used."""
    from .plugins.registry import registry

    records = registry().plugins.records()
    return [f"broken plugin: {r.name} ({r.module}): {r.reason}\n" for r in records if r.status == "broken"]


def _parser() -> tuple[argparse.ArgumentParser, Any]:
    """The parser, and its part to which commands are added."""
    parser = argparse.ArgumentParser(prog="metafuse", description="Show what metafuse finds on this machine.")
    parser.add_argument("--version", action="store_true", help="what the command version prints")
    commands = parser.add_subparsers(required=True, metavar="command")

    def command(
        name: str, function: Callable[[argparse.Namespace], int], doc: str
    ) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=doc, description=doc)
        sub.set_defaults(command=function)
        return sub

    command("backends", _backends, "Backends found, whether they work here, and facts about the machine.")
    ops = command("ops", _ops, "The operators, one a line.")
    ops.add_argument("pattern", nargs="?", default="", help="show only names or categories that contain this")
    command("plugins", _plugins, "Plugins found and what became of each.")
    cache = command("cache", _cache, "The cache of compiled kernels: folder, entries, size.")
    cache.add_argument("--clear", action="store_true", help="delete everything in it")
    command("flags", _flags, "The settings: value, legal values, environment variable, meaning.")
    launch = command("launch", _launch, "Run a script on several ranks, each with cores of its own.")
    launch.add_argument("-n", "--ranks", type=int, required=True, help="how many")
    launch.add_argument(
        "--threads", type=int, default=0, help="threads of each rank; else its share of the cores"
    )
    launch.add_argument(
        "--devices", default="", help="devices of the ranks, as in 0,1,2,3; each is given to one rank"
    )
    launch.add_argument(
        "--mpirun", default="", help="the program that starts the ranks; else it is looked for"
    )
    launch.add_argument("--mpi-args", default="", help="further options of that program, as one text")
    launch.add_argument("--no-bind", action="store_true", help="let ranks run on any core")
    launch.add_argument(
        "-m",
        dest="module",
        nargs=argparse.REMAINDER,
        help="a module to run in place of a script, and its arguments",
    )
    launch.add_argument(
        "-c",
        dest="text",
        nargs=argparse.REMAINDER,
        help="a program text in place of a script, and its arguments",
    )
    launch.add_argument("script", nargs=argparse.REMAINDER, help="a script and its arguments")
    command("version", _version, "Versions of metafuse, Python and NumPy.")
    return parser, commands


def _backends(options: argparse.Namespace) -> int:
    from .errors import BackendUnavailable
    from .plugins.registry import registry

    rows = []
    statuses = registry().backends()
    for status in statuses:
        descriptor = status.descriptor
        state = "usable" if status.usable else "not usable"
        about = descriptor.summary if status.usable else f"{descriptor.summary}: {status.reason}"
        rows.append((descriptor.name, state, str(descriptor.priority), descriptor.distribution, about))
    print(table(rows, ("backend", "state", "priority", "distribution", "about")))
    try:
        chosen = registry().default_backend()
    except BackendUnavailable as error:
        print(f"\ndefault: none: {error}")
        code = 1
    else:
        print(f"\ndefault: {chosen.name}")
        code = 0
        machine = chosen.capabilities.machine
        print(
            f"machine as {chosen.name} sees it: {machine.cores} cores, {8 * machine.vector_bytes} bit vectors, "
            f"L1 {_size(machine.l1_bytes)}, L2 {_size(machine.l2_bytes)}"
        )
    print(f"platform: {platform.system()} {platform.release()}, {platform.machine()}, {os.cpu_count()} CPUs")
    print(*_compilers(), _recording(), sep="\n")
    broken = _broken_plugins()
    print(*broken, sep="", end="")
    return 1 if broken else code


def _compilers() -> list[str]:
    """What the C++ compilers that a backend may take say of themselves; a variable may hold arguments (``ccache g++``)."""
    import shlex

    lines = []
    asked = (os.environ.get(name, "").strip() for name in ("METAFUSE_CXX", "CXX"))
    for name in dict.fromkeys(filter(None, (*asked, "g++", "clang++", "c++"))):
        try:
            words = [name] if os.path.exists(name) else shlex.split(name)
        except ValueError:  # an unbalanced quote
            words = [name]
        path = shutil.which(words[0])
        if path is None:
            lines.append(f"compiler: {name}: not found")
            continue
        try:
            command = [path, *words[1:], "--version"]
            done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
            told = (done.stdout or done.stderr).strip().splitlines()
            version = told[0] if told else f"exit code {done.returncode}"
        except (OSError, subprocess.TimeoutExpired) as error:
            version = f"does not run: {error}"
        lines.append(f"compiler: {name}: {path}: {version}")
    return lines


def _ops(options: argparse.Namespace) -> int:
    from .ops.registry import all_operators

    wanted = options.pattern
    rows = [
        (record.name, record.category, record.summary)
        for record in all_operators()
        if wanted in record.name or wanted in record.category
    ]
    if not rows:
        print(f"error: no operator's name or category contains {wanted!r}", file=sys.stderr)
        return 1
    print(table(rows, ("operator", "category", "meaning")))
    return 0


def _plugins(options: argparse.Namespace) -> int:
    from .plugins.registry import registry

    registry().backends()  # calls the hooks, which may show that a plugin is broken
    _of_plugins(_parser()[1].choices)
    records = registry().plugins.records()
    rows = [(r.name, r.status, r.distribution, r.module, r.reason) for r in records]
    print(table(rows, ("plugin", "status", "distribution", "module", "reason")))
    return int(any(record.status == "broken" for record in records))


def _cache(options: argparse.Namespace) -> int:
    from .config import flags
    from .runtime.compile_cache import CompileCache

    cache = CompileCache()
    if cache.path is None:
        print("error: there is no home directory; set METAFUSE_CACHE_DIR", file=sys.stderr)
        return 1
    print(f"folder: {cache.path}")
    if options.clear:
        freed = cache.size()
        cache.clear()
        print(f"cleared: {_size(freed)}")
        return 0
    files = sum(1 for path in cache.path.glob("*/*") if path.is_file())
    print(f"files: {files}")
    print(f"size: {_size(cache.size())} of at most {_size(flags.cache_limit_bytes)}")
    return 0


def _flags(options: argparse.Namespace) -> int:
    from .config import SETTINGS, flags

    rows = [(s.name, repr(getattr(flags, s.name)), s.legal, s.variable, s.doc) for s in SETTINGS.values()]
    print(table(rows, ("flag", "value", "legal", "environment variable", "meaning")))
    return 0


def _launch(options: argparse.Namespace) -> int:
    import shlex

    from .dist.launch import launch

    script = options.script[1:] if options.script[:1] == ["--"] else options.script
    script = ["-m", *options.module] if options.module else ["-c", *options.text] if options.text else script
    if not script:
        print("error: give the script to run: metafuse launch -n 4 train.py", file=sys.stderr)
        return 2
    devices = [d.strip() for d in options.devices.split(",") if d.strip()]
    bind, more = not options.no_bind, shlex.split(options.mpi_args)
    return launch(options.ranks, script, options.threads, devices, options.mpirun, more, bind)


def _version(options: argparse.Namespace) -> int:
    import numpy

    from . import __version__

    print(f"metafuse {__version__}, Python {platform.python_version()}, NumPy {numpy.__version__}")
    print(_recording())
    return 0


def _recording() -> str:
    """Whether the core's compiled paths are there."""
    from .hot import absence

    return f"recording and evaluation: {f'Python ({absence})' if absence else 'compiled'}"


def _size(count: int) -> str:
    """A number of bytes for people.

    Example:
        >>> _size(512), _size(1536), _size(3 << 30)
        ('512 B', '1.5 KiB', '3.0 GiB')
    """
    value = float(count)
    for unit in ("B", "KiB", "MiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} GiB"
