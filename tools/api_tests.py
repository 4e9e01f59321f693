"""Which names of the reference API compute on arrays, and which of those a test compares with an oracle.

What it is: ``Numeric``, what is expected of a name's tests, derived from the object behind the name; ``Evidence``, what
the tests do, derived from their sources.
What it is not: a list of names, or a run of the tests.
Who calls it: ``tools/api_coverage.py``.

**Numeric** is
* an operator record's function, method or in-place variant;
* a class of layers that says how to compute (``Module`` with an ``execute`` of its own), an optimizer, a schedule, and
  any other class that has a public method which is numeric;
* a function, method or property whose answer is annotated as an array (``ARRAYS``), a ``float`` or ``Any``, or a layer;
  or whose answer is ``None`` and that takes an array, which it changes.
Of these, records that are differentiable, layers, and what answers Vars have a gradient to be tested.

**Compared with an oracle** is
* what comes from a record that has a NumPy meaning and samples (the conformance kit runs those, with gradients, on
  every backend, and ``tests/conformance/test_methods.py`` runs its methods and in-place variants);
* a name that a test names which compares numbers: one that reaches ``assert_allclose``, ``allclose``, ``check_grads``
  ... or asserts a comparison with what was read from a Var. A test *names* what it, its decorators, and the functions
  and tables of its file (or of a kit that it imports from) name: attributes and imports of metafuse for functions and
  classes, attributes of anything that is no foreign module for methods; operators and brackets name the methods behind
  them. Strings count where the code looks attributes up by name.
Its gradient is tested if such a test also reaches a gradient (``GRADIENTS``), or says that there is none
(``requires_grad``).
"""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

__all__ = ["Evidence", "Numeric", "classify"]

#: names of types in annotations that stand for arrays
VARS = {"Var", "ComplexNumber", "SparseVar"}
ARRAYS = VARS | {"ndarray", "Image", "NDArray"}
#: and for other results of computing
NUMBERS = {"float", "Any"}

#: what compares numbers
COMPARISONS = {
    "Case", "allclose", "approx", "array_equal", "assert_allclose", "assert_array_equal", "assert_array_less", "assert_equal",
    "check_calls", "check_composition", "check_grads",
}  # fmt: skip
#: what reads numbers from a Var
READS = {"data", "fetch_sync", "item", "numpy", "tolist"}
#: what computes gradients, or says that there are none
GRADIENTS = {
    "backward",
    "check_calls",
    "check_composition",
    "check_grads",
    "grad",
    "jvp",
    "opt_grad",
    "requires_grad",
    "vjp",
}

_SYMBOLS: dict[type[ast.AST], str] = {
    ast.Add: "add", ast.Sub: "sub", ast.Mult: "mul", ast.Div: "truediv", ast.FloorDiv: "floordiv", ast.Mod: "mod", ast.Pow: "pow",
    ast.MatMult: "matmul", ast.BitAnd: "and", ast.BitOr: "or", ast.BitXor: "xor", ast.LShift: "lshift", ast.RShift: "rshift",
    ast.Lt: "lt", ast.LtE: "le", ast.Gt: "gt", ast.GtE: "ge", ast.Eq: "eq", ast.NotEq: "ne", ast.USub: "neg", ast.UAdd: "pos",
    ast.Invert: "invert", ast.In: "contains",
}  # fmt: skip
#: functions of Python's that call methods
_CALLS = {
    "asarray": ("array",), "bool": ("bool",), "copy": ("copy",), "deepcopy": ("deepcopy",), "float": ("float",), "int": ("int",),
    "list": ("iter",), "tuple": ("iter",),
}  # fmt: skip


# -- what is expected ---------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Numeric:
    """What has to be tested of a name: ``record`` is the operator it comes from, ``gradient`` whether it has one."""

    record: Any
    gradient: bool


