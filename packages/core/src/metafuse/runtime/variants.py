"""Kernels that differ in numbers alone: the sign of a value that should have been a run-time argument.

What it is: counts what is compiled by all but its numbers, and tells once which number varies.
What it is not: a limit; everything is compiled as before.
Who calls it: ``kernels``, for everything that it has compiled.
"""

from __future__ import annotations

import re
from typing import Any

from .. import config

__all__ = ["VARIANT_LIMIT", "Variants"]

#: so many kernels may differ in numbers alone before their user is told
VARIANT_LIMIT = 16
_NUMBER = re.compile(r"(?<![\w.])\d+(?:\.\d*)?(?:[eE][+-]?\d+)?")


class Variants:
    """What was compiled, by all but its numbers -> the numbers of each one."""

    def __init__(self) -> None:
        self.seen: dict[str, list[tuple[Any, ...]]] = {}

    def saw(self, name: str, outline: str, numbers: tuple[Any, ...], advice: str) -> None:
        """A kernel called ``name``, which is ``outline`` with ``numbers``, was compiled; ``advice``: what to do about many of
        them."""
        known = self.seen.setdefault(outline, [])
        if len(known) >= VARIANT_LIMIT:
            return
        known.append(numbers)
        if len(known) == VARIANT_LIMIT:
            varying = [values for values in zip(*known, strict=True) if len(set(values)) > 1]
            examples = "; ".join(", ".join(map(str, values[-4:])) for values in varying[:3])
            config.notice(
                f"{VARIANT_LIMIT} kernels '{name}' that differ in numbers alone were compiled (the last: {examples}); {advice}"
            )

    def saw_text(self, name: str, text: str) -> None:
        """The same of a user's snippet."""
        numbers = tuple(_NUMBER.findall(text))
        self.saw(
            name, _NUMBER.sub("#", text), numbers, 'give the number in data={...} and read it as data["name"]'
        )
