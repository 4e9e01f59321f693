"""The macros of C++ snippets: ``@in0(i, j)``, ``@for(...)``, ``@alias(...)`` and their kin.

What it is: a text expander that knows C++'s comments, strings and brackets, keeps line numbers, and points at the place of a
mistake. The table of macros is in ``docs`` of ``metafuse.code``; in short:

=================================  =========================================================================
``@x(i, j)``                       the element of array ``x`` (``in0``, ``out``, an alias ...) at an index
``@name``                          the definition of ``name``: a ``@define``, a ``@for`` variable, ``in0_type`` ...
``@{expr}``                        the value of an integer expression
``@(text)``                        the expanded text; its commas separate nothing
``@@``                             nothing: ends the name before it
``@for(i, lo, hi[, step], b)``     ``b`` once for every ``i``, which ``@i`` and ``@{...}`` may use
``@if(cond, a[, b])``              ``a`` where the integer expression is not 0, else ``b``
``@define(NAME, text)``            a definition for ``@NAME`` and for the preprocessor
``@is_def(NAME)``                  1 or 0
``@strcmp(a, b)``                  -1, 0 or 1
``@expand_macro(NAME, ...)``       a ``#define`` of the snippet, applied here and expanded further
``@expand_op(OP, T, a, Ta, ...)``  the value of type ``T`` of an operator by name (``code_operators``)
``@alias(new, old)``               another name for an array
``@ARGS_DEF``, ``@ARGS``           all arrays as the parameters of a function, and as its arguments
``@PRECALC``                       what such a function begins with: strides and further names
=================================  =========================================================================

What it is not: a C++ parser. Who calls it: ``codeop``.
"""

from __future__ import annotations

import difflib
import re

from metafuse.errors import ArgumentError

from .code_operators import expand_operator
from .integer_expression import evaluate
from .macro_scope import Array, Scope, declare

__all__ = ["Array", "Scope", "declare", "expand", "unbalanced", "without_comments"]

_NAME = re.compile(r"[A-Za-z_]\w*")
_DEFINE = re.compile(r"^[ \t]*#[ \t]*define[ \t]+(\w+)(?:\(([^)]*)\))?[ \t]*((?:\\\n|[^\n])*)", re.MULTILINE)
_RAW_STRING = re.compile(r'R"([^()\\\s]{0,16})\(')
_MOST_STEPS = 10_000
_DEEPEST = 64
_KEYWORDS = ("for", "if", "define", "is_def", "strcmp", "expand_macro", "expand_op", "alias")
_CLOSING = {"(": ")", "[": "]", "{": "}"}


def expand(text: str, file: str, scope: Scope) -> str:
    """Expand all macros of ``text``. Errors: ``ArgumentError`` with ``file``, line and column."""
    for match in _DEFINE.finditer(text):
        parameters = (
            None if match[2] is None else [name.strip() for name in match[2].split(",") if name.strip()]
        )
        scope.macros[match[1]] = (parameters, match[3].replace("\\\n", "\n").strip())
    return _Expander(text, file, scope).expand(0, len(text), {}, 0)


def without_comments(text: str) -> str:
    """C++ text whose comments are closed, each as one space.

    Example:
        >>> without_comments('f("//"); // no string')
        'f("//");  '
    """
    reader, pieces, here = _Expander(text, "", Scope({}, {})), [], 0
    while here < len(text):
        after = max(reader.skip(here, len(text)), here + 1)
        pieces.append(" " if text.startswith(("//", "/*"), here) else text[here:after])
        here = after
    return "".join(pieces)


def unbalanced(text: str) -> tuple[int, str] | None:
    r"""The line of a bracket without a partner, and what is wrong with it. A guess: ``#define`` can hide partners.

    Example:
        >>> unbalanced("int k = 0;\nif (k) { k = 1;")
        (2, "'{' is not closed")
    """
    reader, open_ones, here = _Expander(text, "", Scope({}, {})), [], 0
    while here < len(text):
        after = reader.skip(here, len(text))
        char = text[here]
        if after > here:
            here = after
            continue
        if char in _CLOSING:
            open_ones.append(here)
        elif char in _CLOSING.values():
            if not open_ones or _CLOSING[text[open_ones.pop()]] != char:
                return reader.line(here), f"{char!r} closes nothing"
        here += 1
    return (reader.line(open_ones[-1]), f"{text[open_ones[-1]]!r} is not closed") if open_ones else None


