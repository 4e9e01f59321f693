"""Reductions, norms and losses."""

from __future__ import annotations

from typing import TYPE_CHECKING

import libcst as cst

from ..arguments import Refused, bind
from ..lookup import Answer
from ..syntax import build, keyword, literal, plain, separated, text
from .registry import bound, is_method, receiver, special

if TYPE_CHECKING:
    from ..rewrite import Rewriter

__all__: list[str] = []  # functions are found by name


@special
def extreme(r: Rewriter, original: cst.Call, updated: cst.Call, answer: Answer) -> cst.BaseExpression:
    """``max``: of everything, along a dimension (with the places), or of two arrays."""
    method = is_method(r, original)
    name = answer.name.rpartition(".")[2]
    if method:
        kind = r.kinds.of(cst.ensure_type(original.func, cst.Attribute).value)
        if kind != "tensor" and not (r.is_taken_apart(original) and original.args):
            return updated
    positional = [a for a in updated.args if a.keyword is None]
    old = [a for a in original.args if a.keyword is None]
    names = {a.keyword.value for a in updated.args if a.keyword is not None}
    rest, olds = (positional, old) if method else (positional[1:], old[1:])
    x = receiver(updated) if method else positional[0].value if positional else None
    if "other" in names or (rest and not _is_dimension(r, olds[0].value)):
        second = next(
            (a.value for a in updated.args if a.keyword is not None and a.keyword.value == "other"), None
        )
        return build(
            f"{{mf}}.{name}imum({{x}}, {{y}})",
            mf=r.root(),
            x=x or cst.Name("None"),
            y=second or rest[0].value,
        )
    if not rest and not names & {"dim"}:
        return r.ordinary(original, updated, answer, path=f"Var.{name}" if method else name)
    path = f"arg{name}"
    call = r.ordinary(original, updated, answer, path=f"Var.{path}" if method else path)
    return build("{call}[::-1]", call=call)


def _is_dimension(r: Rewriter, node: cst.BaseExpression) -> bool:
    if isinstance(literal(node), int) or r.kinds.of(node) == "number":
        return True
    shown = text(node).lower()
    return r.kinds.of(node) is None and ("dim" in shown or "axis" in shown)


@special
def middle(r: Rewriter, original: cst.Call, updated: cst.Call, answer: Answer) -> cst.BaseExpression:
    """``median`` without a dimension; with one PyTorch answers places too."""
    method = is_method(r, original)
    if len(updated.args) > (0 if method else 1):
        raise Refused("answers no places; use kthvalue")
    return r.ordinary(original, updated, answer, path="Var.median" if method else "median")


@special
def variance(r: Rewriter, original: cst.Call, updated: cst.Call, answer: Answer) -> cst.BaseExpression:
    """``var``: a first argument that is a truth value is ``unbiased``."""
    place = 0 if is_method(r, original) else 1
    if (
        len(updated.args) > place
        and updated.args[place].keyword is None
        and isinstance(literal(updated.args[place].value), bool)
    ):
        args = [plain(a, "unbiased") if k == place else a for k, a in enumerate(updated.args)]
        updated = updated.with_changes(args=args)
    return r.ordinary(original, updated, answer)


@special
def norm(r: Rewriter, original: cst.Call, updated: cst.Call, answer: Answer) -> cst.BaseExpression:
    """Without a dimension PyTorch takes the norm of everything."""
    method = is_method(r, original)
    given = bound(updated, answer)
    x = receiver(updated) if method else given.pop("input")
    order = given.pop("p", None) or given.pop("ord", None)
    if order is not None and literal(order) in ("fro", None):
        order = None
    if set(given) - {"dim", "keepdim", "dtype", "out"} or (
        "dtype" in given and literal(given["dtype"]) is not None
    ):
        raise Refused("arguments have no counterpart")
    flat = "dim" not in given or literal(given["dim"]) is None
    args = [cst.Arg(order)] if order is not None else []
    if not flat:
        args.append(keyword("dim", given["dim"]))
    if "keepdim" in given:
        args.append(keyword("keepdim", given["keepdim"]))
    base = build("{x}.flatten()", x=x) if flat else x
    return cst.Call(func=build("{x}.norm", x=base), args=separated(args))


@special
def division(r: Rewriter, original: cst.Call, updated: cst.Call, answer: Answer) -> cst.BaseExpression:
    """``div`` with a rounding mode."""
    given = bound(updated, answer)
    mode = literal(given.get("rounding_mode", cst.Name("None")))
    if mode is None:
        return build("{mf}.divide({x}, {y})", mf=r.root(), x=given["input"], y=given["other"])
    if mode == "floor":
        return build("{mf}.floor_divide({x}, {y})", mf=r.root(), x=given["input"], y=given["other"])
    raise Refused(f"argument rounding_mode={mode!r} has no counterpart")


@special
def reduced(r: Rewriter, original: cst.Call, updated: cst.Call, answer: Answer) -> cst.BaseExpression:
    """Losses: what old scripts say by ``size_average`` and ``reduce`` is said by ``reduction``."""
    if not isinstance(updated, cst.Call):
        return r.callee(original, answer)
    given = bind(updated.args, answer.parameters or ()) or {}
    old = {name: arg for name, arg in given.items() if name in ("size_average", "reduce")}
    flags = {name: literal(arg.value) for name, arg in old.items() if literal(arg.value) is not None}
    for name, flag in flags.items():
        if flag not in (True, False):
            raise Refused(
                f"argument {name}={flag} is not known here; write reduction='mean', 'sum' or 'none'"
            )
    if not flags:
        return r.ordinary(original, updated, answer)
    names = {id(arg): name for name, arg in given.items() if arg.keyword is None}
    places = [a for a in updated.args if a.keyword is None]
    later = places[min((places.index(a) for a in old.values() if a in places), default=len(places)) :]
    kept = [
        plain(a, names[id(a)]) if a in later else a
        for a in updated.args
        if a not in old.values() and a is not given.get("reduction")
    ]
    how = "none" if flags.get("reduce") is False else "sum" if flags.get("size_average") is False else "mean"
    if how != "mean":
        kept.append(keyword("reduction", cst.SimpleString(f'"{how}"')))
    if kept:
        kept[-1] = kept[-1].with_changes(comma=cst.MaybeSentinel.DEFAULT)
    return r.ordinary(original, updated.with_changes(args=separated(kept)), answer)


@special
def upsample(r: Rewriter, original: cst.Call, updated: cst.Call, answer: Answer) -> cst.BaseExpression:
    """Layers know factors only."""
    given = bound(updated, answer)
    if literal(given.get("size", cst.Name("None"))) is not None:
        raise Refused("argument size has no counterpart; use nn.interpolate")
    kept = [
        a if a.keyword is not None else plain(a, (answer.parameters or ())[k].name)
        for k, a in enumerate(updated.args)
    ]
    kept = [a for a in kept if a.keyword is not None and a.keyword.value != "size"]
    return r.ordinary(original, updated.with_changes(args=separated(kept)), answer)
