"""Rewriter: the one walk over a module that turns PyTorch's names, calls and methods into metafuse's.

What it is: a LibCST transformer that knows what every name means (``kinds``), asks the table what becomes of it (``lookup``) and
puts arguments in order (``arguments``, ``special``). What can't be expressed stays as it is, under PyTorch's full name,
and is listed.
What it is not: import statements (``imports``), training steps (``loop``), definitions of modules and functions
(``definitions``).
Who calls it: ``conversion``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import libcst as cst
import libcst.metadata as meta

from . import definitions, methods, statements
from .arguments import Refused, convert
from .kinds import Kinds, Names
from .lookup import HOMES, OWN, ROOTS, Answer, find, inventory, own_parameters, parse, resolve
from .loop import Steps
from .special import SPECIAL
from .syntax import build, comments, dotted, literal, path, text
from .table import TABLE
from .tables import summary

__all__ = ["Remark", "Rewriter"]

#: answers of several arrays, which PyTorch also lets one read by name
SEVERAL = frozenset({"max", "min", "sort", "topk", "kthvalue", "mode", "median", "cummax", "cummin"})


@dataclass(frozen=True)
class Remark:
    """Something to tell about a line."""

    name: str
    line: int
    why: str


class Rewriter(cst.CSTTransformer):
    """Converts everything but imports."""

    tensor_types: Mapping[str, str] = {
        "FloatTensor": "float32", "DoubleTensor": "float64", "HalfTensor": "float16", "LongTensor": "int64", "IntTensor": "int32",
        "ShortTensor": "int16", "CharTensor": "int8", "ByteTensor": "uint8", "BoolTensor": "bool", "BFloat16Tensor": "bfloat16",
    }  # fmt: skip

    def __init__(self, wrapper: meta.MetadataWrapper, target: str, root: str, stand_in: str) -> None:
        super().__init__()
        self.module = wrapper.module
        self.framework, self.root_name, self.stand_in = target, root, stand_in
        self.parents = wrapper.resolve(meta.ParentNodeProvider)
        self.positions = wrapper.resolve(meta.PositionProvider)
        self.names = Names(wrapper)
        self.kinds = Kinds(self.module, self.names, self.parents)
        self.steps = Steps(self.module, self.kinds)
        self.notes: list[Remark] = []
        self.unconverted: list[Remark] = []
        self.converted: list[Remark] = []
        self.joined: dict[cst.Call, cst.BaseExpression] = {}
        self.needs_root = False
        self.needs_stand_in = False
        #: names bound by ``from torch import ...`` that are still written somewhere
        self.kept: set[str] = set()
        #: all that were written in the original
        self.seen: set[str] = set()
        self.parallel = any(
            (self.names.torch(node) or "").endswith(("DataParallel", "DistributedDataParallel"))
            for node in self.parents
        )

    # -- telling ----------------------------------------------------------------------------------------------------
    def line(self, node: cst.CSTNode) -> int:
        """The line of a node of the original."""
        found = self.positions.get(node)
        return found.start.line if found is not None else 0

    def note(self, node: cst.CSTNode, why: str) -> None:
        """Something the user should know."""
        remark = Remark("", self.line(node), why)
        if remark not in self.notes:
            self.notes.append(remark)

    def refuse(self, node: cst.CSTNode, name: str, why: str) -> None:
        """Something that has not been converted."""
        remark = Remark(name, self.line(node), why)
        if remark not in self.unconverted:
            self.unconverted.append(remark)

    def tell(self, node: cst.CSTNode, answer: Answer) -> None:
        """A use of a name has been converted, unless it was refused meanwhile."""
        line = self.line(node)
        if not any((r.name, r.line) == (answer.name, line) for r in self.unconverted):
            self.converted.append(Remark(answer.name, line, summary(answer)))

    def is_statement(self, node: cst.CSTNode) -> bool:
        """Whether an expression's value is not used."""
        return isinstance(self.parents[node], cst.Expr)

    def is_taken_apart(self, node: cst.CSTNode) -> bool:
        """Whether the value of an expression is used as several."""
        parent = self.parents[node]
        if isinstance(parent, cst.Assign):
            return all(isinstance(t.target, (cst.Tuple, cst.List)) for t in parent.targets)
        if isinstance(parent, cst.Subscript):
            return parent.value is node
        return isinstance(parent, cst.Attribute) and parent.attr.value in ("values", "indices")

    # -- names --------------------------------------------------------------------------------------------------------
    def root(self) -> cst.Name:
        """The name under which the framework is imported."""
        self.needs_root = True
        return cst.Name(self.root_name)

    def shown(self, where: str) -> str:
        """A path below metafuse as the target has it."""
        if self.framework == "jittor" and (where == "data" or where.startswith("data.")):
            return "dataset" + where[4:]
        return where

    def absolute(self, where: str) -> cst.BaseExpression:
        """A path below metafuse as an expression."""
        self.needs_root = True
        return path(f"{self.root_name}.{self.shown(where)}")

    def outside(self, name: str) -> cst.BaseExpression:
        """A name that stays PyTorch's, under the object that stands for it."""
        self.needs_stand_in = True
        first, _, rest = name.partition(".")
        if first != "torch":
            return path(f"{self.stand_in}.{name}")
        return path(f"{self.stand_in}.{rest}" if rest else self.stand_in)

    def reference(
        self, node: cst.BaseExpression, answer: Answer, tail: Sequence[str] = ()
    ) -> cst.BaseExpression:
        """``node``, which means ``answer``, as the target writes it; names from ``import ... from`` stay."""
        assert answer.path is not None
        if isinstance(node, cst.Name):
            self.kept.add(node.value)
            return node
        chain = (dotted(node) or text(node).replace(" ", "")).split(".")  # without parentheses around parts
        chain = chain[: len(chain) - len(tail)]
        leftmost = node
        while isinstance(leftmost, cst.Attribute):
            leftmost = leftmost.value
        first = self.names.torch(leftmost) or "torch"
        if len(chain) == 1:
            self.kept.add(chain[0])
            return path(chain[0])
        home = HOMES.get(first, (None,))[0]
        if home is None:
            return self.absolute(answer.path)
        candidate = ".".join([*([home] if home else []), *chain[1:]])
        new = answer.path
        try:
            if resolve(candidate) is resolve(answer.path):
                new = candidate
        except (AttributeError, ImportError):
            pass
        if first in ROOTS:
            return self.absolute(new)
        self.kept.add(chain[0])
        if not home or new.startswith(f"{home}."):
            return path(f"{chain[0]}.{new[len(home) + 1 :] if home else self.shown(new)}")
        return self.absolute(new)

    def callee(self, original: cst.CSTNode, answer: Answer) -> cst.BaseExpression:
        """What is called, for a call or a reference."""
        return self.reference(original.func if isinstance(original, cst.Call) else original, answer)  # type: ignore[arg-type]

    def known(self, full: str) -> tuple[str, int]:
        """The longest beginning of a name that is known, and how many parts are left."""
        parts = full.split(".")
        for k in range(len(parts), 0, -1):
            prefix = ".".join(parts[:k])
            module, _, last = prefix.rpartition(".")
            if prefix in HOMES or prefix in TABLE or prefix in OWN or last in inventory().get(module, {}):
                return prefix, len(parts) - k
            answer = find(prefix) if module in HOMES else None
            if answer is not None and answer.offered:
                return prefix, len(parts) - k
        return parts[0], len(parts) - 1

    def _is_use(self, node: cst.CSTNode) -> bool:
        """Whether a name is read here as a whole: no part of a longer one, no callee, no definition, no keyword."""
        parent = self.parents.get(node)
        if isinstance(parent, cst.Attribute):
            return False
        if isinstance(parent, cst.Call) and parent.func is node:
            return False
        if isinstance(parent, cst.Arg) and parent.keyword is node:
            return False
        return not isinstance(
            parent,
            (
                cst.ImportAlias,
                cst.AsName,
                cst.Param,
                cst.FunctionDef,
                cst.ClassDef,
                cst.AssignTarget,
                cst.NameItem,
                cst.Import,
                cst.ImportFrom,
                cst.Del,
            ),
        ) or (isinstance(parent, cst.Param) and parent.default is node)

    def leave_Name(self, original_node: cst.Name, updated_node: cst.Name) -> cst.BaseExpression:
        full = self.names.torch(original_node)
        if full is None:
            return updated_node
        if not isinstance(self.parents.get(original_node), (cst.ImportAlias, cst.AsName)):
            self.seen.add(original_node.value)
        if not self._is_use(original_node):
            parent = self.parents.get(original_node)
            if (
                isinstance(parent, cst.Attribute)
                and parent.value is original_node
                and not self.names.torch(parent)
            ):
                return self._use(original_node, updated_node, full)
            return updated_node
        return self._use(original_node, updated_node, full)

    def leave_Attribute(
        self, original_node: cst.Attribute, updated_node: cst.Attribute
    ) -> cst.BaseExpression:
        parent = self.parents.get(original_node)
        full = self.names.torch(original_node)
        if full is not None:
            if isinstance(parent, cst.Attribute) and parent.value is original_node:
                return updated_node  # the longer name will be looked at
            if isinstance(parent, cst.Call) and parent.func is original_node:
                return updated_node
            if isinstance(parent, cst.AssignTarget):
                return updated_node  # ``leave_SimpleStatementLine`` deals with it
            return self._use(original_node, updated_node, full)
        if (isinstance(parent, cst.Call) and parent.func is original_node) or self.names.imported(
            original_node
        ):
            return updated_node
        if updated_node.attr.value in ("values", "indices") and self._several(original_node.value):
            return build("{x}[0]" if updated_node.attr.value == "values" else "{x}[1]", x=updated_node.value)
        return methods.attribute(self, original_node, updated_node)

    def _several(self, node: cst.BaseExpression) -> bool:
        if not isinstance(node, cst.Call):
            return False
        name = self.names.torch(node.func)
        if name is not None:
            return name.rpartition(".")[2] in SEVERAL
        return isinstance(node.func, cst.Attribute) and node.func.attr.value in SEVERAL

    def _use(
        self, original: cst.BaseExpression, updated: cst.BaseExpression, full: str
    ) -> cst.BaseExpression:
        """A name of PyTorch's that is read, not called."""
        prefix, left = self.known(full)
        tail = full.split(".")[len(full.split(".")) - left :] if left else []
        if prefix in HOMES and not left:
            return self._module(original, updated, prefix)
        answer = None if prefix in HOMES else find(prefix)
        if answer is None or not answer.offered:
            self.refuse(original, full, answer.why if answer is not None else "has no counterpart")
            if isinstance(original, cst.Name):
                self.kept.add(original.value)
                return updated
            return self.outside(full)
        rule = answer.rule
        try:
            if (rule.special and not answer.path) or rule.special in ("tensor_class", "typed_tensor"):
                base = SPECIAL[rule.special](self, original, updated, answer)
            elif rule.template:
                base = (
                    build(rule.template, mf=self.root())
                    if "{mf}" in rule.template
                    else cst.parse_expression(rule.template)
                )
            else:
                base = self.reference(original, answer, tail)
        except (Refused, KeyError) as error:
            self.refuse(
                original, full, str(error) if isinstance(error, Refused) else "only calls of it are converted"
            )
            if isinstance(original, cst.Name):
                self.kept.add(original.value)
                return updated
            return self.outside(full)
        if rule.wrap or rule.renames or rule.added:
            self.note(
                original,
                f"{full} is handed on as a value; its counterpart takes other arguments or answers otherwise",
            )
        self.tell(original, answer)
        for name in tail:
            base = cst.Attribute(value=base, attr=cst.Name(name))
        return base

    def _module(
        self, original: cst.BaseExpression, updated: cst.BaseExpression, full: str
    ) -> cst.BaseExpression:
        home = HOMES[full][0]
        if isinstance(original, cst.Name) and full != "torch":
            self.kept.add(original.value)
            return updated
        return self.absolute(home) if home else self.root()

    # -- calls ----------------------------------------------------------------------------------------------------------
    def leave_Call(self, original_node: cst.Call, updated_node: cst.Call) -> cst.BaseExpression:
        full = self.names.torch(original_node.func)
        if full is not None:
            return self._function(original_node, updated_node, full)
        func = original_node.func
        if isinstance(func, cst.Attribute) and not self.names.imported(func):
            return methods.method_call(self, original_node, updated_node, func)
        if isinstance(func, cst.Name) and func.value == "next" and len(original_node.args) == 1:
            inner = original_node.args[0].value
            if (
                isinstance(inner, cst.Call)
                and isinstance(inner.func, cst.Attribute)
                and inner.func.attr.value
                in ("parameters", "named_parameters", "children", "modules", "buffers")
            ):
                return build("next(iter({x}))", x=updated_node.args[0].value)
        if (
            isinstance(func, cst.Name)
            and func.value == "len"
            and len(original_node.args) == 1
            and self.kinds.of(original_node.args[0].value) == "dataset"
        ):
            return build("{x}.item_count()", x=updated_node.args[0].value)
        return updated_node

    def _function(self, original: cst.Call, updated: cst.Call, full: str) -> cst.BaseExpression:
        prefix, left = self.known(full)
        answer = None if prefix in HOMES else find(prefix)
        if left and answer is not None and answer.offered and prefix not in HOMES:
            func = self._use(original.func, updated.func, full)
            return updated.with_changes(func=func)
        why = "has no counterpart" if answer is None else answer.why
        if answer is not None and answer.offered and not left:
            try:
                result = self.call(original, updated, answer)
                if answer.rule.note:
                    self.note(original, answer.rule.note)
                self.tell(original, answer)
                return result
            except Refused as error:
                why = str(error)
                self.refuse(original, full, why)
                return updated.with_changes(func=self.outside(full))
        self.refuse(original, full, why)
        if isinstance(original.func, cst.Name):
            self.kept.add(original.func.value)
            return updated
        return updated.with_changes(func=self.outside(full))

    def call(self, original: cst.Call, updated: cst.Call, answer: Answer) -> cst.BaseExpression:
        if answer.rule.special:
            return SPECIAL[answer.rule.special](self, original, updated, answer)
        if answer.rule.template:
            return self.template(original, updated, answer)
        return self.ordinary(original, updated, answer)

    def ordinary(
        self,
        original: cst.Call,
        updated: cst.Call,
        answer: Answer,
        path: str = "",
        own: str = "",
        theirs: str = "",
    ) -> cst.BaseExpression:
        """A call of the counterpart with its arguments in order."""
        where = path or answer.path
        assert where is not None
        if where != answer.path:
            answer = replace(answer, path=where)
        if theirs:
            answer = replace(answer, parameters=parse(theirs))
        is_method = self.names.torch(original.func) is None
        here = parse(own) if own else own_parameters(where)
        makes_tensor = self.kinds.of(original) == "tensor" or is_method
        done = convert(updated.args, answer, here, makes_tensor, is_method)
        if is_method:
            old = cst.ensure_type(updated.func, cst.Attribute)
            func: cst.BaseExpression = old.with_changes(attr=cst.Name(where.rpartition(".")[2]))
        else:
            func = self.reference(original.func, answer)
        call: cst.BaseExpression = updated.with_changes(func=func, args=done.args)
        if done.cast is not None:
            call = build("{call}.cast({kind})", call=call, kind=done.cast)
        return build(answer.rule.wrap, call=call) if answer.rule.wrap else call

    def template(self, original: cst.Call, updated: cst.Call, answer: Answer) -> cst.BaseExpression:
        """A call as an expression of its arguments."""
        from .arguments import WITHOUT_MEANING, bind

        given = bind(updated.args, answer.parameters or ())
        if given is None:
            raise Refused("arguments with stars can't be told apart")
        parts: dict[str, cst.BaseExpression] = {name: arg.value for name, arg in given.items()}
        used = {name for name in parts if f"{{{name}}}" in answer.rule.template}
        if not all(n in parts for n in answer.rule.needs):
            return updated
        for name, value in parts.items():
            default = next((p.default for p in answer.parameters or () if p.name == name), "no")
            if (
                name not in used
                and name not in answer.rule.dropped
                and name not in WITHOUT_MEANING
                and literal(value) != literal(default or "no")
            ):
                raise Refused(f"argument {name}={text(value).strip()} has no counterpart")
        for parameter in answer.parameters or ():
            if parameter.default is not None and parameter.name not in parts:
                parts[parameter.name] = cst.parse_expression(parameter.default)
        if "{self}" in answer.rule.template:
            parts["self"] = cst.ensure_type(updated.func, cst.Attribute).value
        if "{mf}" in answer.rule.template:
            parts["mf"] = self.root()
        try:
            return build(answer.rule.template, **parts)
        except KeyError as error:
            raise Refused(f"argument {error} is missing") from None

    # -- subscripts of parameter groups -----------------------------------------------------------------------------------
    def leave_Subscript(
        self, original_node: cst.Subscript, updated_node: cst.Subscript
    ) -> cst.BaseExpression:
        return definitions.rate_of(self, original_node, updated_node)

    def leave_AugAssign(
        self, original_node: cst.AugAssign, updated_node: cst.AugAssign
    ) -> cst.BaseSmallStatement:
        return definitions.rate_changed(self, original_node, updated_node)

    # -- views and gradients -----------------------------------------------------------------------------------------------
    def leave_Expr(self, original_node: cst.Expr, updated_node: cst.Expr) -> cst.BaseSmallStatement:
        return methods.part_changed(self, original_node, updated_node)

    def leave_Comparison(
        self, original_node: cst.Comparison, updated_node: cst.Comparison
    ) -> cst.BaseExpression:
        return methods.grad_is_none(self, original_node, updated_node)

    # -- definitions ----------------------------------------------------------------------------------------------------------
    def leave_ClassDef(self, original_node: cst.ClassDef, updated_node: cst.ClassDef) -> cst.BaseStatement:
        return statements.with_comments(
            original_node, definitions.class_def(self, original_node, updated_node)
        )

    def leave_FunctionDef(
        self, original_node: cst.FunctionDef, updated_node: cst.FunctionDef
    ) -> cst.BaseStatement:
        return statements.with_comments(
            original_node, definitions.function_def(self, original_node, updated_node)
        )

    def leave_Assign(self, original_node: cst.Assign, updated_node: cst.Assign) -> cst.BaseSmallStatement:
        return definitions.assign(self, original_node, updated_node)

    def leave_Decorator(
        self, original_node: cst.Decorator, updated_node: cst.Decorator
    ) -> cst.Decorator | cst.RemovalSentinel:
        if isinstance(original_node.decorator, (cst.Name, cst.Attribute)):
            name = self.names.torch(original_node.decorator)
            answer = find(name) if name else None
            if answer is not None and answer.rule.special == "decorator" and not comments(original_node):
                return cst.RemoveFromParent()
        return updated_node

    # -- statements -------------------------------------------------------------------------------------------------------------
    def leave_SimpleStatementLine(
        self, original_node: cst.SimpleStatementLine, updated_node: cst.SimpleStatementLine
    ) -> cst.BaseStatement:
        setting = statements.setting(self, original_node, updated_node)
        if setting is not None:
            return setting
        return statements.with_comments(original_node, updated_node)

    def leave_IndentedBlock(
        self, original_node: cst.IndentedBlock, updated_node: cst.IndentedBlock
    ) -> cst.BaseSuite:
        return updated_node.with_changes(body=statements.join(self, original_node.body, updated_node.body))

    def leave_Module(self, original_node: cst.Module, updated_node: cst.Module) -> cst.Module:
        return updated_node.with_changes(body=statements.join(self, original_node.body, updated_node.body))
