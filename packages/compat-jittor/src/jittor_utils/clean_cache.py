"""``jittor_utils.clean_cache``: delete what was compiled or downloaded; also ``python -m jittor_utils.clean_cache all``.

What it is: the reference's commands on metafuse's folders.
What it is not: needed. The cache of kernels has a limit, and a damaged entry is compiled again.
Who calls it: users.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence

from metafuse.cli import main as command
from metafuse.data.files import default_root

__all__ = ["clean_all", "clean_core", "clean_cuda", "clean_dataset", "clean_swap", "main"]


def clean_core() -> None:
    """Delete compiled kernels."""
    command(["cache", "--clear"])


def clean_cuda() -> None:
    """Accepted without effect: no toolkit is ever downloaded."""


def clean_swap() -> None:
    """Accepted without effect: arrays are not moved to files."""


def clean_dataset() -> None:
    """Delete downloaded data sets, unless ``METAFUSE_DATA_DIR`` says that they are in a folder of the user's own."""
    if not os.environ.get("METAFUSE_DATA_DIR"):
        shutil.rmtree(default_root(""), ignore_errors=True)


def clean_all() -> None:
    """Delete all of that."""
    clean_core()
    clean_dataset()


def main(arguments: Sequence[str]) -> int:
    """Run the commands that are named; exit code 2 if there are none or others."""
    commands = {
        "all": clean_all,
        "core": clean_core,
        "cuda": clean_cuda,
        "dataset": clean_dataset,
        "swap": clean_swap,
    }
    if not arguments or set(arguments) - set(commands):
        print(f"usage: python -m jittor_utils.clean_cache [{'|'.join(commands)}]", file=sys.stderr)
        return 2
    for name in arguments:
        commands[name]()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
