"""The command line: ``python -m metafuse convert FILE_OR_FOLDER [-o OUT] [--diff] [--report] [--check] [--target jittor]``.

What it is: reading and writing files, and telling what was not converted.
What it is not: conversion.
Who calls it: people, also as ``python -m metafuse_converter``; ``plugin``.

The exit code is 0 if everything was converted, 1 if something was not, 2 for a wrong command line.
"""

from __future__ import annotations

import argparse
import difflib
import sys
import tokenize
from collections.abc import Iterator, Sequence
from pathlib import Path

from metafuse.errors import ArgumentError

from .conversion import TARGETS, Conversion, SourceError, convert_source

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None, program: str = "python -m metafuse_converter") -> int:
    """Run the command, which is called ``program`` in messages; answers the exit code."""
    options = _parser(program).parse_args(arguments)
    source = Path(options.source)
    if not source.exists():
        print(f"error: there is no {source}", file=sys.stderr)
        return 2
    try:
        return _run(source, options)
    except (ArgumentError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def _parser(program: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=program, description="Convert PyTorch programs to metafuse, or to the reference API."
    )
    parser.add_argument("source", help="a file, or a folder of which every .py file is converted")
    parser.add_argument(
        "-o", "--output", default="", help="the file or folder to write; without it a file is printed"
    )
    parser.add_argument("--diff", action="store_true", help="print what changes, line by line, not the text")
    parser.add_argument(
        "--report", action="store_true", help="print what becomes of each of PyTorch's names, not the text"
    )
    parser.add_argument("--target", choices=sorted(TARGETS), default="metafuse", help="what to convert to")
    parser.add_argument(
        "--check", action="store_true", help="write nothing, only tell what would not be converted"
    )
    return parser


def _run(source: Path, options: argparse.Namespace) -> int:
    shows = options.check or options.diff or options.report
    if source.is_dir() and not options.output and not shows:
        raise ArgumentError(
            "[convert] a folder needs -o, the folder to write, or --check, --diff or --report"
        )
    files = broken = left = changed = 0
    for path, target in _files(source, options.output):
        files += 1
        try:
            text, encoding = _read(path)
            done = convert_source(text, target=options.target, filename=str(path))
        except SourceError as error:
            broken += 1
            print(str(error).removeprefix("[convert] "), file=sys.stderr)
            continue
        left += len(done.unconverted)
        changed += done.source != text
        if options.diff:
            _diff(text, done)
        if options.report:
            _report(done)
        else:
            _tell(done)
        if target is not None and not options.check:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(done.source, encoding=encoding)
        elif not shows:
            print(done.source, end="")
    print(
        f"{files} files, {changed} of them with PyTorch; {left} places not converted, {broken} files unreadable",
        file=sys.stderr,
    )
    return 1 if left or broken else 0


def _files(source: Path, output: str) -> Iterator[tuple[Path, Path | None]]:
    if source.is_file():
        target = Path(output) if output else None
        yield source, target / source.name if target is not None and target.is_dir() else target
        return
    inside = Path(output).resolve() if output else None
    for path in sorted(source.rglob("*.py")):
        if inside is not None and inside in path.resolve().parents:
            continue  # of an earlier conversion
        yield path, Path(output) / path.relative_to(source) if output else None


def _read(path: Path) -> tuple[str, str]:
    """The text, and the encoding that its first lines tell."""
    try:
        with tokenize.open(path) as file:
            return file.read(), file.encoding
    except (SyntaxError, UnicodeDecodeError) as error:
        raise SourceError(f"[convert] {path}:1: this can't be read: {error}", 1) from None


def _tell(done: Conversion) -> None:
    for line in done.report:
        print(line, file=sys.stderr)
    for remark in done.notes:
        print(f"{done.filename}:{remark.line}: note: {remark.why}", file=sys.stderr)


def _diff(text: str, done: Conversion) -> None:
    lines = difflib.unified_diff(
        text.splitlines(True), done.source.splitlines(True), done.filename, f"{done.filename} (converted)"
    )
    for line in lines:
        print(line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n", end="")


def _report(done: Conversion) -> None:
    """What became of each name, those that were not converted first; then the notes."""
    uses: dict[tuple[bool, str, str], list[int]] = {}
    for converted, remarks in ((False, done.unconverted), (True, done.converted)):
        for r in remarks:
            uses.setdefault((converted, r.name, r.why), []).append(r.line)
    total = sum(map(len, uses.values()))
    print(f"{done.filename}: {total} uses of PyTorch's names, {total - len(done.unconverted)} converted")
    for (converted, name, why), lines in sorted(uses.items()):
        places = ", ".join(map(str, sorted(set(lines))))
        print(f"  {name}: {why if converted else f'not converted: {why}'} (line {places})")
    for remark in done.notes:
        print(f"  line {remark.line}: note: {remark.why}")
