"""Launching: the run of a program on memory that is bound to its slots.

What it is: ``launch``: native runs and opaque steps one after the other, constants only where something changed.
What it is not: binding (``executor``), or measuring (``debug.launches``).
Who calls it: ``executor``, and ``capture.replay`` for recorded steps.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ..backend.contract import AbstractBackend, Step
from ..backend.library import LibraryCall
from ..config import flags
from ..errors import KernelError, MetafuseError
from ..graph.node import Node, describe_origin
from ..passes.plan import OpaqueStep
from .buffer import Buffer
from .kernels import statistics
from .opaque import OpaqueCall
from .programs import Device, Program, story

__all__ = ["launch", "observers", "run_opaque"]

#: called with every launch (``debug.launches.Launch``); while there is one, launches run one by one
observers: list[Callable[[Any], None]] = []
#: the opaque node that runs now, for messages
running: Node | None = None


def _versions(program: Program, slots: list[Buffer], scalars: list[float | int]) -> tuple[Any, ...]:
    """What constants come from, as numbers that differ if anything does."""
    constant = program.plan.constant
    return (*[slots[k].version for k in constant.leaves], *[scalars[k] for k in constant.scalars])


def launch(
    program: Program, dev: Device, slots: list[Buffer], scalars: list[float | int], nodes: Sequence[Node]
) -> None:
    """Run a program on bound slots. ``nodes``: those it was planned from, for opaque steps and messages."""
    backend = dev.backend
    constant = program.plan.constant
    versions: tuple[Any, ...] = ()
    if constant.leaves or constant.scalars:
        versions = _versions(program, slots, scalars)
    changed = versions != program.state or 0 in versions[: len(constant.leaves)]
    program.state = None  # until everything has run
    if observers or flags.debug >= 2:
        from ..debug import launches

        launches.run_timed(
            program.plan, backend, dev.kernels, slots, scalars, changed,
            lambda s: run_opaque(s, dev, slots, nodes[s.position]), nodes,
        )  # fmt: skip
        program.state = versions
        return
    handles = [b.handle for b in slots]
    for part in program.parts:
        if isinstance(part, OpaqueStep):
            run_opaque(part, dev, slots, nodes[part.position])
            continue
        statistics.launches += 1
        try:
            if isinstance(part, tuple):
                _run_steps(backend, part[0], part[1], handles, scalars, changed)
            else:
                backend.run(part, handles, scalars, changed)  # type: ignore[attr-defined]
        except MetafuseError:
            raise
        except Exception as error:
            raise KernelError(f"[launch] {error}; operators: {story(nodes)}") from error
    program.state = versions


def _run_steps(
    backend: AbstractBackend,
    steps: list[Step | LibraryCall],
    constant: list[int],
    handles: list[Any],
    scalars: list[float | int],
    changed: bool,
) -> None:
    """One by one, for backends that do not run whole programs."""
    for k, step in enumerate(steps):
        if isinstance(step, LibraryCall):
            backend.launch_library(step, handles, changed)  # type: ignore[attr-defined]
        elif changed or k not in constant:
            backend.launch(step, handles, scalars)


def run_opaque(step: OpaqueStep, dev: Device, slots: list[Buffer], node: Node) -> None:
    """Run user code or a host function."""
    global running
    running = node
    inputs = [(slots[s], i.spec) for s, i in zip(step.inputs, node.inputs, strict=True)]
    try:
        output = slots[step.output], node.spec
        node.sig.attrs.run(OpaqueCall(dev.backend, dev.kernels, inputs, output, node.scalars))
    except MetafuseError as error:
        raise type(error)(f"{error}\nrecorded at {describe_origin(node)}") from error
    finally:
        running = None
