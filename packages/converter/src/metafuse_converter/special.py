"""Calls and attributes that need more than a rule's table entry: one function each, named by ``Rule.special``.

What it is: functions ``(rewriter, original, updated, answer) -> expression``. ``original`` is the node as it was, which may be asked
for its kind; ``updated`` has its parts converted already.
What it is not: the ordinary way (``arguments``), which many of these end in by ``rewriter.ordinary``.
Who calls it: ``rewrite``. ``Refused`` says that a call can't be expressed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import libcst as cst

from .arguments import Refused, bind
from .lookup import Answer
from .syntax import build, keyword, literal, plain, separated, text

if TYPE_CHECKING:
    from .rewrite import Rewriter

__all__ = ["SPECIAL"]

Special = Callable[["Rewriter", Any, Any, Answer], cst.BaseExpression]
SPECIAL: dict[str, Special] = {}


def special(function: Special) -> Special:
    """Make a function known by its name."""
    SPECIAL[function.__name__] = function
    return function


def _bound(updated: cst.Call, answer: Answer) -> dict[str, cst.BaseExpression]:
    found = bind(updated.args, answer.parameters or ())
    if found is None:
        raise Refused("arguments with stars can't be told apart")
    return {name: arg.value for name, arg in found.items()}


def _receiver(updated: cst.Call) -> cst.BaseExpression:
    return cst.ensure_type(updated.func, cst.Attribute).value


def _is_method(r: Rewriter, original: cst.Call) -> bool:
    return r.names.torch(original.func) is None


# -- calls that become one of their parts -------------------------------------------------------------------------------
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
    """A decorator that does nothing here, or a call with a function."""
    if isinstance(updated, cst.Call) and updated.args:
        return updated.args[0].value
    return cst.parse_expression("(lambda function: function)")


@special
def checkpoint(r: Rewriter, original: cst.Call, updated: cst.Call, answer: Answer) -> cst.BaseExpression:
    """``checkpoint(function, x)`` is ``function(x)``."""
    if not isinstance(updated, cst.Call) or not updated.args or updated.args[0].keyword or updated.args[0].star:
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


# -- types and devices ----------------------------------------------------------------------------------------------------
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


_TYPES = ("float16", "float32", "float64", "bfloat16", "int8", "int16", "int32", "int64", "uint8", "bool", "float", "double", "half", "long", "int", "short")


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
    return "device" in last or last in ("gpu", "dev", "rank", "local_rank", "gpu_id") or r.kinds.of(node) == "number"


@special
def to(r: Rewriter, original: cst.Call, updated: cst.Call, answer: Answer) -> cst.BaseExpression:
    """``x.to(device)`` is ``x``; types stay."""
    receiver = _receiver(updated)
    types: list[cst.BaseExpression] = []
    for old, new in zip(original.args, updated.args):
        if old.star:
            raise Refused("arguments with stars can't be told apart")
        name = old.keyword.value if old.keyword is not None else None
        if name in ("device", "non_blocking", "copy", "memory_format") or literal(old.value) in (True, False, None):
            continue
        if name == "dtype" or not _is_device(r, old.value):
            types.append(new.value)
    if not types:
        return receiver
    if r.kinds.of(cst.ensure_type(original.func, cst.Attribute).value) in ("module", "parallel"):
        last = text(types[0]).rpartition(".")[2]
        if last not in _TYPES:
            raise Refused("the type of a module's parameters must be written out")
        return cst.Call(func=cst.Attribute(value=receiver, attr=cst.Name(last)))
    return updated.with_changes(args=[cst.Arg(t) for t in types])


@special
def cast(r: Rewriter, original: cst.Call, updated: cst.Call, answer: Answer) -> cst.BaseExpression:
    """``x.type(kind)``."""
    if not updated.args:
        return build("str({x}.dtype)", x=_receiver(updated))
    kind = updated.args[0].value
    source = r.names.torch(original.args[0].value) or str(literal(original.args[0].value))
    last = source.rpartition(".")[2]
    named = r.tensor_types.get(last)
    if named:
        kind = cst.SimpleString(f'"{named}"')
    return build("{x}.cast({kind})", x=_receiver(updated), kind=kind)


@special
def cast_module(r: Rewriter, original: cst.Call, updated: cst.Call, answer: Answer) -> cst.BaseExpression:
    """``module.type(torch.float16)``."""
    last = text(original.args[0].value).rpartition(".")[2] if original.args else ""
    if last not in _TYPES:
        raise Refused("the type must be written out")
    return build("{x}." + last + "()", x=_receiver(updated))


@special
def typed_tensor(r: Rewriter, original: Any, updated: Any, answer: Answer) -> cst.BaseExpression:
    """``torch.LongTensor([1, 2])`` makes an array of that type; without brackets it makes one of that shape."""
    name = r.tensor_types[answer.name.rpartition(".")[2]]
    if not isinstance(updated, cst.Call):
        return build("{mf}.Var", mf=r.root())
    if not updated.args:
        return build(f'{{mf}}.zeros([0], dtype="{name}")', mf=r.root())
    if len(updated.args) > 1 or isinstance(literal(updated.args[0].value), int) or r.kinds.of(original.args[0].value) == "number":
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
    if isinstance(parent, cst.Attribute) and (parent.attr.value.endswith("_") or parent.attr.value == "numpy"):
        return updated.value
    if isinstance(parent, cst.Arg) and isinstance(r.parents[parent], cst.Call):
        name = r.names.torch(r.parents[parent].func) or ""
        if name.startswith("torch.nn.init."):
            return updated.value
    if isinstance(parent, (cst.AugAssign, cst.Subscript)):
        return updated.value
    return build("{x}.detach()", x=updated.value)


@special
def requires_grad(r: Rewriter, original: cst.Call, updated: cst.Call, answer: Answer) -> cst.BaseExpression:
    """``x.requires_grad_(flag)``."""
    if not updated.args:
        return build("{x}.start_grad()", x=_receiver(updated))
    value = literal(updated.args[0].value)
    if value in (True, False):
        return build("{x}.start_grad()" if value else "{x}.stop_grad()", x=_receiver(updated))
    return build("{x}.start_grad() if {flag} else {x}.stop_grad()", x=_receiver(updated), flag=updated.args[0].value)


# -- making arrays --------------------------------------------------------------------------------------------------------
@special
def arange(r: Rewriter, original: cst.Call, updated: cst.Call, answer: Answer) -> cst.BaseExpression:
    """Bounds may be given by name."""
    return r.ordinary(original, updated, answer, own="start, end, step, dtype=None", theirs="start, end, step, *, dtype=None, device=None, requires_grad=False")


@special
def full(r: Rewriter, original: cst.Call, updated: cst.Call, answer: Answer) -> cst.BaseExpression:
    """PyTorch takes the type from the value, metafuse writes float32."""
    given = _bound(updated, answer)
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
        args = [keyword("low", zero.value).with_changes(comma=comma), *updated.args] if not positional else [zero, *updated.args]
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
    made = build(f"{{x}}.{name}({{shape}})", x=_receiver(updated), shape=shape)
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
        return build(f"{{x}}.{name}({{dims}})", x=_receiver(updated), dims=args[0].value)
    return build(f"{{x}}.{name}({{dims}})", x=_receiver(updated), dims=_one_shape(args))


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


# -- reductions -------------------------------------------------------------------------------------------------------------
@special
def extreme(r: Rewriter, original: cst.Call, updated: cst.Call, answer: Answer) -> cst.BaseExpression:
    """``max``: of everything, along a dimension (with the places), or of two arrays."""
    method = _is_method(r, original)
    name = answer.name.rpartition(".")[2]
    if method:
        kind = r.kinds.of(cst.ensure_type(original.func, cst.Attribute).value)
        if kind != "tensor" and not (r.is_taken_apart(original) and original.args):
            return updated
    positional = [a for a in updated.args if a.keyword is None]
    old = [a for a in original.args if a.keyword is None]
    names = {a.keyword.value for a in updated.args if a.keyword is not None}
    rest, olds = (positional, old) if method else (positional[1:], old[1:])
    x = _receiver(updated) if method else positional[0].value if positional else None
    if "other" in names or (rest and not _is_dimension(r, olds[0].value)):
        second = next((a.value for a in updated.args if a.keyword is not None and a.keyword.value == "other"), None)
        return build(f"{{mf}}.{name}imum({{x}}, {{y}})", mf=r.root(), x=x or cst.Name("None"), y=second or rest[0].value)
    if not rest and not names & {"dim"}:
        return r.ordinary(original, updated, answer, path=f"Var.{name}" if method else name)
    path = f"arg{name}"
    call = r.ordinary(original, updated, answer, path=f"Var.{path}" if method else path)
    return build("{call}[::-1]", call=call)


def _is_dimension(r: Rewriter, node: cst.BaseExpression) -> bool:
    if isinstance(literal(node), int) or r.kinds.of(node) == "number":
        return True
    shown = text(node).lower()
    return r.kinds.of(node) is None and ("dim" in shown or "axis" in shown)


@special
def middle(r: Rewriter, original: cst.Call, updated: cst.Call, answer: Answer) -> cst.BaseExpression:
    """``median`` without a dimension; with one PyTorch answers places too."""
    method = _is_method(r, original)
    if len(updated.args) > (0 if method else 1):
        raise Refused("answers no places; use kthvalue")
    return r.ordinary(original, updated, answer, path="Var.median" if method else "median")


@special
def variance(r: Rewriter, original: cst.Call, updated: cst.Call, answer: Answer) -> cst.BaseExpression:
    """``var``: a first argument that is a truth value is ``unbiased``."""
    place = 0 if _is_method(r, original) else 1
    if len(updated.args) > place and updated.args[place].keyword is None and isinstance(literal(updated.args[place].value), bool):
        args = [plain(a, "unbiased") if k == place else a for k, a in enumerate(updated.args)]
        updated = updated.with_changes(args=args)
    return r.ordinary(original, updated, answer)


@special
def norm(r: Rewriter, original: cst.Call, updated: cst.Call, answer: Answer) -> cst.BaseExpression:
    """Without a dimension PyTorch takes the norm of everything."""
    method = _is_method(r, original)
    given = _bound(updated, answer)
    x = _receiver(updated) if method else given.pop("input")
    order = given.pop("p", None) or given.pop("ord", None)
    if order is not None and literal(order) in ("fro", None):
        order = None
    if set(given) - {"dim", "keepdim", "dtype", "out"} or ("dtype" in given and literal(given["dtype"]) is not None):
        raise Refused("arguments have no counterpart")
    flat = "dim" not in given or literal(given["dim"]) is None
    args = [cst.Arg(order)] if order is not None else []
    if not flat:
        args.append(keyword("dim", given["dim"]))
    if "keepdim" in given:
        args.append(keyword("keepdim", given["keepdim"]))
    base = build("{x}.flatten()", x=x) if flat else x
    return cst.Call(func=build("{x}.norm", x=base), args=separated(args))


@special
def division(r: Rewriter, original: cst.Call, updated: cst.Call, answer: Answer) -> cst.BaseExpression:
    """``div`` with a rounding mode."""
    given = _bound(updated, answer)
    mode = literal(given.get("rounding_mode", cst.Name("None")))
    if mode is None:
        return build("{mf}.divide({x}, {y})", mf=r.root(), x=given["input"], y=given["other"])
    if mode == "floor":
        return build("{mf}.floor_divide({x}, {y})", mf=r.root(), x=given["input"], y=given["other"])
    raise Refused(f"argument rounding_mode={mode!r} has no counterpart")


@special
def averaged(r: Rewriter, original: cst.Call, updated: cst.Call, answer: Answer) -> cst.BaseExpression:
    """Losses that have ``size_average`` in the place of ``reduction``."""
    if not isinstance(updated, cst.Call):
        return r.callee(original, answer)
    given = bind(updated.args, answer.parameters or ())
    if given is None:
        raise Refused("arguments with stars can't be told apart")
    reduction = given.get("reduction")
    how = literal(reduction.value) if reduction is not None else "mean"
    if how not in ("mean", "sum"):
        raise Refused(f"argument reduction={how!r} has no counterpart")
    kept = [a for a in updated.args if a is not reduction]
    if how == "sum":
        kept.append(keyword("size_average", cst.Name("False")))
    if kept:
        kept[-1] = kept[-1].with_changes(comma=cst.MaybeSentinel.DEFAULT)
    return r.ordinary(original, updated.with_changes(args=separated(kept)), answer)


@special
def upsample(r: Rewriter, original: cst.Call, updated: cst.Call, answer: Answer) -> cst.BaseExpression:
    """Layers know factors only."""
    given = _bound(updated, answer)
    if literal(given.get("size", cst.Name("None"))) is not None:
        raise Refused("argument size has no counterpart; use nn.interpolate")
    kept = [a if a.keyword is not None else plain(a, (answer.parameters or ())[k].name) for k, a in enumerate(updated.args)]
    kept = [a for a in kept if a.keyword is not None and a.keyword.value != "size"]
    return r.ordinary(original, updated.with_changes(args=separated(kept)), answer)


# -- training ---------------------------------------------------------------------------------------------------------------
@special
def backward(r: Rewriter, original: cst.Call, updated: cst.Call, answer: Answer) -> cst.BaseExpression:
    """``loss.backward()`` for the optimizer that steps next."""
    plan = r.steps.backwards.get(original)
    loss = _receiver(updated)
    if plan is None:
        return updated
    given = bind(updated.args, answer.parameters or ()) or {}
    if "gradient" in given and literal(given["gradient"].value) is not None:
        loss = build("({loss} * {gradient}).sum()", loss=loss, gradient=given["gradient"].value)
    if not plan.optimizers:
        raise Refused("no optimizer was found whose step uses these gradients; write optimizer.backward(loss), or metafuse.grad(loss, arrays)")
    if plan.joined is not None:
        r.joined[original] = loss
        return updated
    more = [keyword("retain_graph", given["retain_graph"].value)] if "retain_graph" in given else []
    if len(plan.optimizers) > 1 and not more:
        more = [keyword("retain_graph", cst.Name("True"))]
    calls = [
        cst.Call(func=cst.ensure_type(cst.parse_expression(f"{o}.backward"), cst.Attribute), args=separated([cst.Arg(loss), *more]))
        for o in plan.optimizers
    ]
    return calls[0] if len(calls) == 1 else cst.Tuple([cst.Element(c) for c in calls])


@special
def optimizer_step(r: Rewriter, original: cst.Call, updated: cst.Call, answer: Answer) -> cst.BaseExpression:
    """A step without a closure."""
    if updated.args:
        raise Refused("a step with a closure has no counterpart")
    return updated


@special
def zero_grad(r: Rewriter, original: cst.Call, updated: cst.Call, answer: Answer) -> cst.BaseExpression:
    """Gradients are the optimizers'."""
    module = text(cst.ensure_type(original.func, cst.Attribute).value).strip()
    optimizers = r.steps.of_module(module) or r.steps.next_optimizers(original)
    if not optimizers:
        raise Refused("no optimizer was found that has this module's parameters; write optimizer.zero_grad()")
    calls = [cst.parse_expression(f"{o}.zero_grad()") for o in optimizers]
    return calls[0] if len(calls) == 1 else cst.Tuple([cst.Element(c) for c in calls])


