"""``jittor_utils``: the reference API's helpers around its framework, as far as users call them.

What it is: ``home`` and ``LOG``, and modules for files and downloads, PyTorch's files and the cache of kernels.
What it is not: the helpers by which the reference builds itself.
Who calls it: users.
"""

from __future__ import annotations

import os as _os
import sys as _sys
from pathlib import Path as _Path

from jittor._follow import Finder as _Finder
from jittor._follow import follow as _follow
from jittor._log import LOG

_sys.meta_path.append(_Finder(__name__))
__getattr__, __dir__ = _follow(__name__)


def home() -> str:
    """The folder under which data are kept: ``$JITTOR_HOME``, else the user's own.

    Example:
        >>> import os, jittor_utils
        >>> os.path.isabs(jittor_utils.home())
        True
    """
    return str(_Path(_os.environ.get("JITTOR_HOME") or _Path.home()).absolute())
