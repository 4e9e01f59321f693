"""Import statements: PyTorch's become metafuse's, under the local names that the rest of the file uses.

What it is: the second walk, after ``rewrite`` has said which names are still written, and what stands for names without
counterpart.
What it is not: conversion of anything else.
Who calls it: ``conversion``.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import libcst as cst

from .lookup import HOMES, ROOTS, Answer, find, resolve
from .rewrite import Remark, Rewriter
from .syntax import comments, dotted

__all__ = ["Imports", "STAND_IN"]

#: what stands for PyTorch's names that have no counterpart: it is written into the file, so that the file needs nothing else
STAND_IN = '''
class {cls}:
    """A name of PyTorch's that has no counterpart here: using it raises an error that says so."""

    def __init__(self, name, reasons=None):
        self.__dict__.update(_name=name, _reasons=reasons or {{}})

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return {cls}(f"{{self._name}}.{{name}}", self._reasons)

    def __call__(self, *args, **kwargs):
        reason = self._reasons.get(self._name, "has no counterpart")
        raise RuntimeError(f"{{self._name}} was not converted to {framework}: {{reason}}")

    def __mro_entries__(self, bases):
        return (type(self._name.rpartition(".")[2], (), {{"__new__": lambda cls, *args, **kwargs: self()}}),)

    def __repr__(self):
        return self._name