@special
def clip(r: Rewriter, original: cst.Call, updated: cst.Call, answer: Answer) -> cst.BaseExpression:
    """``clip_grad_norm_(parameters, max_norm)`` on the optimizer that steps next."""
    if not isinstance(updated, cst.Call):
        raise Refused("only calls of it are converted")
    given = _bound(updated, answer)
    optimizers = r.steps.next_optimizers(original)
    if not optimizers or "max_norm" not in given:
        raise Refused("no optimizer was found whose step uses these gradients; write optimizer.clip_grad_norm(max_norm)")
    if not r.is_statement(original):
        r.note(original, "clip_grad_norm answers nothing, PyTorch's answers the norm")
    args = [cst.Arg(given["max_norm"]), *([cst.Arg(given["norm_type"])] if "norm_type" in given else [])]
    return cst.Call(func=cst.ensure_type(cst.parse_expression(f"{optimizers[0]}.clip_grad_norm"), cst.Attribute), args=separated(args))


@special
def grad(r: Rewriter, original: cst.Call, updated: cst.Call, answer: Answer) -> cst.BaseExpression:
    """``torch.autograd.grad`` answers one gradient per input, always several."""
    given = _bound(updated, answer)
    olds = bind(original.args, answer.parameters or ()) or {}
    outputs, inputs = given["outputs"], given["inputs"]
    if "grad_outputs" in given and literal(given["grad_outputs"]) is not None:
        outputs = build("({y} * {g}).sum()", y=_single(outputs), g=_single(given["grad_outputs"]))
    old = olds["inputs"].value
    if isinstance(old, (cst.Name, cst.Attribute, cst.Subscript)) and r.kinds.of(old) not in ("other", "parameters"):
        inputs = cst.List([cst.Element(inputs)])
    return build("{mf}.grad({y}, {x})", mf=r.root(), y=_single(outputs), x=inputs)


