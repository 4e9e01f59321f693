"""The file-size gate: source files stay small enough to be read in one sitting.

``python tools/check_sizes.py`` lists files beyond the limit and answers exit code 1 if there are any.
``ALLOWED`` names exceptions with the number of lines they may have; the list must shrink.
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LIMIT = 600
SUFFIXES = {".py", ".cpp", ".cc", ".c", ".h", ".hpp", ".cu"}
FOLDERS = ("packages", "examples", "benchmarks", "tests", "tools")
SKIPPED = {"build", "node_modules", "__pycache__"}
ALLOWED: dict[str, int] = {}


def too_long(root: Path = ROOT, limit: int = LIMIT) -> list[tuple[str, int, int]]:
    """(path, lines, allowed lines) of every source file below ``root`` that is longer than it may be."""
    found = []
    for folder in FOLDERS:
        for path in sorted((root / folder).rglob("*")):
            relative = path.relative_to(root)
            if path.suffix not in SUFFIXES or SKIPPED & set(relative.parts) or not path.is_file():
                continue
            lines = path.read_text(encoding="utf-8").count("\n")
            allowed = ALLOWED.get(relative.as_posix(), limit)
            if lines > allowed:
                found.append((relative.as_posix(), lines, allowed))
    return found


def needless_exceptions(root: Path = ROOT, limit: int = LIMIT) -> list[str]:
    """Entries of ``ALLOWED`` whose file is gone or fits the limit by now."""
    needless = []
    for name in ALLOWED:
        path = root / name
        if not path.exists() or path.read_text(encoding="utf-8").count("\n") <= limit:
            needless.append(name)
    return needless


def main() -> int:
    long_files = too_long()
    for name, lines, allowed in long_files:
        print(f"{name}: {lines} lines, at most {allowed} allowed; split it by what it does")
    needless = needless_exceptions()
    for name in needless:
        print(f"{name}: needs no exception any more; remove it from ALLOWED")
    return 1 if long_files or needless else 0


if __name__ == "__main__":
    sys.exit(main())
