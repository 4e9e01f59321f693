"""Object files that many modules are linked with: built once per machine, kept in the disk cache.

What it is: ``requested``, which answers the objects that source texts ask for in their first lines. A new one is compiled by
a thread of its own, while the caller compiles what needs it.
What it is not: the text of a library (``contraction_library``), or the linking (``compiler``).
Who calls it: ``compiler``.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future

from metafuse.runtime.compile_cache import CompileCache

from .dialect import LIBRARY_MARKER

__all__ = ["requested"]

#: builds an object from a text
Build = Callable[[str], bytes]

_lock = threading.Lock()
_objects: dict[tuple[str, str], Future[bytes]] = {}


def requested(sources: Sequence[str], fingerprint: str, build: Build) -> list[Future[bytes]]:
    """The objects that ``sources`` have to be linked with, in the order in which they are first asked for.

    Args:
        sources: texts of kernels.
        fingerprint: what decides, beside the text, what ``build`` yields.
        build: compiles the text of a library; its errors are those of the future.
    """
    names = dict.fromkeys(
        text[len(LIBRARY_MARKER) : text.index("\n")] for text in sources if text.startswith(LIBRARY_MARKER)
    )
    return [_request(name, fingerprint, build) for name in names]


def _request(name: str, fingerprint: str, build: Build) -> Future[bytes]:
    with _lock:
        known = _objects.get((fingerprint, name))
        if known is not None and not (known.done() and known.exception()):
            return known
        future = _objects[fingerprint, name] = Future()
    try:
        from .contraction_library import source  # most programs compile no product

        text, cache = source(name), CompileCache()
        binary = cache.lookup(fingerprint, text)
        if binary is not None:
            future.set_result(binary)
        else:
            threading.Thread(target=_make, args=(future, cache, fingerprint, text, build)).start()
    except BaseException as error:  # whoever waits for the same object must not wait for ever
        future.set_exception(error)
    return future


def _make(future: Future[bytes], cache: CompileCache, fingerprint: str, text: str, build: Build) -> None:
    try:
        binary = build(text)
        cache.store(fingerprint, [text], binary)
        future.set_result(binary)
    except BaseException as error:
        future.set_exception(error)


def _forget() -> None:
    """In a forked process: its parent's threads, and what they would have finished, are not there."""
    global _lock
    _lock = threading.Lock()
    _objects.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