def _single(node: cst.BaseExpression) -> cst.BaseExpression:
    if isinstance(node, (cst.List, cst.Tuple)) and len(node.elements) == 1:
        return node.elements[0].value
    return node


@special
def grad_of(r: Rewriter, original: cst.Attribute, updated: cst.Attribute, answer: Answer) -> cst.BaseExpression:
    """``p.grad`` is kept by an optimizer."""
    parent = r.parents[original]
    optimizers = r.steps.next_optimizers(original)
    if isinstance(parent, (cst.AssignTarget, cst.AugAssign)) or not optimizers:
        r.refuse(original, "torch.Tensor.grad", "gradients are kept by optimizers: x.opt_grad(optimizer)")
        return updated
    return build(f"{{x}}.opt_grad({optimizers[0]})", x=updated.value)


@special
def train(r: Rewriter, original: cst.Call, updated: cst.Call, answer: Answer) -> cst.BaseExpression:
    """``train(mode)``."""
    if not updated.args:
        return updated
    flag = updated.args[0].value
    value = literal(flag)
    if value in (True, False):
        return build("{x}.train()" if value else "{x}.eval()", x=_receiver(updated))
    return build("{x}.train() if {flag} else {x}.eval()", x=_receiver(updated), flag=flag)


@special
def buffer(r: Rewriter, original: cst.Call, updated: cst.Call, answer: Answer) -> cst.BaseExpression:
    """A buffer that is ``None`` is an attribute."""
    given = _bound(updated, answer)
    if literal(given.get("tensor", cst.Name("None"))) is None:
        return build("setattr({x}, {name}, None)", x=_receiver(updated), name=given["name"])
    names = {"name": "key", "tensor": "value"}
    args = [a if a.keyword is None else plain(a, names.get(a.keyword.value, a.keyword.value)) for a in updated.args]
    return updated.with_changes(args=args)


