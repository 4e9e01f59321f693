"""The table: what becomes of the names of PyTorch that are not the same in metafuse.

What it is: one record per name, by family, and patterns for names that are not offered.
What it is not: names that are the same; those are looked up in metafuse (``lookup``).
Who calls it: ``lookup``. Keys are full names (``torch.nn.Conv2d``); methods and attributes are found under the kind of
their receiver (``tensor.argmax``, ``module.cuda``, ``optimizer.zero_grad`` ...).
"""

from __future__ import annotations

from ..rules import Rule
from . import functions, layers, methods, training, vision
from .reasons import ABSENT

__all__ = ["ABSENT", "TABLE"]

_PARTS = (functions, layers, methods, training, vision)

TABLE: dict[str, Rule] = {}
for _part in _PARTS:
    for _name, _rule in _part.RULES.items():
        if _name in TABLE:
            raise ValueError(f"{_name} has two rules")
        TABLE[_name] = _rule
