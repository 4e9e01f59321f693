"""What the compiled paths are told once: the classes whose slots they read, and what they read and call beside.

What it is: ``hand_over``, two tables by name. A slot that is renamed is renamed here.
What it is not: those paths (``native/`` beside the sources, ``hot``).
Who calls it: ``var``, as soon as there are Vars.
"""

from __future__ import annotations

from collections.abc import Callable

from ..config import Flags, flags
from ..graph.node import Node, Signature, next_order, state
from ..graph.recipe import Block, BlockNode, Recipe
from ..hot import compiled
from ..passes.plan import OpaqueStep
from . import executor
from .buffer import Buffer, live_bytes, next_version
from .kernels import statistics
from .launching import run_opaque
from .pending import Route
from .programs import Program

__all__ = ["hand_over"]


def hand_over(var: type, sync_all: Callable[[], None]) -> None:
    """Tell the compiled paths, if there are any. ``var``: the class of handles."""
    if compiled is None:
        return
    classes = {
        "Block": Block, "BlockNode": BlockNode, "Buffer": Buffer, "Flags": Flags, "Live": type(live_bytes), "Node": Node,
        "OpaqueStep": OpaqueStep, "Program": Program, "Recipe": Recipe, "Route": Route, "Signature": Signature,
        "State": type(state), "Statistics": type(statistics), "Var": var,
    }  # fmt: skip
    objects = {
        "chosen": executor.chosen, "device": executor.device, "failed": executor.failed, "finished": executor.finished,
        "flags": flags, "hooks": "_hooks", "last_program": executor.last_program, "live": live_bytes, "names": vars(executor),
        "new_buffer": Buffer, "next_order": next_order, "next_version": next_version, "observers": executor.observers,
        "ordinary": executor.evaluate, "plainly": Recipe.plainly, "run_opaque": run_opaque, "state": state,
        "statistics": statistics, "sync_all": sync_all, "watchers": executor.watchers,
        "without_others": executor.without_others,
    }  # fmt: skip
    compiled.setup(classes, objects)
