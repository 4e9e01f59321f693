"""What names mean while a snippet's macros are expanded.

What it is: ``Scope``, the arrays, definitions and macros that are known, and ``declare``, which makes an array known.
What it is not: the expander (``macros``).
Who calls it: ``macros`` and ``codeop``.
"""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = ["Array", "Scope", "declare"]


@dataclass(frozen=True)
class Array:
    """An array that a snippet may name: ``canonical`` is the name of its variables in C++."""

    canonical: str
    rank: int


@dataclass
class Scope:
    """What names mean while a snippet is expanded; header and source share one."""

    arrays: dict[str, Array]
    definitions: dict[str, str]
    #: ``#define NAME(parameters) text``; ``None`` parameters for one without brackets
    macros: dict[str, tuple[list[str] | None, str]] = field(default_factory=dict)
    #: aliases made by ``@alias``, which the caller declares in C++: new name -> array
    aliases: dict[str, Array] = field(default_factory=dict)


def declare(scope: Scope, name: str, canonical: str, rank: int, type_name: str) -> None:
    """Make an array known under ``name`` to element macros and to ``@name_...``."""
    scope.arrays[name] = Array(canonical, rank)
    dims = [f"_{what}{k}" for what in ("shape", "stride") for k in range(rank)]
    for suffix in ("_p", *dims):
        scope.definitions[name + suffix] = canonical + suffix
    scope.definitions[f"{name}_type"] = type_name
    scope.definitions[f"{name}_dim"] = str(rank)
