"""Training, data and networks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import libcst as cst

from ..arguments import Refused, bind
from ..lookup import Answer
from ..syntax import build, keyword, literal, plain, separated, text
from .registry import bound, receiver, special

if TYPE_CHECKING:
    from ..rewrite import Rewriter

__all__: list[str] = []  # functions are found by name


@special
def backward(r: Rewriter, original: cst.Call, updated: cst.Call, answer: Answer) -> cst.BaseExpression:
    """``loss.backward()`` for the optimizer that steps next."""
    plan = r.steps.backwards.get(original)
    loss = receiver(updated)
    if plan is None:
        return updated
    given = bind(updated.args, answer.parameters or ()) or {}
    if "gradient" in given and literal(given["gradient"].value) is not None:
        loss = build("({loss} * {gradient}).sum()", loss=loss, gradient=given["gradient"].value)
    if not plan.optimizers:
        raise Refused(
            "no optimizer was found whose step uses these gradients; write optimizer.backward(loss), "
            "or metafuse.grad(loss, arrays)"
        )
    if plan.joined is not None:
        r.joined[original] = loss
        return updated
    more = [keyword("retain_graph", given["retain_graph"].value)] if "retain_graph" in given else []
    if len(plan.optimizers) > 1 and not more:
        more = [keyword("retain_graph", cst.Name("True"))]
    calls = [
        cst.Call(
            func=cst.ensure_type(cst.parse_expression(f"{o}.backward"), cst.Attribute),
            args=separated([cst.Arg(loss), *more]),
        )
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
    """``clip_grad_norm_(parameters, max_norm)`` or ``clip_grad_value_(parameters, clip_value)`` on the optimizer that steps
    next."""
    if not isinstance(updated, cst.Call):
        raise Refused("only calls of it are converted")
    name = (answer.path or "").rpartition(".")[2]
    limit = "max_norm" if name == "clip_grad_norm" else "clip_value"
    given = bound(updated, answer)
    optimizers = r.steps.next_optimizers(original)
    if not optimizers or limit not in given:
        raise Refused(
            f"no optimizer was found whose step uses these gradients; write optimizer.{name}({limit})"
        )
    args = [cst.Arg(given[part]) for part in (limit, "norm_type") if part in given]
    return cst.Call(
        func=cst.ensure_type(cst.parse_expression(f"{optimizers[0]}.{name}"), cst.Attribute),
        args=separated(args),
    )


@special
def grad(r: Rewriter, original: cst.Call, updated: cst.Call, answer: Answer) -> cst.BaseExpression:
    """``torch.autograd.grad`` answers one gradient per input, always several."""
    given = bound(updated, answer)
    olds = bind(original.args, answer.parameters or ()) or {}
    outputs, inputs = given["outputs"], given["inputs"]
    if "grad_outputs" in given and literal(given["grad_outputs"]) is not None:
        outputs = build("({y} * {g}).sum()", y=_single(outputs), g=_single(given["grad_outputs"]))
    old = olds["inputs"].value
    if isinstance(old, (cst.Name, cst.Attribute, cst.Subscript)) and r.kinds.of(old) not in (
        "other",
        "parameters",
    ):
        inputs = cst.List([cst.Element(inputs)])
    return build("{mf}.grad({y}, {x})", mf=r.root(), y=_single(outputs), x=inputs)


def _single(node: cst.BaseExpression) -> cst.BaseExpression:
    if isinstance(node, (cst.List, cst.Tuple)) and len(node.elements) == 1:
        return node.elements[0].value
    return node


@special
def grad_of(
    r: Rewriter, original: cst.Attribute, updated: cst.Attribute, answer: Answer
) -> cst.BaseExpression:
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
        return build("{x}.train()" if value else "{x}.eval()", x=receiver(updated))
    return build("{x}.train() if {flag} else {x}.eval()", x=receiver(updated), flag=flag)


@special
def walked(r: Rewriter, original: cst.Call, updated: cst.Call, answer: Answer) -> cst.BaseExpression:
    """``parameters()`` that the script itself walks over: metafuse's answers running statistics too unless told otherwise."""
    new = cst.ensure_type(r.ordinary(original, updated, answer), cst.Call)
    parent = r.parents[original]
    call = r.parents[parent] if isinstance(parent, cst.Arg) else None
    by_itself = isinstance(parent, (cst.For, cst.CompFor, cst.Assign)) or (
        isinstance(call, cst.Call) and r.names.built_in(call.func) and text(call.func) not in ("next", "iter")
    )
    if not by_itself or r.framework != "metafuse":
        return new
    return new.with_changes(args=separated([*new.args, keyword("buffers", cst.Name("False"))]))


@special
def table(r: Rewriter, original: cst.Call, updated: cst.Call, answer: Answer) -> cst.BaseExpression:
    """PyTorch's row of padding takes no gradient."""
    if not isinstance(updated, cst.Call):
        return r.callee(original, answer)
    given = bind(updated.args, answer.parameters or ()) or {}
    new = cst.ensure_type(r.ordinary(original, updated, answer), cst.Call)
    if "padding_idx" not in given or literal(given["padding_idx"].value) is None:
        return new
    return new.with_changes(args=separated([*new.args, keyword("train_padding", cst.Name("False"))]))


@special
def buffer(r: Rewriter, original: cst.Call, updated: cst.Call, answer: Answer) -> cst.BaseExpression:
    """A buffer that is ``None`` is an attribute."""
    given = bound(updated, answer)
    if literal(given.get("tensor", cst.Name("None"))) is None:
        return build("setattr({x}, {name}, None)", x=receiver(updated), name=given["name"])
    names = {"name": "key", "tensor": "value"}
    args = [
        a if a.keyword is None else plain(a, names.get(a.keyword.value, a.keyword.value))
        for a in updated.args
    ]
    return updated.with_changes(args=args)


