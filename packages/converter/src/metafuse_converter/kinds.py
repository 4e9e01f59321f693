"""Kinds: what the expressions of a script probably are (a tensor, a module, an optimizer ...), as far as its text tells.

What it is: a guess by assignment, flow-insensitive: names of functions and classes, attributes of ``self``, results of PyTorch's
functions. ``None`` means unknown, and so does a name that holds different things.
What it is not: type checking. Rewriting acts on ``None`` only where a method is PyTorch's alone.
Who calls it: ``rewrite``, ``loop`` and ``special``, all through ``Names``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import libcst as cst
import libcst.metadata as meta

from .lookup import ROOTS, find
from .syntax import dotted, text

__all__ = ["Kinds", "Names"]

#: PyTorch's module -> what its classes make, and what its functions answer
MADE = {
    "torch.nn.functional": "tensor", "torch.nn.init": "tensor", "torch.linalg": "tensor", "torch.fft": "tensor",
    "torch.special": "tensor", "torch.nn": "module", "torch.optim": "optimizer", "torch.optim.lr_scheduler": "scheduler",
    "torchvision.models": "module", "torchvision.datasets": "dataset", "torchvision.transforms": "transform",
    "torch.nn.utils": "other", "torch.nn.modules": "module",
}  # fmt: skip
#: functions of ``torch`` itself that answer no tensor
NO_TENSOR = {
    "device": "device", "load": "other", "save": "other", "no_grad": "other", "is_tensor": "number", "numel": "number",
    "Size": "shape",
    "finfo": "other", "iinfo": "other", "split": "other", "chunk": "other", "unbind": "other", "max": None,
    "min": None, "sort": "other", "topk": "other", "meshgrid": "other", "compile": None, "allclose": "number",
    "manual_seed": "other",
    "set_grad_enabled": "other", "median": None, "kthvalue": "other", "equal": "number", "is_grad_enabled": "number",
    "get_num_threads": "number",
}  # fmt: skip
#: what methods of tensors answer that is no tensor
ANSWERS = {
    "item": "number", "size": "shape", "numel": "number", "dim": "number", "tolist": "other", "numpy": "array",
    "nelement": "number",
    "shape": "shape", "dtype": "dtype", "device": "device", "ndim": "number", "split": "other", "chunk": "other",
    "unbind": "other",
    "sort": "other", "topk": "other", "backward": "other", "is_cuda": "number", "requires_grad": "number", "stride": "other",
}  # fmt: skip
#: methods of modules that answer the module
ANSWER_THE_MODULE = frozenset("to cuda cpu train eval half float double requires_grad_ apply".split())
#: attributes that hold parameters wherever they stand
PARAMETERS = ("weight", "bias", "grad")
#: what calls of Python's own functions answer
BUILT_IN = {
    **dict.fromkeys(("len", "int", "float", "round", "bool", "hash", "ord"), "number"),
    **dict.fromkeys(("str", "repr", "open", "list", "dict", "set", "tuple", "range", "enumerate", "zip", "sorted",
    "getattr"), "other"),
}  # fmt: skip

Scope = cst.CSTNode


class Names:
    """The meaning of names: which are PyTorch's."""

    def __init__(self, wrapper: meta.MetadataWrapper) -> None:
        self._qualified: Mapping[cst.CSTNode, Any] = wrapper.resolve(meta.QualifiedNameProvider)

    def _found(self, node: cst.CSTNode) -> list[Any]:
        found = self._qualified.get(node) or ()
        if callable(found):
            found = found()
        return list(found)

    def imported(self, node: cst.CSTNode) -> str | None:
        """The name under which something imported is known where it comes from: ``numpy.zeros``; ``None`` for all else."""
        if dotted(node) is None:
            return None
        found = [f.name for f in self._found(node) if f.source is meta.QualifiedNameSource.IMPORT]
        ours = [name for name in found if name.split(".")[0] in ROOTS]
        return (ours or found or [None])[0]

    def torch(self, node: cst.CSTNode) -> str | None:
        """The full name if it is PyTorch's."""
        name = self.imported(node)
        return name if name and name.split(".")[0] in ROOTS else None

    def built_in(self, node: cst.CSTNode) -> bool:
        """Whether a name is Python's own."""
        return any(f.source is meta.QualifiedNameSource.BUILTIN for f in self._found(node))


