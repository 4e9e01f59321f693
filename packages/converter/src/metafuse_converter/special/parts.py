"""Calls that become one of their parts, or nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import libcst as cst

from ..arguments import Refused
from ..lookup import Answer
from ..syntax import build
from .registry import special

if TYPE_CHECKING:
    from ..rewrite import Rewriter

__all__: list[str] = []  # functions are found by name


@special
def first(r: Rewriter, original: cst.Call, updated: cst.Call, answer: Answer) -> cst.BaseExpression:
    """What is wrapped, without the wrapper."""
    if not isinstance(updated, cst.Call) or not updated.args:
        raise Refused("only calls of it are converted")
    parameter = (answer.parameters or ())[0].name
    for arg in updated.args:
        if not arg.star and (arg.keyword is None or arg.keyword.value == parameter):
            return arg.value
    raise Refused("only calls of it are converted")


@special
def decorator(r: Rewriter, original: Any, updated: Any, answer: Answer) -> cst.BaseExpression:
    """A decorator that does nothing here, or a call with a function; other arguments are options."""
    for arg in updated.args if isinstance(updated, cst.Call) else ():
        if arg.keyword is None or arg.keyword.value in ("obj", "fn"):
            return arg.value
    return cst.parse_expression("(lambda function: function)")


@special
def checkpoint(r: Rewriter, original: cst.Call, updated: cst.Call, answer: Answer) -> cst.BaseExpression:
    """``checkpoint(function, x)`` is ``function(x)``."""
    if (
        not isinstance(updated, cst.Call)
        or not updated.args
        or updated.args[0].keyword
        or updated.args[0].star
    ):
        raise Refused("only calls of it are converted")
    own = ("use_reentrant", "preserve_rng_state", "context_fn", "determinism_check", "debug", "early_stop")
    kept = [a for a in updated.args[1:] if a.keyword is None or a.keyword.value not in own]
    if kept:
        kept[-1] = kept[-1].with_changes(comma=cst.MaybeSentinel.DEFAULT)
    return updated.with_changes(func=updated.args[0].value, args=kept)


@special
def nothing(r: Rewriter, original: Any, updated: Any, answer: Answer) -> cst.BaseExpression:
    """A setting without meaning here."""
    r.note(original, f"{answer.name} has no meaning in {r.framework}")
    return cst.Name("None")


@special
def fixed(r: Rewriter, original: Any, updated: Any, answer: Answer) -> cst.BaseExpression:
    """The same expression whatever the arguments."""
    if not isinstance(updated, cst.Call):
        raise Refused("only calls of it are converted")
    return build(answer.rule.template, mf=r.root())


@special
def callee(r: Rewriter, original: Any, updated: Any, answer: Answer) -> cst.BaseExpression:
    """Another function or class, with the same arguments."""
    new = build(answer.rule.template, mf=r.root())
    return updated.with_changes(func=new) if isinstance(updated, cst.Call) else new


@special
def refuse(r: Rewriter, original: Any, updated: Any, answer: Answer) -> cst.BaseExpression:
    """Something whose answer has another form."""
    raise Refused("answers something of another form")
