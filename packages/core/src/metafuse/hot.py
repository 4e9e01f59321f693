"""The compiled paths of recording and evaluation, where they were built.

What it is: ``compiled``, the extension that records operations and evaluates known programs without Python, or ``None``, and
``absence``, why there is none. The Python code that it stands for says what each step means, and does everything unusual.
What it is not: needed. Results are the same without it (``METAFUSE_COMPILED=0``).
Who calls it: ``var``, ``runtime.executor``, ``ops.recipe``, ``ops.autograd``; ``cli`` tells whether it is there.
"""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

from .config import flags

__all__ = ["absence", "compiled"]


def _load() -> tuple[ModuleType | None, str]:
    if not flags.compiled:
        return None, "METAFUSE_COMPILED=0"
    try:
        return import_module("metafuse._compiled"), ""
    except ModuleNotFoundError:  # it is optional
        return None, "metafuse._compiled was not built"
    except ImportError as error:  # it was built for another system, say
        return None, f"metafuse._compiled can't be loaded: {error}"


compiled, absence = _load()
