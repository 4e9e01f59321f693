"""Methods and attributes of tensors, modules, optimizers and the like, whose kind is known or guessed.

What it is: what ``rewrite`` does with ``receiver.name`` and ``receiver.name(...)`` where the receiver is not PyTorch itself.
What it is not: the kinds (``kinds``) or the table.
Who calls it: ``rewrite``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import libcst as cst

from .arguments import Refused
from .lookup import Answer, method
from .special import SPECIAL
from .syntax import build, text
from .table import TABLE

if TYPE_CHECKING:
    from .rewrite import Rewriter

__all__ = ["attribute", "grad_is_none", "method_call", "part_changed", "receiver_kind"]

#: kinds whose methods have rules
RECEIVERS = frozenset({
    "optimizer", "scaler", "loader", "distsampler", "device", "tensor", "module", "parallel", "generator",
})  # fmt: skip
#: methods of modules that nothing else has
MODULE_ONLY = frozenset({
    "forward", "zero_grad", "register_buffer", "register_parameter", "register_forward_pre_hook", "register_full_backward_hook",
    "load_state_dict", "module", "buffers",
})  # fmt: skip
#: methods of arrays of NumPy and of Python's own types, which an unknown receiver may be
SHARED = frozenset({
    "max", "min", "argmax", "argmin", "argsort", "sort", "sum", "mean", "all", "any", "prod", "cumsum", "transpose",
    "flip", "repeat",
    "split", "index", "squeeze", "size", "fill_", "add", "sub", "div", "clip", "round", "trace", "diagonal", "nonzero",
    "unique", "square",
    "neg", "fix", "eq", "ne", "gt", "lt", "ge", "le", "median", "ravel", "view", "reshape", "tile", "roll", "byte",
    "char", "short", "select",
    "narrow", "unfold", "inverse", "train", "type", "apply", "parameters", "named_parameters", "state_dict", "compile",
    "share_memory",
})  # fmt: skip


def receiver_kind(r: Rewriter, node: cst.BaseExpression, name: str) -> str | None:
    """The kind whose methods a receiver has, as far as it matters for ``name``; ``None`` if nothing is to be done."""
    kind = r.kinds.of(node)
    if kind in RECEIVERS:
        return kind
    if kind is not None:
        return None
    if name == "dataset":
        return "loader" if "loader" in text(node).lower() else None
    if name in ("zero_grad", "step"):
        return "optimizer" if r.steps.is_optimizer(node) else "module" if name == "zero_grad" else None
    if name == "backward":
        return "tensor"
    if text(node) == "super()":
        cls = r.kinds.class_of(node)
        return r.kinds.classes.get(cls.name.value) if cls is not None and name == "forward" else None
    if name == "module":
        return "parallel" if r.parallel else None
    if name in MODULE_ONLY or (name in ("parameters", "named_parameters") and not r.kinds.is_defined(name)):
        return "module"
    if name == "set_epoch":
        return "distsampler" if "sampler" in text(node).lower() else None
    return "tensor"


def method_call(
    r: Rewriter, original: cst.Call, updated: cst.Call, func: cst.Attribute
) -> cst.BaseExpression:
    name = func.attr.value
    given = r.kinds.of(func.value)
    kind = receiver_kind(r, func.value, name)
    if kind is None or (name != "forward" and r.kinds.is_own(func)):
        return updated
    if kind == "tensor" and given is None and name in ("float", "double"):  # a module, perhaps
        name = {"float": "float32", "double": "float64"}[name]
        return updated.with_changes(
            func=cst.ensure_type(updated.func, cst.Attribute).with_changes(attr=cst.Name(name))
        )
    answer = method("module" if kind == "parallel" and name != "no_sync" else kind, name)
    if answer is None:
        return updated
    if given is None and kind != "module" and not _sure(r, original, answer, name):
        return updated
    if not answer.offered:
        if given is not None:
            r.refuse(original, answer.name, answer.why)
        return updated
    try:
        result = r.call(original, updated, answer)
    except Refused as error:
        if given is not None or name not in SHARED:
            r.refuse(original, answer.name, str(error))
        return updated
    if answer.rule.note and not result.deep_equals(updated):
        r.note(original, answer.rule.note)
    if given is not None or not result.deep_equals(updated):
        r.tell(original, answer)
    return result


def _sure(r: Rewriter, original: cst.Call, answer: Answer, name: str) -> bool:
    """Whether a method of an unknown receiver is PyTorch's, by its name or its arguments."""
    args = original.args
    names = {a.keyword.value for a in args if a.keyword is not None}
    if names & {"dim", "keepdim", "non_blocking"} or any(r.names.torch(a.value) for a in args):
        return True
    if answer.rule.certain:
        return False
    if name in ("argmax", "argmin", "argsort"):
        r.note(original, f".{name}() is taken to be a tensor's")
        return True
    if name == "transpose":
        return len(args) == 2
    if name in ("max", "min"):
        return True  # looks at what becomes of the answer
    return name not in SHARED or name in (
        "eq",
        "ne",
        "gt",
        "lt",
        "ge",
        "le",
        "square",
        "tile",
        "flip",
        "train",
        "split",
        "view",
        "repeat",
    )


