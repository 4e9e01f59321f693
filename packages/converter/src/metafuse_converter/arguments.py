"""Arguments of a call: from PyTorch's parameters to metafuse's.

What it is: the one place where arguments are named, moved, left out and added, from the two parameter lists and a rule.
What it is not: rules (``table``), or what stands around the call (``rewrite``).
Who calls it: ``rewrite``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import libcst as cst

from .lookup import Answer, Parameter, counterpart
from .syntax import keyword, literal, plain, separated, text

__all__ = ["Arguments", "Refused", "bind", "convert"]

#: parameters that say where or how PyTorch stores and computes things, which metafuse decides for all arrays at once
WITHOUT_MEANING = frozenset({
    "device", "layout", "pin_memory", "memory_format", "non_blocking", "inplace", "foreach", "fused", "capturable",
    "differentiable",
    "generator", "requires_grad", "_stacklevel", "pickle_module", "pickle_protocol", "weights_only", "map_location", "mmap",
    "set_to_none", "verbose", "sparse_grad", "implicit", "sorted_", "create_graph", "allow_unused", "only_inputs",
    "is_grads_batched",
    "materialize_grads", "persistent_workers", "prefetch_factor", "pin_memory_device", "in_order", "timeout",
    "multiprocessing_context", "worker_init_fn", "track_running_stats", "assign", "strict", "copy",
})  # fmt: skip


class Refused(Exception):
    """A call that can't be expressed; the text says why."""


@dataclass
class Arguments:
    """What a call hands over: new arguments, and what is to be made of the result."""

    args: list[cst.Arg]
    cast: cst.BaseExpression | None = None
    left_out: list[str] = field(default_factory=list)


def bind(args: Sequence[cst.Arg], parameters: Sequence[Parameter]) -> dict[str, cst.Arg] | None:
    """The arguments by the name of their parameter; ``None`` where stars or more positions than parameters make that unknown."""
    found: dict[str, cst.Arg] = {}
    for k, arg in enumerate(args):
        if arg.star:
            return None
        if arg.keyword is not None:
            found[arg.keyword.value] = arg
        elif k < len(parameters) and not parameters[k].by_name and not parameters[k].gathers:
            found[parameters[k].name] = arg
        else:
            return None
    return found


def convert(
    args: Sequence[cst.Arg],
    answer: Answer,
    own: Sequence[Parameter] | None,
    makes_tensor: bool,
    method: bool = False,
) -> Arguments:
    """The arguments as metafuse takes them. Errors: ``Refused``."""
    return _Conversion(answer, own, makes_tensor, method).run(list(args))


class _Conversion:
    """One call on its way."""

    def __init__(
        self, answer: Answer, own: Sequence[Parameter] | None, makes_tensor: bool, method: bool
    ) -> None:
        self.answer, self.rule = answer, answer.rule
        self.theirs = answer.parameters
        self.own = tuple(own) if own is not None else None
        self.makes_tensor, self.method = makes_tensor, method
        self.result = Arguments([])
        self.names: set[str] = set()  # of metafuse's parameters that have been given
        self.by_name = False  # whether an argument was given by name, so that those that follow must be too

    def run(self, args: list[cst.Arg]) -> Arguments:
        for k, arg in enumerate(args):
            if arg.star:
                self.result.args.append(arg)
                self.by_name = self.by_name or arg.star == "**"
            elif arg.keyword is not None:
                self._named(arg, arg.keyword.value)
            else:
                self._positional(arg, k)
        if not any(a.star for a in args):
            for name, value in self.rule.added.items():
                if name not in self.names:
                    self.result.args.append(keyword(name, cst.parse_expression(value)))
        if not args or len(self.result.args) < len(args) or self.rule.added:
            self.result.args = _tidy(self.result.args, args)
        self.result.args = separated(self.result.args)
        return self.result

    def _positional(self, arg: cst.Arg, k: int) -> None:
        theirs, own = self.theirs, self.own
        if theirs is None or own is None or any(p.gathers for p in theirs[: k + 1]) or k >= len(theirs):
            self.result.args.append(arg)
            return
        parameter = theirs[k]
        name = self._counterpart(parameter.name, k)
        if name is None:
            if any(p.gathers for p in own[: k + 1]) and not self._may_go(parameter.name, arg):
                self.result.args.append(arg)
            else:
                self._leave_out(parameter.name, arg)
            return
        self.names.add(name)
        position = len(self.result.args)
        here = own[position] if position < len(own) else None
        if (not self.by_name and here is not None and (here.name == name and not here.by_name)) or (
            not self.by_name and any(p.gathers for p in own[: position + 1])
        ):
            self.result.args.append(arg)
        else:
            self.by_name = True
            self.result.args.append(plain(arg, name))

    def _named(self, arg: cst.Arg, name: str) -> None:
        own = self.own
        position = next((k for k, p in enumerate(self.theirs or ()) if p.name == name), -1)
        new = self._counterpart(name, position) if own is not None else name
        if own is None and (name in self.rule.dropped or name in WITHOUT_MEANING):
            new = None
        if new is None and own is not None and any(p.gathers for p in own) and not self._may_go(name, arg):
            new = name
        if new is None:
            self._leave_out(name, arg)
            return
        self.names.add(new)
        gathers = own is not None and position == 0 and bool(own) and own[0].gathers
        if gathers and not self.result.args:  # by_name only from here on
            self.result.args.append(plain(arg, None))
            return
        self.by_name = True
        self.result.args.append(arg if new == name else plain(arg, new))

    def _counterpart(self, name: str, position: int) -> str | None:
        if name in self.rule.dropped:
            return None
        assert self.own is not None
        return counterpart(name, -1 if self.method else position, self.rule, self.own)

    def _may_go(self, name: str, arg: cst.Arg) -> bool:
        """Whether nothing is lost without this argument."""
        if name in self.rule.dropped or name in WITHOUT_MEANING:
            return True
        value = literal(arg.value)
        default = next((p.default for p in self.theirs or () if p.name == name), None)
        return value is None or (default is not None and value == literal(default))

    def _leave_out(self, name: str, arg: cst.Arg) -> None:
        if self._may_go(name, arg):
            self.result.left_out.append(name)
        elif name == "dtype" and self.makes_tensor:
            self.result.cast = arg.value
        else:
            raise Refused(f"argument {name}={text(arg.value).strip()} has no counterpart")


def _tidy(new: list[cst.Arg], old: list[cst.Arg]) -> list[cst.Arg]:
    """The last argument ends as the last one did before, so that brackets stay where they were."""
    if not new:
        return new
    last = new[-1]
    if old and last is not old[-1]:
        last = last.with_changes(comma=old[-1].comma, whitespace_after_arg=old[-1].whitespace_after_arg)
    elif not old:
        last = last.with_changes(comma=cst.MaybeSentinel.DEFAULT)
    rest = [
        a.with_changes(comma=cst.Comma(whitespace_after=cst.SimpleWhitespace(" ")))
        if isinstance(a.comma, cst.MaybeSentinel)
        else a
        for a in new[:-1]
    ]
    return [*rest, last]
