"""Statements: a ``backward`` and the step after it as one, settings without meaning, comments that a change would lose.

Who calls it: ``rewrite``, with statements as they were and as they are with their parts converted.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import libcst as cst

from .loop import only_call
from .syntax import comments, text

if TYPE_CHECKING:
    from .rewrite import Rewriter

__all__ = ["join", "setting", "with_comments"]


def setting(
    r: Rewriter, original_node: cst.SimpleStatementLine, updated_node: cst.SimpleStatementLine
) -> cst.SimpleStatementLine | None:
    """``torch.backends.cudnn.benchmark = True`` becomes a comment."""
    if len(original_node.body) == 1 and isinstance(original_node.body[0], cst.Assign):
        targets = [r.names.torch(t.target) for t in original_node.body[0].targets]
        if all(targets):  # a setting of PyTorch's
            r.note(original_node, f"{targets[0]} has no meaning in {r.framework}")
            space = cst.SimpleWhitespace("  ")
            comment = cst.Comment("# " + " ".join(text(original_node.body[0]).split()))
            trailing = original_node.trailing_whitespace
            before = [cst.EmptyLine(comment=trailing.comment)] if trailing.comment is not None else []
            return updated_node.with_changes(
                body=[cst.Pass()],
                leading_lines=[*updated_node.leading_lines, *before],
                trailing_whitespace=trailing.with_changes(whitespace=space, comment=comment),
            )
    return None


def join(r: Rewriter, olds: Sequence[cst.CSTNode], news: Sequence[cst.CSTNode]) -> list[cst.CSTNode]:
    """``loss.backward()`` and the ``optimizer.step()`` after it as one statement."""
    if len(olds) != len(news):
        return list(news)
    found: list[cst.CSTNode] = []
    k = 0
    while k < len(news):
        call = only_call(olds[k])
        loss = r.joined.get(call) if call is not None else None
        if loss is not None and k + 1 < len(news):
            found.append(_joined_step(call, loss, news[k], news[k + 1]))  # type: ignore[arg-type]
            k += 2
            continue
        found.append(news[k])
        k += 1
    return found


def _joined_step(
    call: cst.Call,
    loss: cst.BaseExpression,
    first: cst.SimpleStatementLine,
    second: cst.SimpleStatementLine,
) -> cst.SimpleStatementLine:
    step = cst.ensure_type(cst.ensure_type(second.body[0], cst.Expr).value, cst.Call)
    more = [a for a in call.args if a.keyword is not None and a.keyword.value == "retain_graph"]
    args = [cst.Arg(loss), *(a.with_changes(comma=cst.MaybeSentinel.DEFAULT) for a in more)]
    joined = step.with_changes(args=args)
    leading = [*first.leading_lines]
    trailing = first.trailing_whitespace.comment
    if trailing is not None:
        leading.append(cst.EmptyLine(comment=trailing))
    return second.with_changes(
        body=[cst.Expr(value=joined)],
        leading_lines=[*leading, *(line for line in second.leading_lines if line.comment)],
    )


def with_comments(original: cst.CSTNode, updated: cst.CSTNode) -> cst.BaseStatement:
    """Comments that a change has lost stand before the statement."""
    assert isinstance(updated, cst.BaseStatement)
    left = comments(updated)
    lost = []
    for comment in comments(original):
        if comment in left:
            left.remove(comment)
        else:
            lost.append(cst.EmptyLine(comment=cst.Comment(comment)))
    if not lost or not hasattr(updated, "leading_lines"):
        return updated
    return updated.with_changes(leading_lines=[*updated.leading_lines, *lost])
