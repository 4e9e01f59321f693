"""oneDNN itself: where it is, whether it can be used, and if not, why.

What it is: ``onednn``, which loads the library once, when the first operation asks for it, and ``absence``, the reason why it
can't be had. Everything runs without it, through generated loops.
What it is not: an import of something large: nothing is loaded until then.
Who calls it: ``library.operations`` and people who ask what their machine has.

Environment: ``METAFUSE_ONEDNN=0`` does without it; ``METAFUSE_ONEDNN=openmp`` leaves it to OpenMP's threads.
"""

from __future__ import annotations

import ctypes
import importlib
import importlib.util
import os
import threading
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from types import ModuleType

from .. import _native

__all__ = ["absence", "describe", "onednn"]

_EXTENSION = "metafuse_backend_cpu._onednn"
_DISTRIBUTION = "onednn-cpu-gomp"
_FILE = "libdnnl.so.3"

_lock = threading.Lock()


class _Loaded:
    module: ModuleType | None = None
    reason: str | None = None
    own_threads = False


@lru_cache(maxsize=1)
def _static_absence() -> str | None:
    """What can be told without loading anything."""
    if _setting() == "0":
        return "switched off by METAFUSE_ONEDNN=0"
    if importlib.util.find_spec(_EXTENSION) is None:
        return "metafuse-backend-cpu was built without oneDNN, which has wheels for Linux on x86-64 only"
    if _library() is None:
        return f"the package {_DISTRIBUTION} is not installed"
    return None


def _setting() -> str:
    return os.environ.get("METAFUSE_ONEDNN", "").strip().lower()


@lru_cache(maxsize=1)
def _library() -> Path | None:
    try:
        files = distribution(_DISTRIBUTION).files or []
    except PackageNotFoundError:
        return None
    paths = (Path(str(file.locate())) for file in files if file.name == _FILE)
    return next((path for path in paths if path.exists()), None)


def absence() -> str | None:
    """Why there is no oneDNN here, in one sentence, or ``None``. Loads nothing."""
    return _static_absence() or _Loaded.reason


def onednn() -> ModuleType | None:
    """The extension, with the library behind it; ``None`` where there is none."""
    if _Loaded.module is not None or absence() is not None:
        return _Loaded.module
    with _lock:
        if _Loaded.module is None and _Loaded.reason is None:
            try:
                # Loaded by its own path, so that the extension, which asks for it by name, needs no path of its own.
                ctypes.CDLL(str(_library()), mode=ctypes.RTLD_LOCAL)
                module = importlib.import_module(_EXTENSION)
                _Loaded.own_threads = module.start(_native.runtime, _setting() != "openmp")
                _Loaded.module = module
            except (OSError, ImportError) as error:
                _Loaded.reason = f"oneDNN could not be loaded: {error}"
    return _Loaded.module


def _forget() -> None:
    """In a forked process: whoever held the lock is not there."""
    global _lock
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


def describe() -> str:
    """One line for people: version and threads, or why it is absent. Loads the library."""
    module = onednn()
    if module is None:
        return f"without oneDNN: {absence()}"
    return f"oneDNN {module.version()}, on {'the same' if _Loaded.own_threads else 'OpenMP'} threads"
