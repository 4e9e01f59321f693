"""Opaque operations with several results of any shapes and types, and gradients that see all of them.

What it is: ``record_several``, one opaque node that writes all results into one piece of memory and one node per result that
takes its part, and ``attach``, which gives results a gradient rule that is asked once per result that a loss depends on.
What it is not: a node with several values; every node has one.
Who calls it: ``code`` and ``numpy_code``.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..backend.contract import AbstractBackend, host_bytes
from ..backend.optional import SupportsHostView
from ..dtypes import float64, uint8
from ..graph.node import Node, Spec, signature, spec_of
from ..runtime.buffer import Buffer
from ..runtime.opaque import OpaqueCall
from ..var import Var, record, wrap

__all__ = ["Rule", "attach", "copy_bytes", "places", "record_several"]

#: called with what was given to ``attach``, the number of a result, inputs, results, the gradient of that result and the run-time
#: numbers; answers one gradient or ``None`` per input
Rule = Callable[[Any, int, list[Var], list[Var], Var, tuple[Any, ...]], Sequence["Var | None"]]

ALIGNMENT = 64


def places(specs: Sequence[Spec]) -> tuple[list[int], int]:
    """At which byte each of several values begins that lie one after another, and the bytes of all."""
    found: list[int] = []
    end = 0
    for spec in specs:
        found.append(-(-end // ALIGNMENT) * ALIGNMENT)
        end = found[-1] + spec.nbytes
    return found, end


def copy_bytes(
    backend: AbstractBackend, source: Buffer, target: Buffer, nbytes: int, start: int = 0, at: int = 0
) -> None:
    """Copy ``nbytes`` from byte ``start`` of one buffer to byte ``at`` of another one."""
    if not nbytes:
        return
    backend.synchronize()
    if isinstance(backend, SupportsHostView):
        part = backend.host_view(source.handle, start + nbytes)[start:]
        if at:
            backend.host_view(target.handle, at + nbytes)[at:] = part
        else:
            backend.copy_in(target.handle, host_bytes(part))
        return
    part = np.empty(start + nbytes, np.uint8)
    backend.copy_out(host_bytes(part), source.handle)
    part = part[start:]
    if at:
        before = np.empty(at, np.uint8)
        backend.copy_out(host_bytes(before), target.handle)
        part = np.concatenate([before, part])
    backend.copy_in(target.handle, host_bytes(np.ascontiguousarray(part)))


@dataclass(frozen=True)
class Result:
    """The attribute of a node that takes one result from where all lie."""

    offset: int

    def run(self, call: OpaqueCall) -> None:
        """Copy it."""
        target, spec = call.output
        copy_bytes(call.backend, call.inputs[0][0], target, spec.nbytes, self.offset)


def record_several(
    name: str, attrs: Any, inputs: Sequence[Node], specs: Sequence[Spec], scalars: tuple[Any, ...] = ()
) -> list[Var]:
    """Record an opaque node with results of ``specs``.

    ``attrs.run`` is given a buffer of bytes and writes each result at its place (``places``); with one spec, that result's own
    buffer. Answers a Var per result, without gradient."""
    kinds = (float64,) * len(scalars)
    given = tuple(n.spec for n in inputs)
    if len(specs) == 1:
        return [
            record(signature("opaque", name, attrs, given, specs[0], None, kinds), tuple(inputs), scalars)
        ]
    offsets, total = places(specs)
    whole = record(
        signature("opaque", name, attrs, given, spec_of((total,), uint8), None, kinds), tuple(inputs), scalars
    )
    return [
        record(signature("opaque", f"{name} result", Result(at), (whole._node.spec,), spec), (whole._node,))
        for at, spec in zip(offsets, specs, strict=True)
    ]


@dataclass(frozen=True)
class _Pull:
    """The attribute of a result with a gradient: what to ask, and which inputs of the node are what."""

    rule: Rule
    given: Hashable
    number: int
    inputs: int


def _gradient(node: Node, upstream: Var) -> list[Var | None]:
    pull: _Pull = node.sig.attrs
    values = [wrap(n) for n in node.inputs[1:]]
    inputs, results = values[: pull.inputs], values[pull.inputs :]
    found = pull.rule(pull.given, pull.number, inputs, results, upstream, node.scalars)
    return [None, *found, *[None] * len(results)]


def attach(
    name: str,
    results: Sequence[Var],
    inputs: Sequence[Node],
    rule: Rule,
    given: Hashable,
    scalars: tuple[Any, ...] = (),
) -> list[Var]:
    """``results`` with a gradient with respect to ``inputs``; those that are not floating stay as they are.

    ``rule`` is a module-level function and ``given`` compares by value, so that equal calls have equal signatures."""
    kinds = (float64,) * len(scalars)
    answers = []
    for number, result in enumerate(results):
        if not result.dtype.is_float:
            answers.append(result)
            continue
        nodes = (result._node, *inputs, *(r._node for r in results))
        pull = _Pull(rule, given, number, len(inputs))
        sig = signature(
            "alias", name, pull, tuple(n.spec for n in nodes), result._node.spec, None, kinds, _gradient
        )
        answers.append(record(sig, nodes, scalars))
    return answers
