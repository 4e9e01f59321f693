"""Conversion of one source text: parse, rewrite, rewrite the imports, check that the result is Python.

What it is: ``convert_source`` and what it answers.
What it is not: files and folders (``cli``), or the reference API's spelling (``pjmap``).
Who calls it: users, ``cli``, ``pjmap``.
"""

from __future__ import annotations

import ast
import warnings
from dataclasses import dataclass

import libcst as cst
import libcst.metadata as meta

from metafuse.errors import ArgumentError

from .imports import Imports
from .lookup import ROOTS
from .rewrite import Remark, Rewriter
from .syntax import dotted

__all__ = ["TARGETS", "Conversion", "SourceError", "convert_source"]

#: framework -> the name under which it is imported
TARGETS = {"metafuse": "mf", "jittor": "jt"}


class SourceError(ArgumentError):
    """A text that is no Python; ``line`` says where."""

    def __init__(self, message: str, line: int) -> None:
        super().__init__(message)
        self.line = line


@dataclass(frozen=True)
class Conversion:
    """A converted text: its ``source``, ``notes`` about lines that were converted, and what was not: ``unconverted``.

    Lines are those of the original. Each remark has ``name`` (PyTorch's full name; empty in notes), ``line`` and ``why``.
    ``converted`` has one remark for each use of a name that was; its ``why`` says what the name became.
    """

    source: str
    notes: tuple[Remark, ...]
    unconverted: tuple[Remark, ...]
    filename: str = "<source>"
    converted: tuple[Remark, ...] = ()

    @property
    def report(self) -> list[str]:
        """``file:line: name: why`` for everything that was not converted."""
        return [f"{self.filename}:{r.line}: {r.name}: {r.why}" for r in self.unconverted]


def convert_source(text: str, *, target: str = "metafuse", filename: str = "<source>") -> Conversion:
    r"""The text of a PyTorch program as the text of a metafuse program (or, with ``target="jittor"``, of the reference API).

    Everything that has nothing to do with PyTorch stays as it is, comments and blanks included. A name without counterpart stays,
    is listed in ``unconverted``, and raises ``RuntimeError`` where the program uses it.

    Errors: ``SourceError`` with the line if ``text`` is no Python; ``ArgumentError`` for another target.

    Example:
        >>> result = convert_source("import torch\nprint(torch.cat([a, b], dim=1).argmax(1))  # joined\n")
        >>> print(result.source, end="")
        import metafuse as mf
        print(mf.concat([a, b], dim=1).argmax(1)[0])  # joined
        >>> result.unconverted
        ()
    """
    if target not in TARGETS:
        raise ArgumentError(f"[convert] target must be one of {', '.join(TARGETS)}, got {target!r}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ast.parse(text)
        module = cst.parse_module(text)
    except SyntaxError as error:
        line = error.lineno or 0
        raise SourceError(f"[convert] {filename}:{line}: this is no Python: {error.msg}", line) from None
    except (cst.ParserSyntaxError, ValueError, RecursionError) as error:
        line = getattr(error, "raw_line", 0)
        raise SourceError(f"[convert] {filename}:{line}: this can't be read: {error}", line) from None
    names = _Names()
    module.visit(names)
    if not names.torch:
        return Conversion(text, (), (), filename)
    wrapper = meta.MetadataWrapper(module, unsafe_skip_copy=True)
    root = _free(TARGETS[target], target, names.used)
    stand_in = "torch" if "torch" not in names.assigned else _free("pytorch", "pytorch", names.used)
    rewriter = Rewriter(wrapper, target, root, stand_in)
    if names.star:
        rewriter.refuse(module, names.star, "names of a star import can't be told apart from others")
    rewritten = module.visit(rewriter)
    assert isinstance(rewritten, cst.Module)
    finished = rewritten.visit(Imports(rewriter, _free("NotConverted", "NotConverted", names.used)))
    source = finished.code
    problem = _problem(source)
    if problem is not None and _problem(text) is None:
        raise AssertionError(
            f"[convert] {filename}: the converter made line {problem.lineno} invalid: {problem.text}"
        )
    notes = tuple(sorted(rewriter.notes, key=lambda r: (r.line, r.why)))
    unconverted = tuple(sorted(rewriter.unconverted, key=lambda r: (r.line, r.name)))
    converted = tuple(sorted(rewriter.converted, key=lambda r: (r.line, r.name)))
    return Conversion(source, notes, unconverted, filename, converted)


def _problem(text: str) -> SyntaxError | None:
    """What keeps a text from being compiled."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            compile(text, "<converted>", "exec", dont_inherit=True)
        except SyntaxError as error:
            return error
    return None


def _free(wanted: str, other: str, used: set[str]) -> str:
    """A name that the text does not use."""
    for name in (wanted, other):
        if name not in used:
            return name
    return next(f"{other}_{k}" for k in range(2, 10_000) if f"{other}_{k}" not in used)


class _Names(cst.CSTVisitor):
    """The names of a text: all of them, those that are assigned, and whether PyTorch is imported."""

    def __init__(self) -> None:
        super().__init__()
        self.used: set[str] = set()
        self.assigned: set[str] = set()
        self.torch = False
        self.star = ""

    def visit_Name(self, node: cst.Name) -> None:
        self.used.add(node.value)

    def visit_AssignTarget(self, node: cst.AssignTarget) -> None:
        self._assign(node.target)

    def visit_Param(self, node: cst.Param) -> None:
        self.assigned.add(node.name.value)

    def visit_For(self, node: cst.For) -> None:
        self._assign(node.target)

    def visit_FunctionDef(self, node: cst.FunctionDef) -> None:
        self.assigned.add(node.name.value)

    def visit_ClassDef(self, node: cst.ClassDef) -> None:
        self.assigned.add(node.name.value)

    def _assign(self, target: cst.CSTNode) -> None:
        if isinstance(target, cst.Name):
            self.assigned.add(target.value)
        elif isinstance(target, (cst.Tuple, cst.List)):
            for element in target.elements:
                self._assign(element.value)

    def visit_ImportAlias(self, node: cst.ImportAlias) -> None:
        name = node.evaluated_name
        self.torch = self.torch or name.split(".")[0] in ROOTS

    def visit_ImportFrom(self, node: cst.ImportFrom) -> None:
        module = dotted(node.module) if node.module is not None and not node.relative else None
        if module and module.split(".")[0] in ROOTS:
            self.torch = True
            if isinstance(node.names, cst.ImportStar):
                self.star = f"{module}.*"
