"""Weight normalisation: a weight as a direction and a length that are trained separately.

What it is: ``weight_norm`` replaces the Var ``name`` of a layer by ``name_g`` (lengths) and ``name_v`` (directions),
from which the weight follows whenever it is read: ``g * v / |v|``.
What it is not: batch or layer normalisation (``metafuse.nn``).
Who calls it: users, as ``metafuse.weightnorm``.

Source: Salimans and Kingma, "Weight normalization: a simple reparameterization to accelerate training of deep neural networks",
NIPS 2016.
"""

from __future__ import annotations

from typing import Any

from .arguments import checked
from .errors import ArgumentError, DTypeError
from .nn.module import Module, Parameter
from .ops.meta import check_dim
from .ops.reduce import sum
from .ops.scalar import sqrt, where
from .var import Var

__all__ = ["WeightNorm", "remove_weight_norm", "weight_norm"]


@checked
class WeightNorm:
    """The rule of one normalised weight.

    Args:
        name: the weight's attribute name.
        dim: the dimension whose entries have a length each; ``None`` or -1: one length for all.

    Example:
        >>> import metafuse as mf
        >>> layer = mf.weightnorm.weight_norm(mf.nn.Linear(3, 2), "weight", -1)
        >>> rule = mf.weightnorm.WeightNorm("weight", -1)
        >>> rule.compute_weight(layer).shape
        (2, 3)
    """

    def __init__(self, name: str, dim: int | None) -> None:
        self.name = str(name)
        self.dim = -1 if dim is None else dim

    def compute_weight(self, module: Module) -> Var:
        """The weight of ``module`` from its two parts; zero where a direction is zero."""
        if self.name not in module.__dict__.get("_weight_norm_rules", ()):
            raise ArgumentError(f"[weight_norm] {self.name!r} of {type(module).__name__} is not normalised")
        v: Var = getattr(module, f"{self.name}_v")
        size = self._lengths(v)
        empty = size == 0
        return v * where(empty, 0.0, getattr(module, f"{self.name}_g") / where(empty, 1.0, size))

    def _lengths(self, v: Var) -> Var:
        """Lengths of the parts of ``v``, shaped so that they broadcast against it."""
        dims = tuple(range(v.ndim))
        dims = (
            dims
            if self.dim == -1
            else tuple(d for d in dims if d != check_dim("weight_norm", self.dim, v.ndim))
        )
        square = sum(v * v, dims, True) if dims else v * v
        empty = square == 0
        return where(empty, 0.0, sqrt(where(empty, 1.0, square)))

    @staticmethod
    def apply(module: Module, name: str, dim: int | None) -> WeightNorm:
        """Normalise the weight ``name`` of ``module``; see ``weight_norm``."""
        if not isinstance(module, Module):
            raise DTypeError(f"[weight_norm] module must be a Module, got {type(module).__name__}")
        rules = getattr(type(module), "_weight_norms", ())
        if name in rules:
            raise ArgumentError(f"[weight_norm] {name!r} of {type(module).__name__} is normalised already")
        weight = module.__dict__.get(name)
        if not isinstance(weight, Var) or not weight.dtype.is_float:
            raise ArgumentError(f"[weight_norm] {type(module).__name__} has no floating Var named {name!r}")
        rule = WeightNorm(name, dim)
        lengths = rule._lengths(weight)
        setattr(module, f"{name}_g", Parameter(lengths))
        setattr(module, f"{name}_v", Parameter(weight))
        del module.__dict__[name]
        module.__dict__.setdefault("_weight_norm_rules", {})[name] = rule
        module.__class__ = _normalised(_base(type(module)), (*rules, name))
        return rule

    def remove(self, module: Module) -> None:
        """Make the weight an ordinary Var of ``module`` again, with its present value."""
        weight = Parameter(self.compute_weight(module))
        rules = tuple(n for n in type(module)._weight_norms if n != self.name)  # type: ignore[attr-defined]
        base = _base(type(module))
        module.__class__ = _normalised(base, rules) if rules else base
        for part in ("g", "v"):
            del module.__dict__[f"{self.name}_{part}"]
        del module.__dict__["_weight_norm_rules"][self.name]
        setattr(module, self.name, weight)

    def __call__(self, module: Module, inputs: Any = None) -> Var:
        """``compute_weight``; takes the arguments of a pre-forward hook."""
        return self.compute_weight(module)


def _base(kind: type[Module]) -> type[Module]:
    """The layer's own class."""
    return kind.__mro__[1] if "_weight_norms" in kind.__dict__ else kind


#: the classes of normalised layers, so that equal ones are one
_classes: dict[tuple[Any, tuple[str, ...]], type[Module]] = {}


def _normalised(base: type[Module], names: tuple[str, ...]) -> type[Module]:
    """``base`` with the attributes ``names`` computed from their parts."""
    known = _classes.get((base, names))
    if known is None:
        known = _classes[(base, names)] = _class(base, names)
    return known


def _class(base: type[Module], names: tuple[str, ...]) -> type[Module]:

    def weight(name: str) -> property:
        return property(lambda self: self._weight_norm_rules[name].compute_weight(self))

    def reduce(self: Any) -> Any:
        return _blank, (base, names), self.__dict__

    members = {name: weight(name) for name in names}
    return type(
        base.__name__,
        (base,),
        {
            "__doc__": base.__doc__,
            "__module__": base.__module__,
            "__reduce__": reduce,
            "_weight_norms": names,
            **members,
        },
    )


def _blank(base: type[Module], names: tuple[str, ...]) -> Module:
    """A module without attributes, for copies and pickles."""
    kind: Any = _normalised(base, names)
    return kind.__new__(kind)  # type: ignore[no-any-return]


@checked
def weight_norm(module: Module, name: str, dim: int | None) -> Module:
    """Train the weight ``name`` of ``module`` as ``g * v / |v|``.

    Args:
        module: a layer; changed in place.
        name: attribute of a Var.
        dim: the dimension whose entries have a length each; ``None`` or -1: one length for all.

    Returns:
        ``module``, with Vars ``<name>_g`` and ``<name>_v`` instead of ``<name>``, which is computed when it is read.

    Errors:
        ArgumentError: no such Var, or normalised already.

    Example:
        >>> import metafuse as mf
        >>> layer = mf.weightnorm.weight_norm(mf.nn.Linear(3, 2), "weight", 0)
        >>> sorted(name for name, _ in layer.named_parameters()), layer(mf.ones(1, 3)).shape
        (['bias', 'weight_g', 'weight_v'], (1, 2))
    """
    WeightNorm.apply(module, name, dim)
    return module


@checked
def remove_weight_norm(module: Module, name: str = "weight") -> Module:
    """Undo ``weight_norm``; the weight keeps its present value.

    Errors:
        ArgumentError: ``name`` is not normalised.

    Example:
        >>> import metafuse as mf
        >>> layer = mf.weightnorm.weight_norm(mf.nn.Linear(3, 2), "weight", 0)
        >>> [n for n, _ in mf.weightnorm.remove_weight_norm(layer).named_parameters()]
        ['bias', 'weight']
    """
    rule = getattr(module, "_weight_norm_rules", {}).get(name)
    if rule is None:
        raise ArgumentError(f"[remove_weight_norm] {name!r} of {type(module).__name__} is not normalised")
    rule.remove(module)
    return module
