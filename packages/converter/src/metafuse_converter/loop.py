"""Training steps: which optimizer a ``loss.backward()`` works for, and where it may become ``optimizer.step(loss)``.

What it is: a look at the order of ``backward``, ``step`` and ``zero_grad`` in each function, before anything is rewritten.
What it is not: the rewriting (``special``, ``rewrite``).
Who calls it: ``rewrite``.

PyTorch keeps gradients in parameters, metafuse in the optimizer. So ``loss.backward()`` becomes
``optimizer.backward(loss)`` with the
optimizer whose ``step`` comes next in the same function; where that is the very next statement, both become
``optimizer.step(loss)``, which runs forward, backward and update as one program.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import libcst as cst

from .kinds import Kinds
from .syntax import text

__all__ = ["Backward", "Steps"]


@dataclass
class Backward:
    """One call of ``backward``: the optimizers it is for, and whether the next statement is their step."""

    optimizers: list[str] = field(default_factory=list)
    joined: cst.Call | None = None


@dataclass
class _Event:
    what: str
    call: cst.Call
    optimizer: str = ""


class Steps:
    """What is known of the training steps of a module."""

    def __init__(self, module: cst.Module, kinds: Kinds) -> None:
        self.kinds = kinds
        self.backwards: dict[cst.Call, Backward] = {}
        self._functions: dict[cst.CSTNode, list[_Event]] = {}
        self._called: dict[str, set[str]] = {}
        module.visit(_Called(self._called))
        module.visit(_Events(self))
        for events in self._functions.values():
            for k, event in enumerate(events):
                if event.what == "backward":
                    self.backwards[event.call] = Backward(self._for(event.call, events, k))
        module.visit(_Joined(self))

    def is_optimizer(self, node: cst.BaseExpression) -> bool:
        """Whether an expression is an optimizer, by its kind, else by what is called on it and its name."""
        kind = self.kinds.of(node)
        if kind is not None:
            return kind == "optimizer"
        shown = text(node).strip()
        last = shown.rpartition(".")[2].lower()
        if "sched" in last or "scaler" in last or last == "self" or not last.isidentifier():
            return False
        if "opt" in last and "option" not in last and last not in ("opt", "opts"):
            return True
        return {"step", "zero_grad"} <= self._called.get(
            shown, set()
        ) and "parameters" not in self._called.get(shown, set())

    def is_scaler(self, node: cst.BaseExpression) -> bool:
        """Whether an expression is a ``GradScaler``."""
        kind = self.kinds.of(node)
        return kind == "scaler" or (kind is None and "scaler" in text(node).lower())

    def next_optimizers(self, node: cst.CSTNode) -> list[str]:
        """The optimizers whose step follows a node in its function; else those that are known there."""
        for scope in self.kinds.scopes(node):
            events = self._functions.get(scope, [])
            position = _position(node, events, self)
            found = self._for(node, events, position)
            if found:
                return found
        return []

    def of_module(self, module: str) -> list[str]:
        """The optimizers that were made from ``module.parameters()``."""
        return [o for o, source in self.kinds.made_from.items() if f"{module}.parameters()" in source]

    def _for(self, node: cst.CSTNode, events: list[_Event], k: int) -> list[str]:
        following: list[str] = []
        for event in events[k + 1 :]:
            if event.what == "step":
                if event.optimizer not in following:
                    following.append(event.optimizer)
            elif following:
                break
        if following:
            return following
        before = [e.optimizer for e in events[: max(k, 0)] if e.what == "step"]  # the loop goes round
        if before:
            return before[-1:]
        return self._only(node)

    def _only(self, node: cst.CSTNode) -> list[str]:
        """The one optimizer that can be seen from a node: its class's, its function's, the module's."""
        cls = self.kinds.class_of(node)
        places = [*([cls] if cls is not None else []), *self.kinds.scopes(node)]
        for place in places:
            prefix = "self." if isinstance(place, cst.ClassDef) else ""
            names = {
                f"{prefix}{n}"
                for n, kinds in self.kinds.held.get(place, {}).items()
                if kinds - {"none", None} == {"optimizer"}
            }
            if isinstance(place, cst.FunctionDef):
                names |= {p.name.value for p in place.params.params if self.is_optimizer(p.name)}
            if len(names) == 1:
                return sorted(names)
            if names:
                return []
        return []


def _position(node: cst.CSTNode, events: list[_Event], steps: Steps) -> int:
    """Where a node stands among the events of its function."""
    order = steps.kinds.order
    return max((k for k, e in enumerate(events) if order.get(e.call, 0) < order.get(node, 0)), default=-1)


class _Called(cst.CSTVisitor):
    """Text of an expression -> the methods that are called on it."""

    def __init__(self, found: dict[str, set[str]]) -> None:
        super().__init__()
        self.found = found

    def visit_Call(self, node: cst.Call) -> None:
        if isinstance(node.func, cst.Attribute):
            self.found.setdefault(text(node.func.value).strip(), set()).add(node.func.attr.value)


class _Events(cst.CSTVisitor):
    def __init__(self, steps: Steps) -> None:
        super().__init__()
        self.steps = steps

    def leave_Call(self, original_node: cst.Call) -> None:
        steps, func = self.steps, original_node.func
        if not isinstance(func, cst.Attribute) or steps.kinds.names.imported(func):
            return
        name = func.attr.value
        event: _Event | None = None
        if name == "backward" and not self._of_function(func.value) and not steps.is_optimizer(func.value):
            event = _Event("backward", original_node)
        elif name == "step" and steps.is_scaler(func.value) and original_node.args:
            event = _Event("step", original_node, text(original_node.args[0].value).strip())
        elif name == "step" and steps.is_optimizer(func.value):
            event = _Event("step", original_node, text(func.value).strip())
        elif name == "zero_grad":
            event = _Event("zero", original_node)
        if event is not None:
            scope = steps.kinds.scopes(original_node)[0]
            steps._functions.setdefault(scope, []).append(event)

    def _of_function(self, receiver: cst.BaseExpression) -> bool:
        kind = self.steps.kinds.of(receiver)
        return kind in ("other", "function", "array", "module", "number") or text(receiver) in (
            "super()",
            "ctx",
            "self",
            "cls",
        )


class _Joined(cst.CSTVisitor):
    """Finds ``loss.backward()`` with ``optimizer.step()`` as the very next statement."""

    def __init__(self, steps: Steps) -> None:
        super().__init__()
        self.steps = steps

    def visit_IndentedBlock(self, node: cst.IndentedBlock) -> None:
        self._look(node.body)

    def visit_Module(self, node: cst.Module) -> None:
        self._look(node.body)

    def _look(self, body: object) -> None:
        statements = list(body)  # type: ignore[call-overload]
        for first, second in zip(statements, statements[1:]):
            backward, step = only_call(first), only_call(second)
            plan = self.steps.backwards.get(backward) if backward is not None else None
            if backward is None or plan is None or step is None or len(plan.optimizers) != 1 or step.args:
                continue
            func = step.func
            if (
                isinstance(func, cst.Attribute)
                and func.attr.value == "step"
                and text(func.value).strip() == plan.optimizers[0]
            ):
                if all(
                    a.keyword is not None and a.keyword.value in ("retain_graph", "create_graph")
                    for a in backward.args
                ):
                    plan.joined = step


def only_call(statement: cst.CSTNode) -> cst.Call | None:
    """The call that is all of a statement."""
    if isinstance(statement, cst.SimpleStatementLine) and len(statement.body) == 1:
        small = statement.body[0]
        if isinstance(small, cst.Expr) and isinstance(small.value, cst.Call):
            return small.value
    return None
