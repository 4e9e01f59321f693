"""The compiled paths of recording and evaluation, where they were built.

What it is: ``compiled``, the extension that records operations and evaluates known programs without Python, or ``None``.
The Python code that it stands for says what each step means, and does everything unusual.
What it is not: needed. Results are the same without it (``METAFUSE_COMPILED=0``).
Who calls it: ``var``, ``runtime.executor``, ``ops.recipe``, ``ops.autograd``.
"""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

from .config import flags

__all__ = ["compiled"]


def _load() -> ModuleType | None:
    if not flags.compiled:
        return None
    try:
        return import_module("metafuse._compiled")
    except ImportError:  # it is optional
        return None


compiled = _load()