class Classes:
    """Looks at objects; knows the records and what is imported only when needed."""

    def __init__(self) -> None:
        from metafuse import nn, optim
        from metafuse.ops.registry import _further, all_operators, find

        self.module, self.optimizer = nn.Module, optim.Optimizer
        self.records = {id(record.function): record for record in all_operators()}
        for owner, function in _further.values():
            self.records.setdefault(id(function), find(owner))

    def of(self, value: Any) -> Numeric | None:
        """What is expected of ``value``; ``None`` if it isn't numeric."""
        plain = inspect.unwrap(value) if callable(value) and not isinstance(value, type) else value
        record = self.records.get(id(value)) or self.records.get(id(plain))
        if record is not None:
            return Numeric(record, record.differentiable)
        if isinstance(plain, type):
            return self._class(plain)
        if isinstance(plain, property):
            plain = plain.fget
        if not inspect.isfunction(plain):  # an object that is called
            plain = vars(type(plain)).get("__call__")
        return self._function(plain) if inspect.isfunction(plain) else None

    def _class(self, cls: type) -> Numeric | None:
        if issubclass(cls, self.module):
            computes = cls.execute is not self.module.execute  # type: ignore[attr-defined]
            return Numeric(None, True) if computes else None
        if issubclass(cls, self.optimizer):
            return Numeric(None, False)
        own = [
            f
            for name, f in inspect.getmembers(cls, inspect.isfunction)
            if (not name.startswith("_") or name == "__call__")
        ]
        found = [n for n in map(self._function, own) if n is not None]
        if found:
            return Numeric(None, any(n.gradient for n in found))
        return Numeric(None, False) if any(f.__name__ == "step" for f in own) else None

    def _function(self, function: Any) -> Numeric | None:
        notes = {
            k: str(getattr(v, "__name__", v)) for k, v in getattr(function, "__annotations__", {}).items()
        }
        answer = words(notes.pop("return", ""))
        if answer & VARS:
            return Numeric(None, True)
        if answer & (ARRAYS | NUMBERS):
            return Numeric(None, False)
        if answer & {"Module"}:
            return Numeric(None, True)
        if answer == {"None"} and any(words(note) & ARRAYS for note in notes.values()):
            return Numeric(None, False)
        made = [function.__globals__.get(word) for word in answer]
        return next(
            (self._class(m) for m in made if isinstance(m, type) and issubclass(m, self.module)), None
        )


def words(annotation: str) -> set[str]:
    """The names in an annotation, without what a callable takes and answers."""
    return set(re.findall(r"[A-Za-z_]\w*", re.sub(r"Callable\[.*\]", "", annotation)))


def classify(values: Iterable[Any]) -> list[Numeric | None]:
    """What is expected of each of ``values``."""
    classes = Classes()
    return [classes.of(value) for value in values]


# -- what tests do ------------------------------------------------------------------------------------------------
@dataclass
class Piece:
    """One definition at the top of a file, or a method: what it says and what it needs of its file."""

    functions: set[str] = field(default_factory=set)
    methods: set[str] = field(default_factory=set)
    strings: set[str] = field(default_factory=set)
    needs: set[str] = field(default_factory=set)
    looks_up: bool = False
    compares: bool = False
    gradients: bool = False

    def add(self, other: Piece) -> None:
        """Take in what another piece says."""
        for name in ("functions", "methods", "strings", "needs"):
            getattr(self, name).update(getattr(other, name))
        for name in ("looks_up", "compares", "gradients"):
            setattr(self, name, getattr(self, name) or getattr(other, name))


class TestFile:
    """The definitions of a file and the tests among them."""

    __test__ = False

    def __init__(self, path: Path) -> None:
        self.path = path
        self.tree = ast.parse(path.read_text(encoding="utf-8"))
        #: name in the file -> whether it is (something of) our package, a foreign one, or a file beside this one
        self.ours: set[str] = set()
        self.foreign: set[str] = set()
        self.beside: dict[str, tuple[str, str]] = {}
        for node in ast.walk(self.tree):
            self._import(node)

    def _import(self, node: ast.AST) -> None:
        if isinstance(node, ast.Import):
            for alias in node.names:
                self._owner(alias.name).add(alias.asname or alias.name.partition(".")[0])
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                name = alias.asname or alias.name
                if node.level > 1:  # a level of the kit
                    self.ours.add(name)
                elif (self.path.parent / f"{node.module}.py").exists():
                    self.beside[name] = (node.module, alias.name)
                else:
                    self._owner(node.module).add(name)
        elif (
            isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name)
        ):
            call = node.value  # `torch = pytest.importorskip("torch")`, `F = torch.nn.functional`
            if isinstance(call, ast.Call) and getattr(call.func, "attr", "") == "importorskip":
                self._owner(str(call.args[0].value)).add(node.targets[0].id)  # type: ignore[attr-defined]
            elif isinstance(call, ast.Attribute) and _root(call) in self.foreign:
                self.foreign.add(node.targets[0].id)

    def _owner(self, module: str) -> set[str]:
        return self.ours if module.partition(".")[0].startswith(("metafuse", "jittor")) else self.foreign

    @cached_property
    def pieces(self) -> dict[str, Piece]:
        """Every definition by its name; methods of test classes as ``Class.name``."""
        found: dict[str, Piece] = {}
        for node in self.tree.body:
            names = [t.id for t in ast.walk(node) if isinstance(t, ast.Name) and isinstance(t.ctx, ast.Store)]
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
                names = [node.name]
            elif not isinstance(node, (ast.Assign, ast.AnnAssign)):
                continue
            piece = self._piece(node)
            for name in names:
                found.setdefault(name, Piece()).add(piece)
        return found

    def _piece(self, node: ast.AST) -> Piece:
        piece = Piece()
        for part in ast.walk(node):
            if isinstance(part, ast.Attribute):
                self._attribute(piece, part)
            elif isinstance(part, ast.Name):
                (piece.functions if part.id in self.ours else piece.needs).add(part.id)
                piece.compares |= part.id in COMPARISONS
                piece.gradients |= part.id in GRADIENTS
                piece.looks_up |= part.id == "getattr"
            elif isinstance(part, ast.arg):
                piece.needs.add(part.arg)  # a fixture
            elif isinstance(part, ast.Constant) and isinstance(part.value, str):
                piece.strings.add(part.value)
            elif isinstance(part, ast.Assert):
                piece.compares |= _reads(part)
            else:
                piece.methods |= set(_protocol(part))
        return piece

    def _attribute(self, piece: Piece, part: ast.Attribute) -> None:
        root = _root(part)
        piece.compares |= part.attr in COMPARISONS
        if root in self.foreign:
            return
        piece.gradients |= part.attr in GRADIENTS
        (piece.functions if root in self.ours else piece.methods).add(part.attr)