@special
def unwrap(r: Rewriter, original: cst.Attribute, updated: cst.Attribute, answer: Answer) -> cst.BaseExpression:
    """``model.module`` of what was ``DistributedDataParallel`` is the model."""
    return updated.value


@special
def autocast(r: Rewriter, original: cst.Call, updated: cst.Call, answer: Answer) -> cst.BaseExpression:
    """The type is named by a text; on CUDA it is float16 unless given."""
    if not isinstance(updated, cst.Call):
        raise Refused("only calls of it are converted")
    given = _bound(updated, answer)
    olds = bind(original.args, answer.parameters or ()) or {}
    args: list[cst.Arg] = []
    if "enabled" in given:
        args.append(keyword("enabled", given["enabled"]))
    kind = literal(given.get("device_type", cst.SimpleString('"cuda"')))
    if "dtype" in given:
        name = (r.names.torch(olds["dtype"].value) or "").rpartition(".")[2]
        name = {"half": "float16"}.get(name, name)
        if name in ("float16", "bfloat16"):
            args.append(keyword("dtype", cst.SimpleString(f'"{name}"')))
        else:
            args.append(keyword("dtype", build("str({kind})", kind=given["dtype"])))
    elif kind != "cpu":
        args.append(keyword("dtype", cst.SimpleString('"float16"')))
    return cst.Call(func=r.callee(original, answer), args=separated(args))