def _changed_in_place(r: Rewriter, node: cst.Attribute) -> bool:
    """Whether a method like ``copy_`` of an attribute is called, which only tensors have."""
    parent = r.parents[node]
    if not isinstance(parent, cst.Attribute) or not isinstance(r.parents[parent], cst.Call):
        return False
    name = parent.attr.value
    return name.endswith("_") and not name.startswith("_") and method("tensor", name) is not None


def attribute(r: Rewriter, original: cst.Attribute, updated: cst.Attribute) -> cst.BaseExpression:
    name = original.attr.value
    kind = receiver_kind(r, original.value, name)
    given = r.kinds.of(original.value)
    if kind is None or (isinstance(r.parents[original], cst.AssignTarget) and name not in ("grad", "data")):
        return updated
    if kind == "module" and name == "module":
        kind = "parallel" if given == "parallel" or (r.parallel and given is None) else ""
    rule = TABLE.get(f"{kind}.{name}")
    if (
        rule is None
        or name in ("forward",)
        or (
            kind in ("tensor", "module")
            and not (
                rule.special in ("data", "grad_of", "unwrap")
                or rule.certain
                or name in ("is_cuda", "is_leaf", "module")
            )
        )
    ):
        if name == "forward" and kind == "module":
            return updated.with_changes(attr=cst.Name("execute"))
        return updated
    if given is None and rule.certain and not (name == "data" and _changed_in_place(r, original)):
        return updated
    answer = method(kind, name)
    if answer is None:
        return updated
    if not answer.offered:
        r.refuse(original, answer.name, answer.why)
        return updated
    result: cst.BaseExpression = updated
    if rule.special:
        result = SPECIAL[rule.special](r, original, updated, answer)
    elif rule.template:
        root = {"mf": r.root()} if "{mf}" in rule.template else {}
        result = build(rule.template, self=updated.value, **root)
    if result is not updated:
        r.tell(original, answer)
    return result


#: methods that end like those that change values
NO_VALUES = frozenset({"requires_grad_", "share_memory_", "detach_"})


def _part(node: cst.BaseExpression) -> cst.BaseExpression:
    """What a chain of methods in place begins with: ``x[0]`` of ``x[0].data.mul_(2).add_(1)``."""
    while True:
        if isinstance(node, cst.Call) and isinstance(node.func, cst.Attribute):
            if not node.func.attr.value.endswith("_") and node.func.attr.value != "update":
                return node
            node = node.func.value
        elif isinstance(node, cst.Attribute) and node.attr.value == "data":
            node = node.value
        else:
            return node


def part_changed(r: Rewriter, original: cst.Expr, updated: cst.Expr) -> cst.BaseSmallStatement:
    """``x[0].zero_()`` as a statement: a part is no view here, so that the new values are assigned to it."""
    call, new = original.value, updated.value
    if not isinstance(call, cst.Call) or not isinstance(call.func, cst.Attribute):
        return updated
    part, target, name = _part(call), _part(new), call.func.attr.value
    if not isinstance(part, cst.Subscript) or not isinstance(target, cst.Subscript):
        return updated
    if r.kinds.of(part) not in ("tensor", None) or name in NO_VALUES or method("tensor", name) is None:
        return updated
    value = new
    if isinstance(new, cst.Call) and r.kinds.of(part) == "tensor" and call.func.value.deep_equals(part):
        if name in ("fill_", "copy_") and len(new.args) == 1:
            value = new.args[0].value
        elif name == "zero_":
            value = cst.Integer("0")
    return cst.Assign([cst.AssignTarget(target)], value)


def grad_is_none(r: Rewriter, original: cst.Comparison, updated: cst.Comparison) -> cst.BaseExpression:
    """``p.grad is None``: an optimizer knows whether it keeps one."""
    asked, part = updated.left, updated.comparisons[0]
    if (
        len(updated.comparisons) != 1
        or r.framework != "metafuse"
        or not isinstance(part.operator, (cst.Is, cst.IsNot))
        or text(part.comparator) != "None"
        or not isinstance(original.left, cst.Attribute)
        or original.left.attr.value != "grad"
        or not isinstance(asked, cst.Call)
        or not isinstance(asked.func, cst.Attribute)
        or asked.func.attr.value != "opt_grad"
    ):
        return updated
    template = "{opt}.has_grad({x})" if isinstance(part.operator, cst.IsNot) else "not {opt}.has_grad({x})"
    found = build(template, opt=asked.args[0].value, x=asked.func.value)
    return found.with_changes(lpar=updated.lpar, rpar=updated.rpar)
