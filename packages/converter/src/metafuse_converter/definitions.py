"""Definitions: classes of modules, of functions with their own gradient, of data sets; their methods and attributes;
parameter groups.

What it is: what changes where a class is defined: ``forward`` is ``execute``, ``ctx`` is the function itself, a data set
counts its items by ``item_count``; and how the rate of a parameter group is read and changed.
What it is not: calls.
Who calls it: ``rewrite``, with nodes as they were and as they are with their parts converted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import libcst as cst

from .syntax import build, literal, text

if TYPE_CHECKING:
    from .rewrite import Rewriter

__all__ = ["assign", "class_def", "function_def", "rate_changed", "rate_of"]


def _class_kind(r: Rewriter, node: cst.CSTNode) -> str | None:
    """The kind of the class of which a function is a method."""
    parent = r.parents.get(node)
    if isinstance(parent, cst.IndentedBlock):
        parent = r.parents.get(parent)
    return r.kinds.classes.get(parent.name.value) if isinstance(parent, cst.ClassDef) else None


def function_def(r: Rewriter, original: cst.FunctionDef, updated: cst.FunctionDef) -> cst.FunctionDef:
    """A method of one of the classes that have another form here."""
    kind, name = _class_kind(r, original), original.name.value
    if kind == "module":
        if name == "forward":
            return updated.with_changes(name=cst.Name("execute"))
        if name == "__init__":
            return updated
    if kind == "function" and name in ("forward", "backward", "setup_context"):
        if name == "setup_context":
            r.refuse(
                original, "torch.autograd.Function.setup_context", "write everything in execute(self, ...)"
            )
        kept = [
            d for d in updated.decorators if text(d.decorator).strip() not in ("staticmethod", "classmethod")
        ]
        new = {"forward": "execute", "backward": "grad"}.get(name, name)
        return updated.with_changes(name=cst.Name(new), decorators=kept)
    if kind == "dataset":
        if name == "__len__":
            return updated.with_changes(name=cst.Name("item_count"))
        if name == "__init__" and not _calls_super(updated):
            return _begin_with(updated, "super().__init__()")
    return updated


def _calls_super(node: cst.FunctionDef) -> bool:
    return ".__init__(" in text(node.body)


def _begin_with(node: cst.FunctionDef, statement: str) -> cst.FunctionDef:
    if not isinstance(node.body, cst.IndentedBlock):
        return node
    body = list(node.body.body)
    first = body[0]
    at = 0
    if (
        isinstance(first, cst.SimpleStatementLine)
        and isinstance(first.body[0], cst.Expr)
        and isinstance(first.body[0].value, (cst.SimpleString, cst.ConcatenatedString))
    ):
        at = 1
    body.insert(at, cst.ensure_type(cst.parse_statement(statement), cst.SimpleStatementLine))
    return node.with_changes(body=node.body.with_changes(body=body))


def class_def(r: Rewriter, original: cst.ClassDef, updated: cst.ClassDef) -> cst.ClassDef:
    """The class itself: what a function keeps for its gradient is kept on the function."""
    if r.kinds.classes.get(original.name.value) == "function":
        return cst.ensure_type(updated.visit(_Context(r, original)), cst.ClassDef)
    return updated


class _Context(cst.CSTTransformer):
    """``ctx.save_for_backward(a, b)`` becomes an assignment."""

    def __init__(self, r: Rewriter, original: cst.ClassDef) -> None:
        super().__init__()
        self.r, self.original = r, original

    def leave_SimpleStatementLine(
        self, original_node: cst.SimpleStatementLine, updated_node: cst.SimpleStatementLine
    ) -> cst.BaseStatement:
        small: list[cst.BaseSmallStatement] = []
        for part in updated_node.body:
            call = part.value if isinstance(part, cst.Expr) else None
            if isinstance(call, cst.Call) and isinstance(call.func, cst.Attribute):
                name = call.func.attr.value
                if name == "save_for_backward":
                    elements: list[cst.BaseElement] = [
                        cst.StarredElement(a.value) if a.star else cst.Element(a.value) for a in call.args
                    ]
                    if len(elements) == 1 and isinstance(elements[0], cst.Element):
                        elements = [elements[0].with_changes(comma=cst.Comma())]
                    target = cst.Attribute(value=call.func.value, attr=cst.Name("saved_tensors"))
                    value = cst.Tuple(elements)
                    small.append(cst.Assign([cst.AssignTarget(target)], value))
                    continue
                if name in ("mark_dirty", "mark_non_differentiable", "set_materialize_grads"):
                    self.r.note(self.original, f"ctx.{name} has no meaning here")
                    small.append(cst.Expr(cst.Name("None")))
                    continue
            small.append(part)
        return updated_node.with_changes(body=small)

    def leave_Subscript(
        self, original_node: cst.Subscript, updated_node: cst.Subscript
    ) -> cst.BaseExpression:
        value = updated_node.value
        if isinstance(value, cst.Attribute) and value.attr.value == "needs_input_grad":
            return cst.Name("True")  # what is not needed is never computed
        return updated_node


def assign(r: Rewriter, original: cst.Assign, updated: cst.Assign) -> cst.Assign:
    """``self.scale = torch.ones(3)`` in a module: an array as an attribute is a parameter here, and must be told that it
    is none."""
    if len(original.targets) != 1 or not isinstance(original.value, cst.Call):
        return updated
    target = original.targets[0].target
    cls = r.kinds.class_of(original)
    if (
        cls is None
        or r.kinds.classes.get(cls.name.value) != "module"
        or not isinstance(target, cst.Attribute)
    ):
        return updated
    name = r.names.torch(original.value.func) or ""
    if text(target.value) != "self":
        return updated
    if name == "torch.nn.Parameter" and target.attr.value.startswith("_"):
        r.note(original, f"{target.attr.value}: names that begin with _ are no parameters")
    made = name.startswith("torch.") and name.count(".") == 1 and r.kinds.of(original.value) == "tensor"
    if made and "requires_grad=True" not in text(original.value).replace(" ", ""):
        return updated.with_changes(value=build("{x}.stop_grad()", x=updated.value))
    return updated


# -- parameter groups --------------------------------------------------------------------------------------------------------
def _rate(r: Rewriter, node: cst.CSTNode) -> tuple[str, cst.BaseExpression] | None:
    """``(optimizer, group)`` if a node is the rate of a parameter group."""
    if not isinstance(node, cst.Subscript) or len(node.slice) != 1:
        return None
    index = node.slice[0].slice
    if not isinstance(index, cst.Index) or literal(index.value) != "lr":
        return None
    group = node.value
    if (
        isinstance(group, cst.Subscript)
        and isinstance(group.value, cst.Attribute)
        and group.value.attr.value == "param_groups"
    ):
        return text(group.value.value), group
    if isinstance(group, cst.Name):
        place: cst.CSTNode | None = node
        while place is not None:
            place = r.parents.get(place)
            if isinstance(place, (cst.For, cst.CompFor)) and text(place.target) == group.value:
                source = place.iter
                if isinstance(source, cst.Attribute) and source.attr.value == "param_groups":
                    return text(source.value), group
    return None


def rate_of(r: Rewriter, original: cst.Subscript, updated: cst.Subscript) -> cst.BaseExpression:
    """The rate that holds for a group is its own, or the optimizer's."""
    found = _rate(r, original)
    parent = r.parents.get(original)
    if found is None or (
        isinstance(parent, (cst.AssignTarget, cst.AugAssign)) and getattr(parent, "target", None) is original
    ):
        return updated
    optimizer, _ = found
    return build(f'{optimizer}.option({{group}}, "lr")', group=updated.value)


def rate_changed(r: Rewriter, original: cst.AugAssign, updated: cst.AugAssign) -> cst.BaseSmallStatement:
    """``group["lr"] *= 0.1``."""
    found = _rate(r, original.target)
    if found is None:
        return updated
    optimizer, _ = found
    signs = {
        cst.MultiplyAssign: "*",
        cst.DivideAssign: "/",
        cst.AddAssign: "+",
        cst.SubtractAssign: "-",
        cst.PowerAssign: "**",
    }
    sign = signs.get(type(original.operator))
    if sign is None:
        return updated
    target = cst.ensure_type(updated.target, cst.Subscript)
    value = build(
        f'{optimizer}.option({{group}}, "lr") {sign} {{value}}', group=target.value, value=updated.value
    )
    return cst.Assign([cst.AssignTarget(target)], value)