class Kinds:
    """The kinds of a module's expressions."""

    def __init__(self, module: cst.Module, names: Names, parents: Mapping[cst.CSTNode, cst.CSTNode]) -> None:
        self.names, self.parents = names, parents
        self.classes: dict[str, str] = {}
        self.functions: dict[str, str | None] = {}
        self.nodes: dict[str, cst.ClassDef] = {}
        #: (function, class or module) -> name or ``self.name`` -> kinds that were assigned
        self.held: dict[Scope, dict[str, set[str | None]]] = {}
        #: optimizer expression -> the text of what it was made from
        self.made_from: dict[str, str] = {}
        #: attribute name -> kinds, over all classes: what ``model.encoder`` probably is
        self.attributes: dict[str, set[str | None]] = {}
        #: where nodes stand in the text, as numbers that grow
        self.order: dict[cst.CSTNode, int] = {}
        module.visit(_Order(self.order))
        collect = _Classes()
        module.visit(collect)
        self.nodes = collect.found
        for _ in range(4):
            for name, node in self.nodes.items():
                kind = self._class_kind(node)
                if kind:
                    self.classes[name] = kind
        for _ in range(3):
            module.visit(_Assignments(self))

    # -- scopes -------------------------------------------------------------------------------------------------
    def scopes(self, node: cst.CSTNode) -> list[Scope]:
        """The functions around a node, innermost first, and the module."""
        found: list[Scope] = []
        while node in self.parents:
            node = self.parents[node]
            if isinstance(node, (cst.FunctionDef, cst.Lambda, cst.Module)):
                found.append(node)
        return found

    def class_of(self, node: cst.CSTNode) -> cst.ClassDef | None:
        """The class around a node."""
        while node in self.parents:
            node = self.parents[node]
            if isinstance(node, cst.ClassDef):
                return node
        return None

    def _class_here(self, node: cst.CSTNode) -> str | None:
        cls = self.class_of(node)
        return self.classes.get(cls.name.value) if cls is not None else None

    def is_own(self, node: cst.Attribute) -> bool:
        """Whether ``self.name`` is something that its class gives itself: an attribute that is assigned, or a method."""
        cls = self.class_of(node) if text(node.value) == "self" else None
        if cls is None:
            return False
        methods = (m.name.value for m in cls.body.body if isinstance(m, cst.FunctionDef))
        return node.attr.value in self.held.get(cls, ()) or node.attr.value in methods

    def is_defined(self, name: str) -> bool:
        """Whether a class of the module has a method of this name."""
        return any(
            isinstance(m, cst.FunctionDef) and m.name.value == name
            for cls in self.nodes.values()
            for m in cls.body.body
        )

    def hold(self, target: cst.CSTNode, kind: str | None, at: cst.CSTNode) -> None:
        """A name, or an attribute of ``self``, was given something."""
        if isinstance(target, cst.Name):
            self.held.setdefault(self.scopes(at)[0], {}).setdefault(target.value, set()).add(kind)
        elif isinstance(target, cst.Attribute) and text(target.value) == "self":
            cls = self.class_of(at)
            if cls is not None:
                self.held.setdefault(cls, {}).setdefault(target.attr.value, set()).add(kind)
                self.attributes.setdefault(target.attr.value, set()).add(kind)
        elif isinstance(target, (cst.Tuple, cst.List)):
            for element in target.elements:
                self.hold(element.value, kind, at)

    def _one(self, found: set[str | None] | None) -> str | None:
        known = {k for k in found or () if k is not None and k != "none"}
        return known.pop() if len(known) == 1 else None

    # -- classes --------------------------------------------------------------------------------------------------
    def _class_kind(self, node: cst.ClassDef) -> str | None:
        methods = [m for m in node.body.body if isinstance(m, cst.FunctionDef)]
        for base in node.bases:
            name = self.names.torch(base.value)
            if name:
                if name.startswith("torch.nn.") and name[9:10].isupper():
                    return "module"
                if name.endswith(("autograd.Function", "function.Function")):
                    return "function"
                if name.startswith(("torch.utils.data", "torchvision.datasets")):
                    return "dataset"
                if name.startswith("torch.optim"):
                    return "optimizer"
                if name.startswith("torchvision.models"):
                    return "module"
            local = dotted(base.value)
            if local in self.classes:
                return self.classes[local]
        known = {"object", "dict", "list", "Exception", "ABC", "Enum", "Protocol", "NamedTuple"}
        foreign = [b for b in node.bases if (dotted(b.value) or "").split(".")[-1] not in known]
        if foreign and any(m.name.value == "forward" and m.params.params for m in methods):
            return "module"  # of a base in another file of the project
        return None

    # -- expressions ----------------------------------------------------------------------------------------------
    def of(self, node: cst.CSTNode) -> str | None:
        """The kind of an expression."""
        if isinstance(node, cst.Name):
            return self._name(node)
        if isinstance(node, cst.Attribute):
            return self._attribute(node)
        if isinstance(node, cst.Call):
            return self._call(node)
        if isinstance(node, cst.BinaryOperation):
            sides = {self.of(node.left), self.of(node.right)}
            return (
                "tensor"
                if "tensor" in sides
                else "array"
                if "array" in sides
                else sides.pop()
                if len(sides) == 1
                else None
            )
        if isinstance(node, cst.UnaryOperation):
            return self.of(node.expression)
        if isinstance(node, cst.Comparison):
            return "tensor" if self.of(node.left) == "tensor" else None
        if isinstance(node, cst.Subscript):
            kind = self.of(node.value)
            return (
                kind
                if kind in ("tensor", "array", "module", "dataset")
                else {"shape": "number", "datasets": "dataset"}.get(kind or "")
            )
        if isinstance(node, cst.IfExp):
            return self._one({self.of(node.body), self.of(node.orelse)})
        if isinstance(node, (cst.Integer, cst.Float)):
            return "number"
        if isinstance(node, (cst.SimpleString, cst.FormattedString, cst.ConcatenatedString)):
            return "text"
        if isinstance(node, (cst.List, cst.Dict, cst.Set, cst.Tuple, cst.ListComp, cst.DictComp, cst.Lambda)):
            return "other"
        return None

    def _name(self, node: cst.Name) -> str | None:
        if node.value == "None":
            return "none"
        torch = self.names.torch(node)
        if torch:
            return self._of_torch(torch, called=False)
        for scope in self.scopes(node):
            if self.held.get(scope, {}).get(node.value, set()) - {None}:
                return self._one(self.held[scope][node.value])
            if node.value in self.held.get(scope, ()):
                return "module" if node.value == "self" and self._class_here(node) == "module" else None
        return "other" if self.names.imported(node) else None

    def _attribute(self, node: cst.Attribute) -> str | None:
        torch = self.names.torch(node)
        if torch:
            return self._of_torch(torch, called=False)
        if self.names.imported(node):
            return "other"
        name = node.attr.value
        if isinstance(node.value, cst.Name) and node.value.value == "self":
            cls = self.class_of(node)
            found = self.held.get(cls, {}).get(name) if cls is not None else None
            if found:
                return self._one(found)
            if name in PARAMETERS and cls is not None and self.classes.get(cls.name.value) == "module":
                return "tensor"
            return self._one(self.attributes.get(name))
        kind = self.of(node.value)
        if kind == "tensor":
            return ANSWERS.get(name, "tensor")
        if kind in ("parallel", "module"):
            return (
                "tensor"
                if name in PARAMETERS
                else "module"
                if name == "module"
                else self._one(self.attributes.get(name))
            )
        if name == "dataset" and (
            kind == "loader" or (kind is None and "loader" in text(node.value).lower())
        ):
            return "dataset"
        if name in PARAMETERS:
            return "tensor"
        return None

    def _call(self, node: cst.Call) -> str | None:
        func = node.func
        torch = self.names.torch(func)
        if torch:
            return self._of_torch(torch, called=True)
        imported = self.names.imported(func)
        if imported:
            return "array" if imported.split(".")[0] == "numpy" else None
        if isinstance(func, cst.Name):
            known = self._call_of_name(func.value, node)
        elif isinstance(func, cst.Attribute):
            known = self._call_of_method(self.of(func.value), func.attr.value)
        else:
            known = ""
        if known == "":
            return "tensor" if self.of(func) in ("module", "parallel") else None
        return known

    def _call_of_name(self, name: str, node: cst.Call) -> str | None:
        """What the call of a name answers; empty if it depends on what the name holds."""
        if name in self.classes:
            return self.classes[name]
        if name in BUILT_IN and self.names.built_in(node.func):
            return BUILT_IN[name]
        if name == "next" and node.args and text(node.args[0].value).rstrip("()").endswith("parameters"):
            return "tensor"
        return self.functions.get(name, "")

    def _call_of_method(self, receiver: str | None, name: str) -> str | None:
        """What a method answers; empty if it depends on what the attribute holds."""
        if name == "numpy":
            return "array"
        if receiver == "tensor":
            return ANSWERS.get(name, "tensor")
        if receiver == "array":
            return "array"
        if name in ("parameters", "named_parameters", "state_dict"):
            return name
        if receiver == "scaler" and name == "scale":
            return "tensor"
        if receiver in ("module", "parallel"):
            return receiver if name in ANSWER_THE_MODULE else None
        if receiver == "generator" and name == "manual_seed":
            return receiver
        if name in ("item", "numel"):
            return "number"
        if name in ("detach", "cuda", "cpu"):
            return receiver
        return "other" if name == "backward" else ""

    def _of_torch(self, name: str, called: bool) -> str | None:
        answer = find(name)
        if answer is not None and answer.rule.kind:
            return answer.rule.kind if called else None
        module, _, last = name.rpartition(".")
        if not called:
            return (
                "dtype"
                if module == "torch" and answer and answer.parameters is None and last.islower()
                else None
            )
        if module == "torch":
            return NO_TENSOR.get(last, "tensor") if last[:1].islower() else NO_TENSOR.get(last)
        if module == "torch.nn" and last == "Parameter":
            return "tensor"
        return MADE.get(module)