@special
def one_cycle(r: Rewriter, original: cst.Call, updated: cst.Call, answer: Answer) -> cst.BaseExpression:
    """Steps are counted, not epochs."""
    given = _bound(updated, answer)
    if "epochs" in given and "steps_per_epoch" in given:
        total = build("{a} * {b}", a=given["epochs"], b=given["steps_per_epoch"])
        kept = [a for a in updated.args if a.keyword is None or a.keyword.value not in ("epochs", "steps_per_epoch", "total_steps")]
        return r.ordinary(original, updated.with_changes(args=separated([*kept, keyword("total_steps", total)])), answer)
    return r.ordinary(original, updated, answer)


@special
def schedule(r: Rewriter, original: cst.Call, updated: cst.Call, answer: Answer) -> cst.BaseExpression:
    """PyTorch's constructors make a first step, so that training begins at epoch 0."""
    if not isinstance(updated, cst.Call):
        return r.callee(original, answer)
    given = _bound(updated, answer)
    if "last_epoch" in given and literal(given["last_epoch"]) != -1:
        raise Refused("only schedules that begin at the beginning are converted")
    place = [p.name for p in answer.parameters or ()].index("last_epoch")
    kept = [a for k, a in enumerate(updated.args) if k != place and (a.keyword is None or a.keyword.value != "last_epoch")]
    if kept:
        kept[-1] = kept[-1].with_changes(comma=updated.args[-1].comma, whitespace_after_arg=updated.args[-1].whitespace_after_arg)
    return r.ordinary(original, updated.with_changes(args=separated(kept)), answer)


