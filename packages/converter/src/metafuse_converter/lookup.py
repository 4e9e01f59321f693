"""Where a name of PyTorch is found in metafuse, and how each is called.

What it is: the inventory of PyTorch's names, the homes of its modules, and answers: ``find("torch.nn.Conv2d")``.
What it is not: the rules (``table``), or syntax.
Who calls it: ``rewrite``, ``imports``, the report and the tests.
"""

from __future__ import annotations

import inspect
import json
import re
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from .rules import Rule
from .table import ABSENT, TABLE

__all__ = [
    "FILE",
    "HOMES",
    "METHODS",
    "ROOTS",
    "Answer",
    "Parameter",
    "find",
    "inventory",
    "method",
    "own_parameters",
    "parse",
    "resolve",
]

FILE = Path(__file__).with_name("_torch_names.json")

#: packages whose names are converted
ROOTS = ("torch", "torchvision")

#: PyTorch's module -> where its names are looked for in metafuse; the first is what the module itself becomes
HOMES: dict[str, tuple[str, ...]] = {
    "torch": ("", "nn"),
    "torch.nn": ("nn",),
    "torch.nn.functional": ("nn", ""),
    "torch.nn.modules": ("nn",),
    "torch.nn.parameter": ("nn",),
    "torch.nn.init": ("init",),
    "torch.nn.parallel": ("dist",),
    "torch.nn.utils": ("nn",),
    "torch.nn.utils.rnn": ("nn",),
    "torch.optim": ("optim",),
    "torch.optim.lr_scheduler": ("lr_scheduler",),
    "torch.utils": ("",),
    "torch.utils.data": ("data",),
    "torch.utils.data.dataset": ("data",),
    "torch.utils.data.dataloader": ("data",),
    "torch.utils.data.sampler": ("data",),
    "torch.utils.data.distributed": ("data",),
    "torch.linalg": ("linalg", ""),
    "torch.fft": ("fft",),
    "torch.special": ("",),
    "torch.autograd": ("",),
    "torch.autograd.function": ("",),
    "torch.amp": ("amp",),
    "torch.cuda": ("",),
    "torch.cuda.amp": ("amp",),
    "torch.distributed": ("dist",),
    "torch.distributions": ("distributions",),
    "torch.random": ("",),
    "torchvision": ("",),
    "torchvision.transforms": ("transform",),
    "torchvision.transforms.functional": ("transform",),
    "torchvision.datasets": ("data",),
    "torchvision.models": ("models",),
    "torchvision.ops": ("",),
    "torchvision.utils": ("",),
}

#: kind of a receiver -> the entry of the inventory that holds its methods, and metafuse's class
METHODS = {
    "tensor": ("torch.Tensor", "Var"), "module": ("torch.nn.Module", "nn.Module"), "optimizer": ("", "optim.Optimizer"),
    "scaler": ("", "amp.GradScaler"), "parallel": ("torch.nn.Module", "nn.Module"),
}  # fmt: skip

#: PyTorch's parameter -> what it may be called in metafuse
USUAL = {
    "other": ("y", "b", "other"), "keepdim": ("keepdim", "keepdims"), "dim": ("dim", "dims", "axis"), "dims": ("dim", "dims"),
    "size": ("size", "shape", "output_size"), "fill_value": ("val", "value"), "training": ("is_train", "training"),
    "negative_slope": ("scale",),
    "min": ("min_v", "min"), "max": ("max_v", "max"), "exponent": ("y",), "mat2": ("b",), "vec2": ("y",),
    "index": ("index", "indices", "indexs"),
    "source": ("tensor",), "value": ("value", "val"), "ang": ("angle",), "pad": ("padding",), "val": ("value",), "generator": (),
    "a": ("a", "low"), "b": ("b", "high"), "init": ("init_",), "repeats": ("repeats", "shape"), "tensors": ("arrays",
    "x", "tensors"),
}  # fmt: skip


@dataclass(frozen=True)
class Parameter:
    """One parameter: its name, its default as text (``None``: there is none), whether it is given by name only."""

    name: str
    default: str | None = None
    by_name: bool = False
    gathers: bool = False


@dataclass(frozen=True)
class Answer:
    """What became of a name: its rule, its path below metafuse, PyTorch's parameters (``None``: not known)."""

    name: str
    rule: Rule
    path: str | None
    parameters: tuple[Parameter, ...] | None

    @property
    def offered(self) -> bool:
        """Whether there is a counterpart."""
        return self.path is not None or (self.rule.offered and bool(self.rule.template or self.rule.special))

    @property
    def why(self) -> str:
        """The reason if not."""
        return self.rule.why or "has no counterpart"


@lru_cache(maxsize=None)
def inventory() -> dict[str, dict[str, str | None]]:
    """module -> name -> parameters as text; ``None`` where they are not known."""
    found: dict[str, dict[str, str | None]] = json.loads(FILE.read_text(encoding="utf-8"))
    return found


@lru_cache(maxsize=None)
def parse(text: str) -> tuple[Parameter, ...]:
    """A parameter list as text.

    Example:
        >>> [(p.name, p.default) for p in parse("input, dim=None, *, dtype=None")]
        [('input', None), ('dim', 'None'), ('dtype', 'None')]
    """
    found: list[Parameter] = []
    by_name = False
    for part in re.split(r",\s*(?![^(\[]*[)\]])", text):
        name, equals, default = part.strip().partition("=")
        if name == "*":
            by_name = True
        elif name:
            gathers = name.startswith("*")
            found.append(Parameter(name.lstrip("*"), default if equals else None, by_name, gathers))
            by_name = by_name or gathers
    return tuple(found)