class _Order(cst.CSTVisitor):
    def __init__(self, found: dict[cst.CSTNode, int]) -> None:
        super().__init__()
        self.found = found

    def on_visit(self, node: cst.CSTNode) -> bool:
        self.found[node] = len(self.found)
        return True


class _Classes(cst.CSTVisitor):
    def __init__(self) -> None:
        super().__init__()
        self.found: dict[str, cst.ClassDef] = {}

    def visit_ClassDef(self, node: cst.ClassDef) -> None:
        self.found[node.name.value] = node


class _Assignments(cst.CSTVisitor):
    """Fills ``Kinds.held``."""

    def __init__(self, kinds: Kinds) -> None:
        super().__init__()
        self.kinds = kinds

    def _assign(self, targets: Sequence[cst.CSTNode], value: cst.BaseExpression) -> None:
        kinds = self.kinds
        kind = kinds.of(value)
        for target in targets:
            if isinstance(target, (cst.Tuple, cst.List)):
                if isinstance(value, (cst.Tuple, cst.List)) and len(value.elements) == len(target.elements):
                    for left, right in zip(target.elements, value.elements):
                        kinds.hold(left.value, kinds.of(right.value), target)
                elif kind == "datasets":
                    kinds.hold(target, "dataset", target)
                elif kind in ("tensor", None) and self._yields_tensors(value):
                    kinds.hold(target, "tensor", target)
                else:
                    kinds.hold(target, None, target)
                continue
            kinds.hold(target, kind, target)
            if kind == "optimizer" and isinstance(value, cst.Call) and value.args:
                kinds.made_from[text(target).strip()] = text(value.args[0].value)

    def _yields_tensors(self, value: cst.BaseExpression) -> bool:
        """Whether a call answers several tensors: a module, or a function of PyTorch's."""
        if not isinstance(value, cst.Call):
            return False
        kinds = self.kinds
        if kinds.of(value.func) in ("module", "parallel"):
            return True
        name = kinds.names.torch(value.func)
        if name and name.startswith("torch.") and name.count(".") == 1:
            return True
        return isinstance(value.func, cst.Attribute) and kinds.of(value.func.value) == "tensor"

    def visit_Assign(self, node: cst.Assign) -> None:
        self._assign([t.target for t in node.targets], node.value)

    def visit_AugAssign(self, node: cst.AugAssign) -> None:
        self.kinds.hold(node.target, self.kinds.of(node.value), node)

    def visit_AnnAssign(self, node: cst.AnnAssign) -> None:
        if node.value is not None:
            self._assign([node.target], node.value)

    def visit_NamedExpr(self, node: cst.NamedExpr) -> None:
        self._assign([node.target], node.value)

    def visit_With(self, node: cst.With) -> None:
        for item in node.items:
            if item.asname is not None:
                self.kinds.hold(item.asname.name, None, item)

    def visit_For(self, node: cst.For) -> None:
        self._iterate(node.target, node.iter)

    def visit_CompFor(self, node: cst.CompFor) -> None:
        self._iterate(node.target, node.iter)

    def _iterate(self, target: cst.CSTNode, source: cst.BaseExpression) -> None:
        kinds = self.kinds
        called = text(source.func) if isinstance(source, cst.Call) else ""
        if (
            called in ("enumerate", "tqdm", "iter", "list", "sorted", "reversed")
            and isinstance(source, cst.Call)
            and source.args
        ):
            inner = source.args[0].value
            if called == "enumerate" and isinstance(target, cst.Tuple) and len(target.elements) == 2:
                kinds.hold(target.elements[0].value, "number", target)
                self._iterate(target.elements[1].value, inner)
                return
            if called != "enumerate":
                self._iterate(target, inner)
                return
        kind = kinds.of(source)
        if kind in ("loader", "tensor", "parameters"):
            kinds.hold(target, "tensor", target)
        elif kind == "datasets":
            kinds.hold(target, "dataset", target)
        elif kind == "named_parameters" and isinstance(target, cst.Tuple) and len(target.elements) == 2:
            kinds.hold(target.elements[0].value, "text", target)
            kinds.hold(target.elements[1].value, "tensor", target)
        else:
            kinds.hold(target, "number" if called == "range" else None, target)

    def visit_FunctionDef(self, node: cst.FunctionDef) -> None:
        kinds = self.kinds
        held = kinds.held.setdefault(node, {})
        cls = kinds.class_of(node)
        kind = kinds.classes.get(cls.name.value) if cls is not None else None
        inside = (kind == "module" and node.name.value == "forward") or (
            kind == "function" and node.name.value in ("forward", "backward")
        )
        params = [*node.params.posonly_params, *node.params.params, *node.params.kwonly_params]
        for k, param in enumerate(params):
            guess: str | None = None
            if param.annotation is not None:
                name = kinds.names.torch(param.annotation.annotation)
                if name == "torch.Tensor":
                    guess = "tensor"
                elif name == "torch.nn.Module" or name == "torch.nn.modules.Module":
                    guess = "module"
            elif inside and k and param.default is None:
                guess = "tensor"
            held.setdefault(param.name.value, set()).add(guess)
        if cls is None:
            kinds.functions[node.name.value] = None

    def leave_FunctionDef(self, original_node: cst.FunctionDef) -> None:
        kinds = self.kinds
        if kinds.class_of(original_node) is not None:
            return
        returns = _Returns(kinds, original_node)
        original_node.body.visit(returns)
        kinds.functions[original_node.name.value] = (
            None if "unknown" in returns.found else kinds._one(returns.found)
        )


class _Returns(cst.CSTVisitor):
    def __init__(self, kinds: Kinds, function: cst.FunctionDef) -> None:
        super().__init__()
        self.kinds, self.function = kinds, function
        self.found: set[str | None] = set()

    def visit_FunctionDef(self, node: cst.FunctionDef) -> bool:
        return False

    def visit_Lambda(self, node: cst.Lambda) -> bool:
        return False

    def visit_Return(self, node: cst.Return) -> None:
        kind = self.kinds.of(node.value) if node.value is not None else None
        self.found.add(kind if kind is not None else "unknown")