class _Expander:
    """Expands ranges of one text. Ranges, not copies, so that every mistake has a position."""

    def __init__(
        self, text: str, file: str, scope: Scope, origin: tuple[_Expander, int] | None = None
    ) -> None:
        self.text = text
        self.file = file
        self.scope = scope
        self.origin = origin  # for the text of a definition: where it is used

    # -- positions ------------------------------------------------------------------------------------------------
    def line(self, at: int) -> int:
        """The line number of a position, from 1."""
        return self.text.count("\n", 0, at) + 1

    def fail(self, at: int, problem: str) -> ArgumentError:
        """The error for a mistake at a position."""
        if self.origin is not None:
            expander, place = self.origin
            return expander.fail(place, problem)
        start = self.text.rfind("\n", 0, at) + 1
        end = self.text.find("\n", at)
        quoted = self.text[start : end if end >= 0 else len(self.text)]
        pointer = " " * len(quoted[: at - start].expandtabs(4)) + "^"
        where = f"{self.file} line {self.line(at)}, column {at - start + 1}"
        return ArgumentError(f"[code] {where}: {problem}\n    {quoted.expandtabs(4)}\n    {pointer}")

    # -- reading --------------------------------------------------------------------------------------------------
    def skip(self, at: int, end: int) -> int:
        """The end of the comment, string or character literal that starts at ``at``; ``at`` itself if none does."""
        text = self.text
        char = text[at]
        if char == "/" and text.startswith("//", at):
            stop = text.find("\n", at, end)
            return end if stop < 0 else stop
        if char == "/" and text.startswith("/*", at):
            stop = text.find("*/", at + 2, end)
            if stop < 0:
                raise self.fail(at, "this comment is not closed")
            return stop + 2
        if char == "R" and (at == 0 or not (text[at - 1].isalnum() or text[at - 1] == "_")):
            match = _RAW_STRING.match(text, at, end)
            if match:
                close = f'){match[1]}"'
                stop = text.find(close, match.end(), end)
                if stop < 0:
                    raise self.fail(at, "this raw string is not closed")
                return stop + len(close)
        # 1'000 is one number
        if char == '"' or (char == "'" and not (at > 0 and text[at - 1].isalnum())):
            return self._literal_end(at, end)
        return at

    def _literal_end(self, at: int, end: int) -> int:
        quote, here = self.text[at], at + 1
        while here < end and self.text[here] != quote:
            if self.text[here] == "\n":
                # An apostrophe in the words of a preprocessor line is none of ours; an open string is the compiler's to report.
                return at + 1 if quote == "'" else here
            here += 2 if self.text[here] == "\\" else 1
        return min(here + 1, end)

    def _close(self, at: int, end: int) -> int:
        """The position of the bracket that closes the one at ``at``."""
        opening, closing = self.text[at], _CLOSING[self.text[at]]
        depth, here = 0, at
        while here < end:
            after = self.skip(here, end)
            if after > here:
                here = after
                continue
            char = self.text[here]
            depth += (char == opening) - (char == closing)
            if depth == 0:
                return here
            here += 1
        raise self.fail(at, f"this {opening!r} is not closed")

    def _arguments(self, start: int, end: int) -> list[tuple[int, int]]:
        """The ranges between the commas of a bracket's inside. Commas in deeper brackets separate nothing; braces count
        only if they are balanced, since a macro may well open one and leave it to another to close it."""
        for brackets in ("([{", "("):
            try:
                return self._split(start, end, brackets)
            except ArgumentError:
                if brackets == "(":
                    raise
        raise AssertionError

    def _split(self, start: int, end: int, brackets: str) -> list[tuple[int, int]]:
        ranges, first, here = [], start, start
        while here < end:
            after = self.skip(here, end)
            if after == here and self.text[here] in brackets:
                after = self._close(here, end) + 1
            if after > here:
                here = after
                continue
            if self.text[here] == ",":
                ranges.append((first, here))
                first = here + 1
            here += 1
        return [*ranges, (first, end)]

    # -- expanding ------------------------------------------------------------------------------------------------
    def expand(self, start: int, end: int, variables: dict[str, str], depth: int) -> str:
        """The text of a range with its macros expanded; ``variables`` are those of the ``@for`` around it."""
        if depth > _DEEPEST:
            raise self.fail(start, f"macros are nested deeper than {_DEEPEST}: does one contain itself?")
        pieces: list[str] = []
        copied = here = start
        while here < end:
            after = self.skip(here, end)
            if after > here:
                here = after
                continue
            if self.text[here] != "@":
                here += 1
                continue
            pieces.append(self.text[copied:here])
            expansion, here = self._macro(here, end, variables, depth)
            pieces.append(expansion)
            copied = here
        pieces.append(self.text[copied:end])
        return "".join(pieces)

    def _macro(self, at: int, end: int, variables: dict[str, str], depth: int) -> tuple[str, int]:
        """Expand the macro at ``at``; answers its text and where the rest begins."""
        following = self.text[at + 1 : min(at + 2, end)]
        if following == "@":
            return "", at + 2
        if following == "{":
            close = self._close(at + 1, end)
            return str(self._integer((at + 2, close), variables, depth)), close + 1
        if following == "(":
            close = self._close(at + 1, end)
            return self._aligned(self.expand(at + 2, close, variables, depth + 1), at, close + 1), close + 1
        name = _NAME.match(self.text, at + 1, end)
        if name is None:
            raise self.fail(at, "a macro's name, '{' or '(' must follow '@'")
        if name.end() < end and self.text[name.end()] == "(" and name[0] not in variables:
            if name[0] in _KEYWORDS or name[0] in self.scope.arrays or name[0] not in self.scope.definitions:
                close = self._close(name.end(), end)
                expansion = self._call(at, name[0], self._arguments(name.end() + 1, close), variables, depth)
                return self._aligned(expansion, at, close + 1), close + 1
        return self._definition(at, name[0], variables, depth), name.end()

    def _aligned(self, expansion: str, start: int, after: int) -> str:
        """Keep the lines that follow a macro where they were."""
        if self.origin is not None:
            return expansion
        missing = self.text.count("\n", start, after) - expansion.count("\n")
        if missing >= 0:
            return expansion + "\n" * missing
        return f'{expansion}\n#line {self.line(after)} "{self.file}"\n'

    def _definition(self, at: int, name: str, variables: dict[str, str], depth: int) -> str:
        if name in variables:
            return variables[name]
        if name in self.scope.definitions:
            text = self.scope.definitions[name]
            return _Expander(text, self.file, self.scope, (self, at)).expand(
                0, len(text), variables, depth + 1
            )
        if name in _KEYWORDS:
            raise self.fail(at, f"'(' must follow @{name}")
        raise self._unknown(at, name)

    def _unknown(self, at: int, name: str) -> ArgumentError:
        if name == "python":
            return self.fail(
                at, "unknown macro @python; a snippet can't call Python: write the text that it would answer"
            )
        known = [*self.scope.arrays, *self.scope.definitions, *_KEYWORDS]
        near = difflib.get_close_matches(name, known, n=3, cutoff=0.6)
        hint = (
            f"did you mean @{' or @'.join(near)}?" if near else f"arrays here: {', '.join(self.scope.arrays)}"
        )
        return self.fail(at, f"unknown macro @{name}; {hint}")

    def _integer(self, place: tuple[int, int], variables: dict[str, str], depth: int) -> int:
        """The value of an integer expression, which may use macros and the names of definitions."""
        text = self.expand(*place, variables, depth + 1)
        names = {**self.scope.definitions, **variables}
        try:
            return evaluate(text, names)
        except ValueError as error:
            raise self.fail(place[0], f"{text.strip()!r} is no integer expression: {error}") from None

    # -- macros with arguments ------------------------------------------------------------------------------------
    def _call(
        self, at: int, name: str, places: list[tuple[int, int]], variables: dict[str, str], depth: int
    ) -> str:
        if name == "for":
            return self._for(at, places, variables, depth)
        if name == "if":
            self._count(at, name, places, 2, 3)
            if self._integer(places[0], variables, depth):
                return self.expand(*places[1], variables, depth + 1)
            return self.expand(*places[2], variables, depth + 1) if len(places) == 3 else ""
        if name == "define":
            return self._define(at, places, variables, depth)
        if name in self.scope.arrays:
            return self._element(at, name, places, variables, depth)
        if name not in _KEYWORDS:
            raise self._unknown(at, name)
        words = [self.expand(*place, variables, depth + 1).strip() for place in places]
        if name == "is_def":
            self._count(at, name, places, 1, 1)
            known = (
                words[0] in self.scope.definitions or words[0] in self.scope.macros or words[0] in variables
            )
            return "1" if known or words[0] in self.scope.arrays else "0"
        if name == "strcmp":
            self._count(at, name, places, 2, 2)
            return str((words[0] > words[1]) - (words[0] < words[1]))
        if name == "alias":
            return self._alias(at, places, words)
        if name == "expand_op":
            try:
                return expand_operator(words)
            except ValueError as error:
                raise self.fail(at, f"@expand_op: {error}") from None
        return self._expand_macro(at, words, variables, depth)

    def _count(self, at: int, name: str, places: list[tuple[int, int]], least: int, most: int) -> None:
        if not least <= len(places) <= most:
            wanted = str(least) if least == most else f"{least} to {most}"
            raise self.fail(
                at,
                f"@{name} takes {wanted} arguments: {len(places)} given; write @(...) around one that has commas",
            )

    def _element(
        self, at: int, name: str, places: list[tuple[int, int]], variables: dict[str, str], depth: int
    ) -> str:
        array = self.scope.arrays[name]
        indices = [self.expand(*place, variables, depth + 1).strip() for place in places]
        if len(indices) != array.rank or not all(indices):
            raise self.fail(at, f"@{name} takes {array.rank} indices: {len([i for i in indices if i])} given")
        last = len(indices) - 1
        terms = [
            f"({x})" if k == last else f"({x})*{array.canonical}_stride{k}" for k, x in enumerate(indices)
        ]
        return f"{array.canonical}_p[{'+'.join(terms)}]"

    def _for(self, at: int, places: list[tuple[int, int]], variables: dict[str, str], depth: int) -> str:
        if len(places) < 4:
            raise self.fail(
                at, f"@for takes a name, two bounds, maybe a step, and a body: {len(places)} given"
            )
        name = self.text[slice(*places[0])].strip()
        if not _NAME.fullmatch(name):
            raise self.fail(places[0][0], f"{name!r} can't name a @for variable")
        low, high = (self._integer(place, variables, depth) for place in places[1:3])
        step, body = 1, (places[3][0], places[-1][1])
        if len(places) > 4:
            try:
                step = self._integer(places[3], variables, depth)
                body = (places[4][0], places[-1][1])
            except ArgumentError:
                pass  # no step, but a body with commas
        if step == 0 or len(range(low, high, step)) > _MOST_STEPS:
            raise self.fail(
                at, f"@for over {low}..{high} by {step} has no or too many steps (at most {_MOST_STEPS})"
            )
        marker = ""
        if self.origin is None and "\n" in self.text[slice(*body)]:
            marker = f'\n#line {self.line(body[0])} "{self.file}"\n'
        return "".join(
            marker + self.expand(*body, {**variables, name: str(value)}, depth + 1)
            for value in range(low, high, step)
        )

    def _define(self, at: int, places: list[tuple[int, int]], variables: dict[str, str], depth: int) -> str:
        name = self.expand(*places[0], variables, depth + 1).strip()
        if not _NAME.fullmatch(name):
            raise self.fail(places[0][0], f"{name!r} can't be defined: it is no name")
        value = ""
        if len(places) > 1:
            value = self.expand(places[1][0], places[-1][1], variables, depth + 1).strip()
        self.scope.definitions[name] = value
        start = self.text.rfind("\n", 0, at) + 1
        before = "" if not self.text[start:at].strip() else "\n"
        escaped = value.replace("\n", " \\\n")
        return f"{before}#define {name} {escaped}\n"

    def _alias(self, at: int, places: list[tuple[int, int]], words: list[str]) -> str:
        self._count(at, "alias", places, 2, 2)
        new, old = words
        if not _NAME.fullmatch(new):
            raise self.fail(places[0][0], f"{new!r} can't be an alias: it is no name")
        array = self.scope.arrays.get(old)
        if array is None:
            raise self.fail(
                places[1][0], f"there is no array {old!r}; arrays here: {', '.join(self.scope.arrays)}"
            )
        former = self.scope.arrays.get(new)
        if former is not None and former != array:
            raise self.fail(
                at, f"{new!r} already names {former.canonical}, so it can't name {array.canonical} too"
            )
        if former is None:
            self.scope.aliases[new] = array
            declare(self.scope, new, array.canonical, array.rank, self.scope.definitions[f"{old}_type"])
        return ""

    def _expand_macro(self, at: int, words: list[str], variables: dict[str, str], depth: int) -> str:
        name, given = words[0], words[1:]
        if name not in self.scope.macros:
            if name in self.scope.definitions and not given:
                return self._definition(at, name, variables, depth)
            raise self.fail(at, f"@expand_macro: the snippet defines no macro {name!r}")
        parameters, text = self.scope.macros[name]
        if len(given) != len(parameters or []):
            raise self.fail(at, f"macro {name} takes {len(parameters or [])} arguments: {len(given)} given")
        values = dict(zip(parameters or [], given, strict=True))
        applied = _NAME.sub(lambda match: values.get(match[0], match[0]), text)
        return _Expander(applied, self.file, self.scope, (self, at)).expand(
            0, len(applied), variables, depth + 1
        )
