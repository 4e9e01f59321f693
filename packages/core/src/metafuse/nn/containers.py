"""Containers: modules and parameters in order or by name.

What it is: ``Sequential``, ``ModuleList``, ``ModuleDict``, ``ParameterList``, ``ParameterDict``.
What it is not: layers that compute, except that ``Sequential`` calls its parts one after the other.
Who calls it: users.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from ..errors import ArgumentError, DTypeError
from ..var import Var
from .module import Module, make_module

__all__ = ["ModuleDict", "ModuleList", "ParameterDict", "ParameterList", "Sequential"]


def _at(kind: str, index: int, length: int) -> int:
    if not -length <= index < length:
        raise IndexError(f"[{kind}] index must be in {-length}..{length - 1}, got {index}")
    return index % length


def _named(owner: Module, entries: dict[str, Any], name: Any) -> Any:
    try:
        return entries[str(name)]
    except KeyError:
        raise KeyError(f"[{type(owner).__name__}] has no {name!r}; it has {list(entries)}") from None


class Sequential(Module):
    """Modules called one after the other; each gets what the one before answered.

    Takes modules, lists of modules, dictionaries name -> module, and plain functions. Names are ``"0"``, ``"1"`` ... or those of
    the dictionary.

    Example:
        >>> import metafuse as mf
        >>> net = mf.nn.Sequential(mf.nn.Linear(2, 4), mf.nn.Relu(), mf.nn.Linear(4, 1))
        >>> net(mf.ones([3, 2])).shape, len(net)
        ((3, 1), 3)
    """

    def __init__(self, *args: Any) -> None:
        self._layers: dict[str, Module] = {}
        for part in args:
            if isinstance(part, dict):
                for name, module in part.items():
                    self.add_module(str(name), module)
            elif isinstance(part, (list, tuple)):
                for module in part:
                    self.append(module)
            else:
                self.append(part)

    def execute(self, x: Any) -> Any:
        for layer in self._layers.values():
            x = layer(x)
        return x

    def _local_modules(self) -> Iterator[tuple[str, Module]]:
        return iter(self._layers.items())

    def append(self, mod: Any) -> Module:
        """Add a module (or a function of one argument) at the end."""
        return self.add_module(str(len(self._layers)), mod)

    def add_module(self, name: str, mod: Any) -> Module:
        """Add ``mod`` under ``name``, or put it in the place of the module of that name."""
        if not isinstance(mod, Module):
            if not callable(mod):
                raise DTypeError(
                    f"[{type(self).__name__}] needs modules or functions, got {type(mod).__name__}"
                )
            mod = make_module(mod)()
        self._layers[str(name)] = mod
        return self

    def __getitem__(self, idx: Any) -> Any:
        if isinstance(idx, slice):
            return type(self)(dict(list(self._layers.items())[idx]))
        if isinstance(idx, int) and str(idx) not in self._layers:
            return list(self._layers.values())[_at(type(self).__name__, idx, len(self))]
        return _named(self, self._layers, idx)

    def __setitem__(self, idx: Any, mod: Module) -> None:
        names = list(self._layers)
        self.add_module(names[_at(type(self).__name__, idx, len(self))] if isinstance(idx, int) else idx, mod)

    def __getattr__(self, name: str) -> Any:
        layers = self.__dict__.get("_layers", {})
        if name in layers:
            return layers[name]
        raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")

    @property
    def layers(self) -> dict[str, Module]:
        """Modules by name."""
        return self._layers

    def __iter__(self) -> Iterator[Module]:
        return iter(self._layers.values())

    def __len__(self) -> int:
        return len(self._layers)

    def keys(self) -> Iterable[str]:
        """Names."""
        return self._layers.keys()

    def values(self) -> Iterable[Module]:
        """Modules."""
        return self._layers.values()

    def items(self) -> Iterable[tuple[str, Module]]:
        """Names and modules."""
        return self._layers.items()


class ModuleList(Sequential):
    """Modules in a list; the owner's ``execute`` decides how to call them (calling the list itself works as ``Sequential``).

    Example:
        >>> import metafuse as mf
        >>> layers = mf.nn.ModuleList([mf.nn.Linear(3, 3), mf.nn.Linear(3, 2)])
        >>> len(layers), layers(mf.ones([1, 3])).shape
        (2, (1, 2))
    """

    def extend(self, modules: Iterable[Module]) -> ModuleList:
        """Add several at the end."""
        if isinstance(modules, type) or not isinstance(modules, Iterable):
            raise DTypeError(f"[ModuleList] modules must be a list, got {type(modules).__name__}")
        for module in modules:
            self.append(module)
        return self


class ModuleDict(Sequential):
    """Modules by name.

    Example:
        >>> import metafuse as mf
        >>> parts = mf.nn.ModuleDict({"head": mf.nn.Linear(3, 2), "tail": mf.nn.ReLU()})
        >>> list(parts.keys()), parts["head"](mf.ones([1, 3])).shape
        (['head', 'tail'], (1, 2))
    """

    def __init__(self, modules: dict[str, Module] | None = None) -> None:
        if modules is not None and not isinstance(modules, dict):
            raise DTypeError(f"[ModuleDict] modules must be a dictionary, got {type(modules).__name__}")
        super().__init__(*([modules] if modules else []))

    def __contains__(self, name: object) -> bool:
        return name in self._layers

    def execute(self, x: Any) -> Any:
        raise ArgumentError("[ModuleDict] can't be called; call one of its modules")


class ParameterDict(Module):
    """Vars by name, registered as parameters.

    Example:
        >>> import metafuse as mf
        >>> table = mf.nn.ParameterDict({"a": mf.ones([2])})
        >>> [name for name, p in table.named_parameters()]
        ['a']
    """

    def __init__(self, *args: Any) -> None:
        self._params: dict[str, Var] = {}
        for part in args:
            if isinstance(part, dict):
                for name, var in part.items():
                    self.add_param(str(name), var)
            elif isinstance(part, (list, tuple)):
                for var in part:
                    self.append(var)
            else:
                self.append(part)

    def _local_vars(self) -> Iterator[tuple[str, Var]]:
        return iter(self._params.items())

    def append(self, var: Var) -> None:
        """Add a Var under the next number."""
        self.add_param(str(len(self._params)), var)

    def add_param(self, name: str, var: Var) -> None:
        """Add a Var under ``name``."""
        if not isinstance(var, Var):
            raise DTypeError(f"[{type(self).__name__}] needs Vars, got {type(var).__name__}")
        self._params[str(name)] = var

    def __getitem__(self, idx: Any) -> Var:
        if isinstance(idx, int) and str(idx) not in self._params:
            return list(self._params.values())[_at(type(self).__name__, idx, len(self))]
        return _named(self, self._params, idx)

    def __setitem__(self, idx: Any, var: Var) -> None:
        self.add_param(str(idx), var)

    @property
    def params(self) -> dict[str, Var]:
        """Vars by name."""
        return self._params

    def __iter__(self) -> Iterator[Var]:
        return iter(self._params.values())

    def __len__(self) -> int:
        return len(self._params)

    def keys(self) -> Iterable[str]:
        """Names."""
        return self._params.keys()

    def values(self) -> Iterable[Var]:
        """Vars."""
        return self._params.values()

    def items(self) -> Iterable[tuple[str, Var]]:
        """Names and Vars."""
        return self._params.items()

    def execute(self, x: Any) -> Any:
        raise ArgumentError(f"[{type(self).__name__}] holds parameters and can't be called")


class ParameterList(ParameterDict):
    """Vars in a list, registered as parameters under ``"0"``, ``"1"`` ...

    Example:
        >>> import metafuse as mf
        >>> weights = mf.nn.ParameterList([mf.ones([2]), mf.ones([3])])
        >>> [w.shape for w in weights]
        [(2,), (3,)]
    """
