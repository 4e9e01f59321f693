"""The plugin: adds ``convert`` to the commands of ``python -m metafuse``.

What it is: the name, the line of help, and the import of the command when it is run.
What it is not: the command (``cli``).
Who calls it: ``metafuse.plugins``, through the entry point of this distribution.
"""

from __future__ import annotations

from collections.abc import Sequence

from metafuse.plugins.commands import Command
from metafuse.plugins.hookspecs import hookimpl

__all__ = ["metafuse_commands"]


def _convert(words: Sequence[str]) -> int:
    from .cli import main  # imports LibCST

    return main(words, "metafuse convert")


@hookimpl
def metafuse_commands() -> list[Command]:
    """``convert``."""
    return [Command("convert", "Convert PyTorch programs to metafuse.", _convert)]
