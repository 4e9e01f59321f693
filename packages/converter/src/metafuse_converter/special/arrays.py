"""Types, devices, and making arrays."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import libcst as cst

from ..arguments import Refused
from ..lookup import Answer
from ..syntax import build, keyword, literal, separated, text
from .registry import bound, receiver, special

if TYPE_CHECKING:
    from ..rewrite import Rewriter

__all__: list[str] = []  # functions are found by name


@special
def device(r: Rewriter, original: Any, updated: Any, answer: Answer) -> cst.BaseExpression:
    """A device is a text."""
    if not isinstance(updated, cst.Call):
        return cst.Name("str")
    given = [a for a in updated.args if not a.star]
    if not given:
        raise Refused("a device has a name")
    if len(given) == 2:
        return build("str({kind})", kind=given[0].value)
    return given[0].value


_TYPES = (
    "float16",
    "float32",
    "float64",
    "bfloat16",
    "int8",
    "int16",
    "int32",
    "int64",
    "uint8",
    "bool",
    "float",
    "double",
    "half",
    "long",
    "int",
    "short",
)


def _is_device(r: Rewriter, node: cst.BaseExpression) -> bool:
    value = literal(node)
    if r.kinds.of(node) == "device":
        return True
    if isinstance(node, (cst.SimpleString, cst.FormattedString)):
        return str(value).split(":")[0].strip("'\"f") in ("cpu", "cuda", "mps", "xpu", "meta", "npu", "hpu")
    if isinstance(node, cst.Attribute) and node.attr.value == "device":
        return True
    if isinstance(node, cst.IfExp):
        return _is_device(r, node.body) or _is_device(r, node.orelse)
    last = text(node).rpartition(".")[2].lower()
    return (
        "device" in last
        or last in ("gpu", "dev", "rank", "local_rank", "gpu_id")
        or r.kinds.of(node) == "number"
    )


@special
def to(r: Rewriter, original: cst.Call, updated: cst.Call, answer: Answer) -> cst.BaseExpression:
    """``x.to(device)`` is ``x``; types stay."""
    whole = receiver(updated)
    types: list[cst.BaseExpression] = []
    for old, new in zip(original.args, updated.args):
        if old.star:
            raise Refused("arguments with stars can't be told apart")
        name = old.keyword.value if old.keyword is not None else None
        if name in ("device", "non_blocking", "copy", "memory_format") or literal(old.value) in (
            True,
            False,
            None,
        ):
            continue
        if name == "dtype" or not _is_device(r, old.value):
            types.append(new.value)
    if not types:
        return whole
    if r.kinds.of(cst.ensure_type(original.func, cst.Attribute).value) in ("module", "parallel"):
        last = text(types[0]).rpartition(".")[2]
        if last not in _TYPES:
            raise Refused("the type of a module's parameters must be written out")
        return cst.Call(func=cst.Attribute(value=whole, attr=cst.Name(last)))
    return updated.with_changes(args=[cst.Arg(t) for t in types])


@special
def cast(r: Rewriter, original: cst.Call, updated: cst.Call, answer: Answer) -> cst.BaseExpression:
    """``x.type(kind)``."""
    if not updated.args:
        return build("str({x}.dtype)", x=receiver(updated))
    kind = updated.args[0].value
    source = r.names.torch(original.args[0].value) or str(literal(original.args[0].value))
    last = source.rpartition(".")[2]
    named = r.tensor_types.get(last)
    if named:
        kind = cst.SimpleString(f'"{named}"')
    return build("{x}.cast({kind})", x=receiver(updated), kind=kind)


@special
def cast_module(r: Rewriter, original: cst.Call, updated: cst.Call, answer: Answer) -> cst.BaseExpression:
    """``module.type(torch.float16)``."""
    last = text(original.args[0].value).rpartition(".")[2] if original.args else ""
    if last not in _TYPES:
        raise Refused("the type must be written out")
    return build("{x}." + last + "()", x=receiver(updated))


@special
def typed_tensor(r: Rewriter, original: Any, updated: Any, answer: Answer) -> cst.BaseExpression:
    """``torch.LongTensor([1, 2])`` makes an array of that type; without brackets it makes one of that shape."""
    name = r.tensor_types[answer.name.rpartition(".")[2]]
    if not isinstance(updated, cst.Call):
        return build("{mf}.Var", mf=r.root())
    if not updated.args:
        return build(f'{{mf}}.zeros([0], dtype="{name}")', mf=r.root())
    if (
        len(updated.args) > 1
        or isinstance(literal(updated.args[0].value), int)
        or r.kinds.of(original.args[0].value) == "number"
    ):
        shape = cst.List([cst.Element(a.value) for a in updated.args])
        return build(f'{{mf}}.zeros({{shape}}, dtype="{name}")', mf=r.root(), shape=shape)
    return build(f'{{mf}}.array({{data}}, "{name}")', mf=r.root(), data=updated.args[0].value)


@special
def tensor_class(r: Rewriter, original: Any, updated: Any, answer: Answer) -> cst.BaseExpression:
    """``torch.Tensor`` as a type is ``Var``; called it is ``FloatTensor``."""
    if not isinstance(updated, cst.Call):
        return build("{mf}.Var", mf=r.root())
    return typed_tensor(r, original, updated, Answer("torch.FloatTensor", answer.rule, None, None))


@special
def data(r: Rewriter, original: cst.Attribute, updated: cst.Attribute, answer: Answer) -> cst.BaseExpression:
    """``x.data`` is ``x`` where it is changed in place, a value without a gradient path elsewhere."""
    parent = r.parents[original]
    if isinstance(parent, cst.AssignTarget):
        return updated
    if isinstance(parent, cst.Attribute) and (
        parent.attr.value.endswith("_") or parent.attr.value == "numpy"
    ):
        return updated.value
    call = r.parents[parent]
    if isinstance(parent, cst.Arg) and isinstance(call, cst.Call):
        name = r.names.torch(call.func) or ""
        if name.startswith("torch.nn.init."):
            return updated.value
    if isinstance(parent, (cst.AugAssign, cst.Subscript)):
        return updated.value
    return build("{x}.detach()", x=updated.value)


@special
def requires_grad(r: Rewriter, original: cst.Call, updated: cst.Call, answer: Answer) -> cst.BaseExpression:
    """``x.requires_grad_(flag)``."""
    if not updated.args:
        return build("{x}.start_grad()", x=receiver(updated))
    value = literal(updated.args[0].value)
    if value in (True, False):
        return build("{x}.start_grad()" if value else "{x}.stop_grad()", x=receiver(updated))
    return build(
        "{x}.start_grad() if {flag} else {x}.stop_grad()", x=receiver(updated), flag=updated.args[0].value
    )


@special
def arange(r: Rewriter, original: cst.Call, updated: cst.Call, answer: Answer) -> cst.BaseExpression:
    """Bounds may be given by name; ``3.0`` makes fractions too, though it is whole."""
    new = r.ordinary(
        original,
        updated,
        answer,
        own="start, end, step, dtype=None",
        theirs="start, end, step, *, dtype=None, device=None, requires_grad=False",
    )
    names = {a.keyword.value for a in original.args if a.keyword is not None}
    floats = [x for a in original.args if isinstance(x := literal(a.value), float)]
    if not floats or not all(x.is_integer() for x in floats) or "dtype" in names:
        return new
    made = cst.ensure_type(new, cst.Call)
    return made.with_changes(args=separated([*made.args, keyword("dtype", cst.SimpleString('"float32"'))]))


@special
def full(r: Rewriter, original: cst.Call, updated: cst.Call, answer: Answer) -> cst.BaseExpression:
    """PyTorch takes the type from the value, metafuse writes float32."""
    given = bound(updated, answer)
    new = r.ordinary(original, updated, answer)
    value = literal(given.get("fill_value", cst.Name("None")))
    if "dtype" not in given and isinstance(value, (bool, int)) and isinstance(new, cst.Call):
        kind = "bool" if isinstance(value, bool) else "int32"
        return new.with_changes(args=separated([*new.args, keyword("dtype", cst.SimpleString(f'"{kind}"'))]))
    return new


@special
def randint(r: Rewriter, original: cst.Call, updated: cst.Call, answer: Answer) -> cst.BaseExpression:
    """``randint(high, size)`` begins at 0."""
    positional = [a for a in updated.args if a.keyword is None and not a.star]
    names = {a.keyword.value for a in updated.args if a.keyword is not None}
    if len(positional) + len(names & {"size", "high", "low"}) == 2:
        comma = cst.Comma(whitespace_after=cst.SimpleWhitespace(" "))
        zero = cst.Arg(cst.Integer("0"), comma=comma)
        args = (
            [keyword("low", zero.value).with_changes(comma=comma), *updated.args]
            if not positional
            else [zero, *updated.args]
        )
        updated = updated.with_changes(args=separated(args))
    return r.ordinary(original, updated, answer)


@special
def new(r: Rewriter, original: cst.Call, updated: cst.Call, answer: Answer) -> cst.BaseExpression:
    """``x.new_zeros(2, 3)`` takes one shape."""
    positional = [a for a in updated.args if a.keyword is None]
    given = {a.keyword.value: a.value for a in updated.args if a.keyword is not None}
    shape = _one_shape(positional) if positional else given.get("size")
    if shape is None:
        raise Refused("needs a shape")
    name = (answer.path or "").rpartition(".")[2]
    made = build(f"{{x}}.{name}({{shape}})", x=receiver(updated), shape=shape)
    return build("{made}.cast({kind})", made=made, kind=given["dtype"]) if "dtype" in given else made


def _one_shape(args: list[cst.Arg]) -> cst.BaseExpression:
    if any(a.star for a in args) or len(args) > 1 or isinstance(literal(args[0].value), int):
        elements: list[cst.BaseElement] = [
            cst.StarredElement(a.value) if a.star else cst.Element(a.value) for a in args
        ]
        return cst.List(elements)
    return args[0].value


@special
def pack(r: Rewriter, original: cst.Call, updated: cst.Call, answer: Answer) -> cst.BaseExpression:
    """Several numbers become one list."""
    name = (answer.path or "").rpartition(".")[2]
    args = list(updated.args)
    if len(args) == 1 and not args[0].star:
        return build(f"{{x}}.{name}({{dims}})", x=receiver(updated), dims=args[0].value)
    return build(f"{{x}}.{name}({{dims}})", x=receiver(updated), dims=_one_shape(args))


@special
def meshgrid(r: Rewriter, original: cst.Call, updated: cst.Call, answer: Answer) -> cst.BaseExpression:
    """Only the order of matrices is offered."""
    kept = []
    for arg in updated.args:
        if arg.keyword is not None and arg.keyword.value == "indexing":
            if literal(arg.value) != "ij":
                raise Refused(f"argument indexing={text(arg.value)} has no counterpart")
        else:
            kept.append(arg)
    if kept:
        kept[-1] = kept[-1].with_changes(comma=cst.MaybeSentinel.DEFAULT)
    return updated.with_changes(func=r.callee(original, answer), args=kept)
