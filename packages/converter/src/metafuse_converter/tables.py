"""The table as people read it: what becomes of every name of PyTorch, module by module.

What it is: the states ``same``, ``renamed``, ``arguments changed``, ``rewritten``, ``not offered`` of all names of the inventory.
What it is not: the rules.
Who calls it: the tool that writes docs/converter.md, and tests.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from . import lookup
from .lookup import Answer

__all__ = ["STATES", "Row", "rows", "summary"]

STATES = ("same", "renamed", "arguments changed", "rewritten", "not offered")


@dataclass(frozen=True)
class Row:
    """One name: its module, what became of it, and how."""

    module: str
    name: str
    state: str
    how: str


def rows() -> Iterator[Row]:
    """Every name of the inventory, then those that only rules know."""
    kinds = {"torch.Tensor": "tensor", "torch.nn.Module": "module"}
    for module, names in lookup.inventory().items():
        listed = set(names) | {n.rpartition(".")[2] for n in lookup.TABLE if n.rpartition(".")[0] == module}
        for name in sorted(listed):
            answer = (
                lookup.method(kinds[module], name) if module in kinds else lookup.find(f"{module}.{name}")
            )
            if answer is not None:
                yield Row(module, name, *_state(name, answer))


def summary(answer: Answer) -> str:
    """What became of one name, as a line of text: ``renamed: concat``."""
    state, how = _state(answer.name.rpartition(".")[2], answer)
    return f"{state}: {how.replace('`', '')}"


def _state(name: str, answer: Answer) -> tuple[str, str]:
    rule = answer.rule
    if not answer.offered:
        return "not offered", answer.why
    if rule.template or rule.special:
        shown = (
            rule.template.replace("{mf}", "mf").replace("{", "").replace("}", "")
            if rule.template
            else f"`{answer.path}`"
        )
        return "rewritten", f"`{shown}`" if rule.template else shown if answer.path else "by what is given"
    assert answer.path is not None
    if rule.wrap or rule.added or rule.renames:
        return "arguments changed", f"`{answer.path}`"
    if answer.path.rpartition(".")[2] != name:
        return "renamed", f"`{answer.path}`"
    return "same", f"`{answer.path}`"
