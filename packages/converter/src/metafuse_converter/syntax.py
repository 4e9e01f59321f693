"""Small tools on syntax trees: text of nodes, expressions from templates, arguments.

What it is: what every part of the converter needs of LibCST, and nothing about PyTorch.
Who calls it: ``arguments``, ``special``, ``loop``, ``rewrite``, ``imports``.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable
from typing import Any

import libcst as cst

__all__ = ["build", "comments", "dotted", "keyword", "literal", "path", "plain", "text"]

_EMPTY = cst.Module(body=[])
_ATOMS = (
    cst.Name,
    cst.Integer,
    cst.Float,
    cst.Attribute,
    cst.Call,
    cst.Subscript,
    cst.List,
    cst.Dict,
    cst.Set,
    cst.SimpleString,
    cst.FormattedString,
)


def text(node: cst.CSTNode) -> str:
    """The source of a node."""
    return _EMPTY.code_for_node(node)


def path(name: str) -> cst.BaseExpression:
    """``"a.b.c"`` as an expression."""
    return cst.parse_expression(name)


def dotted(node: cst.CSTNode) -> str | None:
    """``a.b.c`` as text if the node is names joined by dots."""
    parts: list[str] = []
    while isinstance(node, cst.Attribute):
        parts.append(node.attr.value)
        node = node.value
    if not isinstance(node, cst.Name):
        return None
    return ".".join([node.value, *reversed(parts)])


def enclosed(node: cst.BaseExpression) -> cst.BaseExpression:
    """The expression in parentheses, if it has none and needs some beside an operator or a dot."""
    if node.lpar or (isinstance(node, _ATOMS) and "\n" not in _outside(node)):
        return node
    if isinstance(node, (cst.Tuple, cst.GeneratorExp)) and text(node)[:1] == "(":
        return node
    return node.with_changes(lpar=[cst.LeftParen()], rpar=[cst.RightParen()])


def _outside(node: cst.BaseExpression) -> str:
    """The text of a node without what stands in brackets."""
    found = text(node)
    while True:
        shorter = re.sub(r"\([^()\[\]{}]*\)|\[[^()\[\]{}]*\]|\{[^()\[\]{}]*\}", "", found)
        if shorter == found:
            return found
        found = shorter


class _Fill(cst.CSTTransformer):
    def __init__(self, nodes: dict[str, cst.BaseExpression]) -> None:
        super().__init__()
        self.nodes = nodes

    def _put(self, node: cst.BaseExpression, close: bool) -> cst.BaseExpression:
        if isinstance(node, cst.Name) and node.value.startswith("_ph_"):
            found = self.nodes[node.value[4:]]
            return enclosed(found) if close else found
        return node

    def leave_Name(self, original_node: cst.Name, updated_node: cst.Name) -> cst.BaseExpression:
        return self._put(updated_node, False)

    def leave_Attribute(
        self, original_node: cst.Attribute, updated_node: cst.Attribute
    ) -> cst.BaseExpression:
        value = updated_node.value
        if isinstance(value, (cst.Integer, cst.Float)) and not value.lpar:
            value = value.with_changes(lpar=[cst.LeftParen()], rpar=[cst.RightParen()])
        return updated_node.with_changes(value=enclosed(value))

    def leave_Subscript(
        self, original_node: cst.Subscript, updated_node: cst.Subscript
    ) -> cst.BaseExpression:
        return updated_node.with_changes(value=enclosed(updated_node.value))

    def leave_Call(self, original_node: cst.Call, updated_node: cst.Call) -> cst.BaseExpression:
        return updated_node.with_changes(func=enclosed(updated_node.func))

    def leave_BinaryOperation(
        self, original_node: cst.BinaryOperation, updated_node: cst.BinaryOperation
    ) -> cst.BaseExpression:
        return updated_node.with_changes(left=enclosed(updated_node.left), right=enclosed(updated_node.right))


def build(template: str, **nodes: cst.BaseExpression) -> cst.BaseExpression:
    """The expression of a template, with nodes in the place of ``{name}``, in parentheses where they need some.

    Example:
        >>> text(build("{call}[0]", call=cst.parse_expression("a + b")))
        '(a + b)[0]'
    """
    source = re.sub(r"\{(\w+)\}", r"_ph_\1", template)
    found = cst.parse_expression(source).visit(_Fill(nodes))
    assert isinstance(found, cst.BaseExpression)
    return found


def keyword(name: str, value: cst.BaseExpression) -> cst.Arg:
    """``name=value`` as an argument."""
    equal = cst.AssignEqual(cst.SimpleWhitespace(""), cst.SimpleWhitespace(""))
    return cst.Arg(value=value, keyword=cst.Name(name), equal=equal)


def plain(arg: cst.Arg, name: str | None) -> cst.Arg:
    """The argument by this name, or by position; what surrounds it stays."""
    if name is None:
        return arg.with_changes(keyword=None, equal=cst.MaybeSentinel.DEFAULT)
    equal = cst.AssignEqual(cst.SimpleWhitespace(""), cst.SimpleWhitespace(""))
    return arg.with_changes(keyword=cst.Name(name), equal=equal)


def literal(node: cst.CSTNode | str) -> Any:
    """The value of a literal; its text if it is none."""
    source = node if isinstance(node, str) else text(node)
    try:
        return ast.literal_eval(source.strip())
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return source.strip()


def comments(node: cst.CSTNode) -> list[str]:
    """The comments below a node, in order."""
    found: list[str] = []

    class Collect(cst.CSTVisitor):
        def visit_Comment(self, node: cst.Comment) -> None:
            found.append(node.value)

    node.visit(Collect())
    return found


def separated(args: Iterable[cst.Arg]) -> list[cst.Arg]:
    """Arguments with commas between them; the last has none unless it had one."""
    found = list(args)
    for k, arg in enumerate(found[:-1]):
        if isinstance(arg.comma, cst.MaybeSentinel):
            found[k] = arg.with_changes(comma=cst.Comma(whitespace_after=cst.SimpleWhitespace(" ")))
    return found
