"""``jittor``: the reference API's names on metafuse, so that scripts that say ``import jittor as jt`` run unchanged.

What it is: a package whose names are looked up in metafuse when they are asked for; ``jittor.Var is metafuse.Var``. A few modules
have a file of their own here, because they are called in another way than what they stand for.
What it is not: an implementation of anything, or a copy of the other package of this name, which must not be installed beside it.
Who calls it: users. ``docs/compat.md`` lists every name and what became of it.
"""

from __future__ import annotations

import sys as _sys
from typing import Any as _Any

import metafuse as _metafuse

from . import compile_extern
from ._follow import Finder as _Finder
from ._follow import follow as _followed
from ._log import LOG

#: the version of the reference API that is followed, and of what it runs on
__version__ = f"1.3.11.0+metafuse{_metafuse.__version__}"

_sys.meta_path.append(_Finder(__name__))
_find, __dir__ = _followed(__name__)


def __getattr__(name: str) -> _Any:
    """Modules of this package, names of metafuse, and what was found beside it (``has_cuda``, ``mpi``, ``cudnn`` ...)."""
    return getattr(compile_extern, name) if name in compile_extern.NAMES else _find(name)
