"""Which of the user's own files a C++ snippet includes, and what is in them.

What it is: a reader of ``#include "name"`` lines. Compiled snippets are kept under their text, so the text must change where an
included file does.
What it is not: a preprocessor: lines that ``#if`` leaves out count too, and headers of the system (``<name>``) do not.
Who calls it: ``codeop``.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

__all__ = ["included"]

_INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]*"([^"\n]+)"', re.MULTILINE)
_FOLDER = re.compile(r"-(?:I|isystem|iquote)(.+)")


def included(texts: Iterable[str], options: Sequence[str]) -> list[tuple[str, str]]:
    """(path, digest of the content) of every file that ``texts`` include, directly or not.

    ``options``: the compiler's, of which ``-I`` counts. Files that are not found are left to the compiler to report."""
    folders = [Path(match[1]) for option in options if (match := _FOLDER.fullmatch(option))]
    found: dict[Path, str] = {}
    waiting = [(name, Path.cwd()) for text in texts for name in _INCLUDE.findall(text)]
    while waiting:
        name, beside = waiting.pop()
        path = next((p for folder in (beside, *folders) if (p := folder / name).is_file()), None)
        if path is None or (path := path.resolve()) in found:
            continue
        content = path.read_bytes()
        found[path] = hashlib.sha256(content).hexdigest()[:16]
        waiting += [(inner, path.parent) for inner in _INCLUDE.findall(content.decode("utf-8", "replace"))]
    return sorted((str(path), digest) for path, digest in found.items())