@special
def unwrap(
    r: Rewriter, original: cst.Attribute, updated: cst.Attribute, answer: Answer
) -> cst.BaseExpression:
    """``model.module`` of what was ``DistributedDataParallel`` is the model."""
    return updated.value


@special
def autocast(r: Rewriter, original: cst.Call, updated: cst.Call, answer: Answer) -> cst.BaseExpression:
    """The type is named by a text; on CUDA it is float16 unless given."""
    if not isinstance(updated, cst.Call):
        raise Refused("only calls of it are converted")
    given = bound(updated, answer)
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
    given = bound(updated, answer)
    if "epochs" in given and "steps_per_epoch" in given:
        total = build("{a} * {b}", a=given["epochs"], b=given["steps_per_epoch"])
        kept = [
            a
            for a in updated.args
            if a.keyword is None or a.keyword.value not in ("epochs", "steps_per_epoch", "total_steps")
        ]
        return r.ordinary(
            original, updated.with_changes(args=separated([*kept, keyword("total_steps", total)])), answer
        )
    return r.ordinary(original, updated, answer)


@special
def schedule(r: Rewriter, original: cst.Call, updated: cst.Call, answer: Answer) -> cst.BaseExpression:
    """PyTorch's constructors make a first step, so that training begins at epoch 0."""
    if not isinstance(updated, cst.Call):
        return r.callee(original, answer)
    given = bound(updated, answer)
    if "last_epoch" in given and literal(given["last_epoch"]) != -1:
        raise Refused("only schedules that begin at the beginning are converted")
    place = [p.name for p in answer.parameters or ()].index("last_epoch")
    kept = [
        a
        for k, a in enumerate(updated.args)
        if k != place and (a.keyword is None or a.keyword.value != "last_epoch")
    ]
    if kept:
        kept[-1] = kept[-1].with_changes(
            comma=updated.args[-1].comma, whitespace_after_arg=updated.args[-1].whitespace_after_arg
        )
    return r.ordinary(original, updated.with_changes(args=separated(kept)), answer)


@special
def all_reduce(r: Rewriter, original: cst.Call, updated: cst.Call, answer: Answer) -> cst.BaseExpression:
    """In place, as PyTorch does it."""
    given = bound(updated, answer)
    op = given.get("op", cst.SimpleString('"add"'))
    if set(given) - {"tensor", "op", "dst"} or not isinstance(op, cst.SimpleString):
        raise Refused("groups and other ways to reduce: see docs/distributed.md")
    return build(answer.rule.template, tensor=given["tensor"], op=op)


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
        if name == "sampler" and (
            r.kinds.of(old.value) in ("distsampler", "none") or "istributed" in text(old.value)
        ):
            spread = spread or r.kinds.of(old.value) != "none"
            continue
        if name not in known or (
            name in ("collate_batch", "shuffle", "sampler") and literal(arg.value) is None
        ):
            continue
        kept.append(plain(arg, None if k < 2 and arg.keyword is None else name))
    named = {a.keyword.value for a in kept if a.keyword is not None}
    sized = "batch_size" in named or len([a for a in kept if a.keyword is None]) > 1
    if not sized and "sampler" not in named:
        kept.append(keyword("batch_size", cst.Integer("1")))
    if spread:
        kept = [
            _all_ranks(r, a) if a.keyword is not None and a.keyword.value == "batch_size" else a for a in kept
        ]
        if "shuffle" not in named:
            kept.append(keyword("shuffle", cst.Name("True")))
    if r.framework == "metafuse" and _is_shared(r, original):
        kept.append(keyword("copy", cst.Name("True")))
    if kept and original.args:
        kept[-1] = kept[-1].with_changes(
            comma=original.args[-1].comma, whitespace_after_arg=original.args[-1].whitespace_after_arg
        )
    return updated.with_changes(func=r.callee(original, answer), args=separated(kept))


def _loaded(node: cst.Call) -> str:
    """The data set of a loader, if it has a name; a parameter stands for more than one."""
    for k, arg in enumerate(node.args):
        if arg.keyword.value == "dataset" if arg.keyword is not None else k == 0:
            return text(arg.value).strip() if isinstance(arg.value, (cst.Name, cst.Attribute)) else ""
    return ""


def _is_shared(r: Rewriter, node: cst.Call) -> bool:
    """Whether several loaders of the script go, or may go, over one data set, which can't be the loader of all then."""
    name = _loaded(node)
    scope = r.kinds.scopes(node)[0]
    if isinstance(scope, cst.FunctionDef) and name in {p.name.value for p in scope.params.params}:
        return True
    others = (n for n in r.parents if isinstance(n, cst.Call) and n is not node and _loaded(n) == name != "")
    return any((r.names.torch(n.func) or "").endswith(".DataLoader") for n in others)


@special
def subset(r: Rewriter, original: cst.Call, updated: cst.Call, answer: Answer) -> cst.BaseExpression:
    """A sampler of given indices; metafuse's takes its data set first, which it does not need."""
    if not isinstance(updated, cst.Call):
        return r.callee(original, answer)
    indices = bound(updated, answer)["indices"]
    return build("{sampler}(None, {indices})", sampler=r.callee(original, answer), indices=indices)


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
                r.note(
                    original, "weights are not downloaded: register_weights says what pretrained=True means"
                )
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