@special
def all_reduce(r: Rewriter, original: cst.Call, updated: cst.Call, answer: Answer) -> cst.BaseExpression:
    """In place, as PyTorch does it."""
    given = _bound(updated, answer)
    op = given.get("op", cst.SimpleString('"add"'))
    if set(given) - {"tensor", "op", "dst"} or not isinstance(op, cst.SimpleString):
        raise Refused("groups and other ways to reduce: see docs/distributed.md")
    return build(answer.rule.template, tensor=given["tensor"], op=op)


# -- data and networks --------------------------------------------------------------------------------------------------------
@special
def loader(r: Rewriter, original: cst.Call, updated: cst.Call, answer: Answer) -> cst.BaseExpression:
    """A loader is its data set with options."""
    if not isinstance(updated, cst.Call):
        return r.callee(original, answer)
    names = {"collate_fn": "collate_batch", "batch_sampler": "sampler"}
    known = ("dataset", "batch_size", "shuffle", "drop_last", "num_workers", "sampler", "collate_batch")
    kept: list[cst.Arg] = []
    spread = False
    parameters = answer.parameters or ()
    for k, (old, arg) in enumerate(zip(original.args, updated.args)):
        if arg.star:
            return updated.with_changes(func=r.callee(original, answer))
        name = arg.keyword.value if arg.keyword is not None else parameters[k].name
        name = names.get(name, name)
        if name == "sampler" and (r.kinds.of(old.value) in ("distsampler", "none") or "istributed" in text(old.value)):
            spread = spread or r.kinds.of(old.value) != "none"
            continue
        if name not in known or (name in ("collate_batch", "shuffle", "sampler") and literal(arg.value) is None):
            continue
        kept.append(plain(arg, None if k < 2 and arg.keyword is None else name))
    named = {a.keyword.value for a in kept if a.keyword is not None}
    sized = "batch_size" in named or len([a for a in kept if a.keyword is None]) > 1
    if not sized and "sampler" not in named:
        kept.append(keyword("batch_size", cst.Integer("1")))
    if spread:
        kept = [_all_ranks(r, a) if a.keyword is not None and a.keyword.value == "batch_size" else a for a in kept]
        if "shuffle" not in named:
            kept.append(keyword("shuffle", cst.Name("True")))
    if kept and original.args:
        kept[-1] = kept[-1].with_changes(
            comma=original.args[-1].comma, whitespace_after_arg=original.args[-1].whitespace_after_arg
        )
    return updated.with_changes(func=r.callee(original, answer), args=separated(kept))


def _all_ranks(r: Rewriter, arg: cst.Arg) -> cst.Arg:
    return arg.with_changes(value=build("{size} * {mf}.world_size", size=arg.value, mf=r.root()))


@special
def network(r: Rewriter, original: cst.Call, updated: cst.Call, answer: Answer) -> cst.BaseExpression:
    """No weights come with metafuse-models."""
    if not isinstance(updated, cst.Call):
        return r.callee(original, answer)
    kept = []
    for arg in updated.args:
        name = arg.keyword.value if arg.keyword is not None else "pretrained"
        if name in ("weights", "pretrained"):
            if literal(arg.value) not in (None, False):
                r.note(original, "weights are not downloaded: register_weights says what pretrained=True means")
                kept.append(keyword("pretrained", cst.Name("True")).with_changes(comma=arg.comma))
        elif name != "progress":
            kept.append(arg)
    if kept:
        kept[-1] = kept[-1].with_changes(comma=cst.MaybeSentinel.DEFAULT)
    return updated.with_changes(func=r.callee(original, answer), args=separated(kept))


@special
def resize(r: Rewriter, original: cst.Call, updated: cst.Call, answer: Answer) -> cst.BaseExpression:
    """One number is the shorter side in torchvision, both sides here."""
    if isinstance(updated, cst.Call) and updated.args and isinstance(literal(updated.args[0].value), int):
        r.note(original, "Resize of one number makes both sides that long; torchvision keeps the ratio")
    return r.ordinary(original, updated, answer)
