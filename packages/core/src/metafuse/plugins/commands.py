"""Commands that plugins add to ``python -m metafuse``.

What it is: ``Command``, what a plugin says of one, and the table of all of them.
What it is not: the command line itself (``cli``), or a command.
Who calls it: plugins make a ``Command``; ``cli`` asks for the table when it meets a word that is no command of its own, or is
asked for help.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from ..errors import PluginError
from .manager import PluginRecord, Plugins

__all__ = ["Command", "commands"]


@dataclass(frozen=True)
class Command:
    """One command: ``run`` gets the words after ``name`` and answers the exit code; ``summary`` is one line of help.

    ``run`` reads its words itself (with an ``argparse`` parser, say), so ``--help`` among them is its matter too. Heavy imports
    wait until it is called.

    Example:
        >>> Command("greet", "Greet somebody.", lambda words: print("hello", *words) or 0).run(["you"])
        hello you
        0
    """

    name: str
    summary: str
    run: Callable[[Sequence[str]], int]


def commands(plugins: Plugins, taken: Collection[str] = ()) -> dict[str, Command]:
    """The commands of all plugins by name, sorted. A plugin whose commands can't be used, because they are none or their names
    are ``taken`` or another plugin's, becomes broken and is left out."""
    found: dict[str, tuple[Command, PluginRecord]] = {}
    for record, answer in plugins.call("metafuse_commands"):
        try:
            own = {command.name: (command, record) for command in _checked(answer)}
            for name in own:
                if name in taken:
                    raise PluginError(f"the command {name!r} is one of metafuse's own")
                if name in found:
                    raise PluginError(
                        f"the command {name!r} is already brought by the plugin {found[name][1].name!r}"
                    )
        except PluginError as error:
            plugins.mark_broken(record, str(error))
            continue
        found.update(own)
    return {name: found[name][0] for name in sorted(found)}


def _checked(answer: object) -> list[Command]:
    if not isinstance(answer, (list, tuple)):
        raise PluginError(f"metafuse_commands() must answer a list of Command, not {type(answer).__name__}")
    for command in answer:
        if not isinstance(command, Command):
            raise PluginError(f"metafuse_commands() answered {command!r}, which is no Command")
        if not isinstance(command.name, str) or not command.name or command.name.startswith("-"):
            raise PluginError(f"a command can't be called {command.name!r}")
    return list(answer)