def _root(node: ast.AST) -> str:
    """The name with which ``a.b.c`` begins; empty where it begins with a call or brackets."""
    while isinstance(node, ast.Attribute):
        node = node.value
    return node.id if isinstance(node, ast.Name) else ""


def _reads(node: ast.AST) -> bool:
    """Whether an assertion compares what was read from a Var."""
    parts = list(ast.walk(node))
    return any(isinstance(p, ast.Compare) for p in parts) and any(
        getattr(p, "attr", None) in READS or getattr(p, "id", None) == "float" for p in parts
    )


def _protocol(node: ast.AST) -> Iterator[str]:
    """Methods that Python calls for this expression."""
    if isinstance(node, (ast.BinOp, ast.UnaryOp)):
        name = _SYMBOLS.get(type(node.op))
        if name:
            yield from (f"__{name}__", f"__r{name}__")
    elif isinstance(node, ast.AugAssign):
        yield f"__i{_SYMBOLS[type(node.op)]}__"
    elif isinstance(node, ast.Compare):
        yield from (f"__{_SYMBOLS[type(op)]}__" for op in node.ops if type(op) in _SYMBOLS)
    elif isinstance(node, ast.Call):
        name = getattr(node.func, "id", None) or getattr(node.func, "attr", "")
        yield from (f"__{found}__" for found in _CALLS.get(name, ()))
    elif isinstance(node, ast.Subscript):
        yield "__setitem__" if isinstance(node.ctx, ast.Store) else "__getitem__"


@dataclass
class Evidence:
    """Names that tests compare with an oracle: ``functions`` and ``methods``, and those of which gradients are compared."""

    functions: set[str] = field(default_factory=set)
    methods: set[str] = field(default_factory=set)
    slopes: set[str] = field(default_factory=set)
    #: identities of what stands behind such names
    objects: set[int] = field(default_factory=set)
    sloped_objects: set[int] = field(default_factory=set)

    @classmethod
    def of(cls, folders: Iterable[Path]) -> Evidence:
        """What the test files below ``folders`` do."""
        paths = [path for folder in folders for path in sorted(folder.rglob("*.py"))]
        files = {path: TestFile(path) for path in paths}
        found = cls()
        for file in files.values():
            for name in file.pieces:
                if name.startswith(("test", "Test")):
                    found._take(_closure(files, file, name))
        return found

    def _take(self, piece: Piece) -> None:
        if not piece.compares:
            return
        said = piece.strings if piece.looks_up else set()
        self.functions |= piece.functions | said
        self.methods |= piece.methods | said
        if piece.gradients:
            self.slopes |= piece.functions | piece.methods | said

    def of_name(self, name: str, method: bool, expected: Numeric) -> tuple[bool, bool]:
        """Whether the values and the gradient of a name are compared."""
        if _kit(expected):
            return True, True
        values = name in (self.methods if method else self.functions)
        return values, values and name in self.slopes


def _kit(expected: Numeric) -> bool:
    """Whether the conformance kit knows the operator's meaning and how to call it."""
    record = expected.record
    return record is not None and record.numpy is not None and bool(record.samples or record.arity)


def _closure(files: dict[Path, TestFile], file: TestFile, name: str) -> Piece:
    """Everything that a definition reaches."""
    total, seen, waiting = Piece(), set(), [(file, name)]
    while waiting:
        own, part = waiting.pop()
        if (own.path, part) in seen:
            continue
        seen.add((own.path, part))
        if part in own.beside:
            module, original = own.beside[part]
            other = files.get(own.path.parent / f"{module}.py")
            if other is not None:
                waiting.append((other, original))
            continue
        piece = own.pieces.get(part)
        if piece is not None:
            total.add(piece)
            waiting += [(own, needed) for needed in piece.needs]
    return total