'''


@dataclass
class _Replaced:
    """What a statement becomes: import statements, and names that stand for something without counterpart."""

    statements: list[str] = field(default_factory=list)
    stand_ins: dict[str, str] = field(default_factory=dict)


class Imports(cst.CSTTransformer):
    """Rewrites the imports of a module that ``rewriter`` has been through."""

    def __init__(self, rewriter: Rewriter, cls: str) -> None:
        super().__init__()
        self.rewriter, self.cls = rewriter, cls
        self.root = rewriter.root_name
        self.root_line = f"import {rewriter.framework} as {self.root}"
        self.depth = 0
        self.has_root = False
        self.used_cls = False
        self.done: set[str] = set()
        self.head: dict[str, str] = {}
        self.in_head = True
        self.removed: list[cst.EmptyLine] = []

    # -- where ------------------------------------------------------------------------------------------------------
    def visit_IndentedBlock(self, node: cst.IndentedBlock) -> None:
        self.depth += 1
        self.in_head = False

    def leave_IndentedBlock(
        self, original_node: cst.IndentedBlock, updated_node: cst.IndentedBlock
    ) -> cst.IndentedBlock:
        self.depth -= 1
        if not updated_node.body:
            return updated_node.with_changes(
                body=[cst.ensure_type(cst.parse_statement("pass"), cst.SimpleStatementLine)]
            )
        return updated_node

    # -- statements -------------------------------------------------------------------------------------------------
    def leave_SimpleStatementSuite(
        self, original_node: cst.SimpleStatementSuite, updated_node: cst.SimpleStatementSuite
    ) -> cst.SimpleStatementSuite:
        small: list[cst.BaseSmallStatement] = []
        for part in updated_node.body:
            small += self._small(part, in_place=True)
        return updated_node.with_changes(body=_semicolons(small) or [cst.Pass()])

    def leave_SimpleStatementLine(
        self, original_node: cst.SimpleStatementLine, updated_node: cst.SimpleStatementLine
    ) -> cst.BaseStatement | cst.FlattenSentinel[cst.BaseStatement] | cst.RemovalSentinel:
        imports = [p for p in updated_node.body if isinstance(p, (cst.Import, cst.ImportFrom))]
        if self.depth == 0 and not imports and not _is_docstring(updated_node):
            self.in_head = False
        if not any(_concerns(p) for p in imports):
            return updated_node
        small: list[cst.BaseSmallStatement] = []
        for part in updated_node.body:
            small += self._small(part, in_place=not (self.depth == 0 and self.in_head))
        lost = [cst.EmptyLine(comment=cst.Comment(c)) for p in imports if _concerns(p) for c in comments(p)]
        if not small:
            kept = [*updated_node.leading_lines, *lost]
            if updated_node.trailing_whitespace.comment is not None:
                kept.append(cst.EmptyLine(comment=updated_node.trailing_whitespace.comment))
            if any(line.comment for line in kept) or self.depth:
                statement = cst.SimpleStatementLine([cst.Pass()], leading_lines=kept)
                return statement
            return cst.RemoveFromParent()
        lines = [
            cst.SimpleStatementLine([part.with_changes(semicolon=cst.MaybeSentinel.DEFAULT)])
            for part in small
        ]
        lines[0] = lines[0].with_changes(leading_lines=[*updated_node.leading_lines, *lost])
        lines[-1] = lines[-1].with_changes(trailing_whitespace=updated_node.trailing_whitespace)
        return lines[0] if len(lines) == 1 else cst.FlattenSentinel(lines)

    def _small(self, part: cst.BaseSmallStatement, in_place: bool) -> list[cst.BaseSmallStatement]:
        if not isinstance(part, (cst.Import, cst.ImportFrom)) or not _concerns(part):
            return [part]
        replaced = self._import(part) if isinstance(part, cst.Import) else self._import_from(part)
        texts = list(dict.fromkeys(replaced.statements))
        if self.depth == 0:
            texts = [t for t in texts if t not in self.done]
            self.done.update(texts)
            self.has_root = self.has_root or self.root_line in texts
        if in_place:
            texts += [
                f'{local} = {self.cls}("{name}"{self._reasons(name)})'
                for local, name in replaced.stand_ins.items()
            ]
        else:
            self.head.update(replaced.stand_ins)
        self.used_cls = self.used_cls or bool(replaced.stand_ins)
        return [_statement(t) for t in texts]

    def _reasons(self, name: str) -> str:
        found = reasons(self.rewriter.unconverted, (name,))
        return f", {_written(found)}" if found else ""

    def _import(self, node: cst.Import) -> _Replaced:
        found = _Replaced()
        others: list[str] = []
        for alias in node.names:
            name = dotted(alias.name) or ""
            local = (
                alias.asname.name.value
                if alias.asname is not None and isinstance(alias.asname.name, cst.Name)
                else None
            )
            if name.split(".")[0] not in ROOTS:
                others.append(f"{name} as {local}" if local else name)
            elif local is None or name in ROOTS:
                found.statements.append(self.root_line)
            elif name in HOMES:
                home = HOMES[name][0]
                where = f".{self.rewriter.shown(home)}" if home else ""
                if home or local in self.rewriter.kept:
                    found.statements.append(f"import {self.rewriter.framework}{where} as {local}")
            else:
                found.stand_ins[local] = name
        if others:
            found.statements.insert(0, f"import {', '.join(others)}")
        return found

    def _import_from(self, node: cst.ImportFrom) -> _Replaced:
        found = _Replaced()
        module = dotted(node.module) or "" if node.module is not None else ""
        if isinstance(node.names, cst.ImportStar):
            home = HOMES.get(module, (None,))[0]
            if home is not None:
                where = f".{self.rewriter.shown(home)}" if home else ""
                found.statements.append(f"from {self.rewriter.framework}{where} import *")
            return found
        groups: dict[str, list[str]] = {}
        for alias in node.names:
            name = dotted(alias.name) or ""
            local = (
                alias.asname.name.value
                if alias.asname is not None and isinstance(alias.asname.name, cst.Name)
                else name
            )
            full = f"{module}.{name}"
            path = self._path(full, local)
            if path is not None:
                parent, _, last = self.rewriter.shown(path).rpartition(".")
                groups.setdefault(parent, []).append(last if last == local else f"{last} as {local}")
            elif local in self.rewriter.kept:
                found.stand_ins[local] = full
        for parent, names in groups.items():
            where = f".{parent}" if parent else ""
            found.statements.append(f"from {self.rewriter.framework}{where} import {', '.join(names)}")
        return found

    def _path(self, full: str, local: str) -> str | None:
        """Where a name can be imported from."""
        if full in HOMES:
            return HOMES[full][0] or None
        answer: Answer | None = find(full)
        if answer is None or answer.path is None:
            return None
        gone = local in self.rewriter.seen and local not in self.rewriter.kept
        if answer.rule.template or (answer.rule.special and gone):
            return None
        parent = answer.path.rpartition(".")[0]
        return answer.path if inspect.ismodule(resolve(parent)) else None

    # -- the module -------------------------------------------------------------------------------------------------
    def leave_Module(self, original_node: cst.Module, updated_node: cst.Module) -> cst.Module:
        body = list(updated_node.body)
        needs_cls = self.used_cls or self.rewriter.needs_stand_in
        if self.rewriter.needs_root and not self.has_root:
            body.insert(_after_future(body), _line(self.root_line))
        if needs_cls:
            at = _after_imports(body)
            source = STAND_IN.format(cls=self.cls, framework=self.rewriter.framework)
            made = cst.parse_module(source + "\n\n").body
            made = [
                m.with_changes(leading_lines=[cst.EmptyLine(indent=False), cst.EmptyLine(indent=False)])
                for m in made
            ]
            lines = [
                f'{local} = {self.cls}("{name}"{self._reasons(name)})' for local, name in self.head.items()
            ]
            if self.rewriter.needs_stand_in:
                found = reasons(self.rewriter.unconverted, ("torch", "torchvision"))
                lines.insert(0, f'{self.rewriter.stand_in} = {self.cls}("torch", {_written(found)})')
            statements = [_line(text) for text in lines]
            statements[0] = statements[0].with_changes(
                leading_lines=[cst.EmptyLine(indent=False), cst.EmptyLine(indent=False)]
            )
            body[at:at] = [*made, *statements]
        return updated_node.with_changes(body=body)


def reasons(remarks: Iterable[Remark], beginnings: Sequence[str]) -> dict[str, str]:
    """name -> why, with its first line, for names that begin so."""
    found: dict[str, str] = {}
    for remark in remarks:
        if remark.name.startswith(tuple(beginnings)):
            found.setdefault(remark.name, f"{remark.why} (line {remark.line} of the original)")
    return found


def _written(found: dict[str, str]) -> str:
    """A dictionary of texts, one entry a line."""
    return "{\n" + "".join(f"    {json.dumps(k)}: {json.dumps(v)},\n" for k, v in found.items()) + "}"


def _concerns(part: cst.CSTNode) -> bool:
    """Whether an import statement names PyTorch."""
    if isinstance(part, cst.Import):
        return any((dotted(a.name) or "").split(".")[0] in ROOTS for a in part.names)
    if isinstance(part, cst.ImportFrom) and not part.relative and part.module is not None:
        return (dotted(part.module) or "").split(".")[0] in ROOTS
    return False


def _statement(text: str) -> cst.BaseSmallStatement:
    return _line(text).body[0]


def _line(text: str) -> cst.SimpleStatementLine:
    return cst.ensure_type(cst.parse_statement(text), cst.SimpleStatementLine)


def _semicolons(small: list[cst.BaseSmallStatement]) -> list[cst.BaseSmallStatement]:
    separator = cst.Semicolon(whitespace_after=cst.SimpleWhitespace(" "))
    return [*(p.with_changes(semicolon=separator) for p in small[:-1]), *small[-1:]]


def _is_docstring(node: cst.CSTNode) -> bool:
    return isinstance(node, cst.SimpleStatementLine) and all(
        isinstance(p, cst.Expr) and isinstance(p.value, (cst.SimpleString, cst.ConcatenatedString))
        for p in node.body
    )


def _after_future(body: Sequence[cst.CSTNode]) -> int:
    at = 0
    for k, node in enumerate(body):
        if k == 0 and _is_docstring(node):
            at = 1
        elif isinstance(node, cst.SimpleStatementLine) and any(
            isinstance(p, cst.ImportFrom) and p.module is not None and dotted(p.module) == "__future__"
            for p in node.body
        ):
            at = k + 1
    return at


def _after_imports(body: Sequence[cst.CSTNode]) -> int:
    at = 0
    for k, node in enumerate(body):
        if (k == 0 and _is_docstring(node)) or (
            isinstance(node, cst.SimpleStatementLine)
            and all(isinstance(p, (cst.Import, cst.ImportFrom, cst.Pass)) for p in node.body)
        ):
            at = k + 1
        else:
            break
    return at