def split(name: str) -> tuple[str, str]:
    """``torch.nn.Conv2d`` -> ``("torch.nn", "Conv2d")``."""
    module, _, last = name.rpartition(".")
    return module, last


@lru_cache(maxsize=None)
def _framework() -> Any:
    import metafuse
    from metafuse.ops.registry import all_operators

    all_operators()  # methods of some operators are there only when all have been entered
    return metafuse


@lru_cache(maxsize=None)
def resolve(path: str) -> Any:
    """The object at a path below metafuse. Errors: ``AttributeError``."""
    value: Any = _framework()
    for part in path.split(".") if path else ():
        value = getattr(value, part)
    return value


#: answers of the user's own, with metafuse's parameters as text, by full name or its last part; ``pjmap`` fills it for a while
OWN: dict[str, tuple[Answer, str]] = {}


def find(name: str) -> Answer | None:
    """What becomes of a name of PyTorch; ``None`` if it is a module."""
    own = OWN.get(name) or OWN.get(name.rpartition(".")[2])
    return replace(own[0], name=name) if own is not None else _find(name)


@lru_cache(maxsize=None)
def _find(name: str) -> Answer | None:
    module, last = split(name)
    if name in HOMES:
        return None
    rule = TABLE.get(name) or _inherited(module, last)
    listed = inventory().get(module, {}).get(last)
    text = rule.parameters if rule and rule.parameters is not None else listed
    parameters = parse(text) if text is not None else None
    if rule is None:
        path = _same(module, last)
        if path is None:
            return Answer(name, Rule(target=None, why=reason(name)), None, parameters)
        return Answer(name, Rule(), path, parameters)
    path = rule.target if rule.target else None
    if rule.target == "" and not rule.template:
        path = _same(module, last)
    return Answer(name, rule, path, parameters)


def _inherited(module: str, last: str) -> Rule | None:
    """The rule of the same name where PyTorch has it a second time, ``torch.nn.functional`` and ``torch`` for one."""
    for other in ALSO.get(module, ()):
        if f"{other}.{last}" in TABLE:
            return TABLE[f"{other}.{last}"]
    return None


#: modules that repeat names of others
ALSO = {
    "torch.nn.functional": ("torch",),
    "torch.nn.modules": ("torch.nn",),
    "torch.nn.parameter": ("torch.nn",),
    "torch.special": ("torch",),
    "torch.utils.data.dataset": ("torch.utils.data",),
    "torch.utils.data.dataloader": ("torch.utils.data",),
    "torch.utils.data.sampler": ("torch.utils.data",),
    "torch.utils.data.distributed": ("torch.utils.data",),
    "torch.cuda.amp": ("torch.amp",),
    "torch.amp": ("torch",),
    "torch.linalg": ("torch",),
    "torch.random": ("torch",),
}


def _same(module: str, last: str) -> str | None:
    for home in HOMES.get(module, ()):
        path = f"{home}.{last}" if home else last
        try:
            value = resolve(path)
        except (AttributeError, ImportError):
            continue
        if not inspect.ismodule(value):
            return path
    return None


def reason(name: str) -> str:
    """Why a name that has no rule is not offered."""
    for pattern, why in ABSENT.items():
        if re.search(pattern, name):
            return why
    return "has no counterpart"


@lru_cache(maxsize=None)
def method(kind: str, name: str) -> Answer | None:
    """What becomes of a method or attribute of a ``kind`` of receiver; ``None`` if nothing has to be done."""
    entry, cls = METHODS.get(kind, ("", ""))
    listed = inventory().get(entry, {})
    rule = TABLE.get(f"{kind}.{name}")
    if rule is None and name not in listed:
        return None
    text = rule.parameters if rule and rule.parameters is not None else listed.get(name)
    parameters = parse(text) if text is not None else None
    here = f"{cls}.{name}" if cls and hasattr(resolve(cls), name) else None
    if rule is None:
        why = reason(f"{entry}.{name}")
        return Answer(f"{entry}.{name}", Rule() if here else Rule(target=None, why=why), here, parameters)
    path = f"{cls}.{rule.target}" if rule.target else here if rule.target == "" else None
    return Answer(f"{entry or kind}.{name}", rule, path, parameters)


def own_parameters(path: str) -> tuple[Parameter, ...] | None:
    """The parameters of what stands at a path below metafuse, without ``self``; ``None`` where they are not known."""
    mine = next((own for answer, own in OWN.values() if answer.path == path), None)
    return parse(mine) if mine is not None else _own_parameters(path)


@lru_cache(maxsize=None)
def _own_parameters(path: str) -> tuple[Parameter, ...] | None:
    value = resolve(path)
    if not callable(value):
        return None
    try:
        found = list(inspect.signature(value).parameters.values())
    except (TypeError, ValueError):
        return None
    if path.startswith(("Var.", "nn.Module.", "optim.Optimizer.", "amp.GradScaler.")):
        found = found[1:]
    return tuple(
        Parameter(
            p.name,
            None if p.default is p.empty else repr(p.default),
            p.kind is p.KEYWORD_ONLY,
            p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD),
        )
        for p in found
    )


def counterpart(parameter: str, position: int, rule: Rule, own: tuple[Parameter, ...]) -> str | None:
    """What a parameter of PyTorch is called in metafuse; ``None`` if there is none."""
    names = [p.name for p in own]
    if parameter in rule.renames:
        return rule.renames[parameter]
    for name in (parameter, *USUAL.get(parameter, ())):
        if name in names:
            return name
    if position == 0 and names and not own[0].gathers and own[0].name not in rule.renames.values():
        return names[0]  # what a function is about has many names, and stands first
    return None
