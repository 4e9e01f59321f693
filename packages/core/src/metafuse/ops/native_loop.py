"""Operators whose loop no composition says well: C++ where the backend compiles snippets, NumPy everywhere else.

What it is: ``native_loop``, which records an opaque node; which of the two runs is decided when it runs.
What it is not: users' own snippets (``code``), or functions that are NumPy always (``host``).
Who calls it: sorting, running folds, masks and some copies beside this file; recurrent layers, samples of images and CTC in
``neural``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from ..backend.optional import SupportsCodeOp
from ..graph.node import Spec, signature
from ..runtime.opaque import OpaqueCall
from ..var import Var, record
from .code_source import Snippet, Text
from .host import HostFunction

__all__ = ["native_loop"]


@dataclass(frozen=True)
class _NativeLoop:
    """The attribute of the node; ``options`` are keywords of ``function`` and ``data`` of the snippet."""

    snippet: Snippet
    function: Callable[..., np.ndarray[Any, Any]]
    options: tuple[tuple[str, int], ...] = ()

    def run(self, call: OpaqueCall) -> None:
        """Fill ``output``."""
        backend = call.backend
        if isinstance(backend, SupportsCodeOp) and backend.code_language == "cpu":
            numbers = {name: float(value) for name, value in self.options}
            self.snippet.launch(backend, call.kernels, call.inputs, [call.output], numbers)
        else:
            HostFunction(self.function, self.options).run(call)


def native_loop(
    name: str,
    source: str,
    function: Callable[..., np.ndarray[Any, Any]],
    inputs: Sequence[Var],
    spec: Spec,
    header: str = "",
    **options: int,
) -> Var:
    """Record a loop without gradient.

    Args:
        name: of the node.
        source, header: the snippet, as in ``code``; it fills ``out``.
        function: the same in NumPy: arrays and ``options`` to an array of ``spec``.
        inputs: what both read.
        options: whole numbers; ``data["name"]`` in the snippet.
    """
    attrs = _NativeLoop(_snippet(name, header, source), function, tuple(options.items()))
    nodes = tuple(x._node for x in inputs)
    return record(signature("opaque", name, attrs, tuple(n.spec for n in nodes), spec), nodes)


@lru_cache(maxsize=256)
def _snippet(name: str, header: str, source: str) -> Snippet:
    return Snippet((Text("cpu", header, source, (f"{name}_header", f"{name}_source")),))
