"""Module: a layer or network, that is, Vars and other modules as attributes and an ``execute`` method.

What it is: the tree of attributes and everything that walks it: parameters, names, state, training mode, hooks.
What it is not: any particular layer, or a place where computation is recorded (calling operators does that).
Who calls it: users subclass it; every layer in ``nn`` does.

Names are attribute paths joined by dots. A Var whose attribute name begins with ``_`` is private: it is no parameter and not
part of the state.
"""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Callable, Iterator, Mapping
from reprlib import recursive_repr
from typing import Any, TypeVar

from ..arguments import checked
from ..dist import parallel
from ..dist.process import single_process_scope
from ..errors import ArgumentError, DTypeError, brief
from ..ops.meta import check_flag
from ..ops.precision import auto_type
from ..ops.telling import tells
from ..var import Var
from . import hooks, state

__all__ = ["Module", "Parameter", "make_module"]

Self = TypeVar("Self", bound="Module")


@tells
def Parameter(data: Any, requires_grad: bool = True) -> Var:
    """A Var that holds a copy of ``data`` and takes part in training if ``requires_grad``.

    Example:
        >>> import metafuse as mf
        >>> mf.nn.Parameter([1.0, 2.0]).requires_grad
        True
    """
    from ..ops.creation import array
    from ..ops.meta import check_flag

    var = data.detach() if isinstance(data, Var) else array(data)
    var.requires_grad = check_flag("Parameter", "requires_grad", requires_grad)
    return var


class Module:
    """Base of all layers and networks. Subclass it, make layers in ``__init__``, use them in ``execute``.

    Example:
        >>> import metafuse as mf
        >>> class Twice(mf.nn.Module):
        ...     def __init__(self):
        ...         self.layer = mf.nn.Linear(3, 3)
        ...     def execute(self, x):
        ...         return self.layer(self.layer(x))
        >>> net = Twice()
        >>> net(mf.ones([2, 3])).shape, [name for name, p in net.named_parameters()]
        ((2, 3), ['layer.weight', 'layer.bias'])
    """

    is_train: bool = True

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        made = vars(cls).get("__init__")
        ours = cls.__module__.startswith("metafuse.")  # users' own may do as they like
        if ours and inspect.isfunction(made):
            cls.__init__ = _flags_checked(made, cls.__name__)  # type: ignore[method-assign]

    def execute(self, *args: Any, **kw: Any) -> Any:
        """The computation of this module; every subclass defines it."""
        raise NotImplementedError(f"[{type(self).__name__}] has no execute method; define execute(self, ...)")

    def __call__(self, *args: Any, **kw: Any) -> Any:
        """Run ``execute`` and the hooks."""
        if "_hooks" in self.__dict__:
            return hooks.call(self, args, kw)
        return self.execute(*args, **kw)

    # -- the tree ------------------------------------------------------------------------------------------------
    def _local_vars(self) -> Iterator[tuple[str, Var]]:
        """Own Vars by attribute name."""
        return ((k, v) for k, v in self.__dict__.items() if isinstance(v, Var) and not k.startswith("_"))

    def _local_modules(self) -> Iterator[tuple[str, Module]]:
        """Own modules by attribute name."""
        return ((k, v) for k, v in self.__dict__.items() if isinstance(v, Module))

    def named_modules(self) -> list[tuple[str, Module]]:
        """The module itself (name ``""``) and all below it, each once, parents first."""
        found: list[tuple[str, Module]] = []
        seen: set[int] = set()
        stack: list[tuple[str, Module]] = [("", self)]
        while stack:
            name, module = stack.pop()
            if id(module) in seen:
                continue
            seen.add(id(module))
            found.append((name, module))
            below = [(f"{name}.{k}" if name else k, m) for k, m in module._local_modules()]
            stack.extend(reversed(below))
        return found

    def modules(self) -> list[Module]:
        """The module itself and all below it."""
        return [module for _, module in self.named_modules()]

    def named_children(self) -> list[tuple[str, Module]]:
        """The modules directly below, by attribute name."""
        return list(self._local_modules())

    def children(self) -> list[Module]:
        """The modules directly below."""
        return [module for _, module in self._local_modules()]

    def dfs(
        self,
        parents: list[Module],
        k: str | None,
        callback: Callable[..., Any],
        callback_leave: Callable[..., Any] | None = None,
        recurse: bool = True,
    ) -> None:
        """Call ``callback(parents, name, module, number of children)`` on the way down, ``callback_leave`` on the way up.

        A ``callback`` that answers ``False`` keeps the walk from going below that module.
        """
        above = [self, *parents]  # where a module contains itself, the walk does not go round
        below = [(name, m) for name, m in self._local_modules() if all(m is not a for a in above)]
        if callback(parents, k, self, len(below)) is False:
            return
        if recurse:
            parents.append(self)
            for name, module in below:
                module.dfs(parents, name, callback, callback_leave)
            parents.pop()
        if callback_leave:
            callback_leave(parents, k, self, len(below))

    def apply(self, func: Callable[[Module], Any]) -> None:
        """Call ``func`` with this module and every module below it."""
        for module in self.modules():
            func(module)

    def add_module(self, name: str, module: Module) -> Module:
        """Make ``module`` the attribute ``name``."""
        if not isinstance(module, Module):
            raise DTypeError(f"[add_module] module must be a Module, got {type(module).__name__}")
        setattr(self, name, module)
        return self

    # -- parameters and state -------------------------------------------------------------------------------------
    def named_parameters(self, recurse: bool = True, buffers: bool = True) -> list[tuple[str, Var]]:
        """All Vars with their dotted names, each Var once; running statistics (``requires_grad`` False) and other buffers are
        among them unless ``buffers`` is False.

        A Var without a name of its own is given its dotted name, so that errors can say it.
        """
        found: list[tuple[str, Var]] = []
        seen: set[int] = set()
        for path, module in self.named_modules() if recurse else [("", self)]:
            for key, var in module._local_vars():
                if id(var) in seen or (not buffers and key in module.__dict__.get("_buffers", ())):
                    continue
                seen.add(id(var))
                name = f"{path}.{key}" if path else key
                if not var.name():
                    var.name(name)
                found.append((name, var))
        return found

    def parameters(self, recurse: bool = True, buffers: bool = True) -> list[Var]:
        """All Vars of this module and those below, without those of ``register_buffer`` if ``buffers`` is False. An optimizer
        skips those that take no gradient."""
        return [var for _, var in self.named_parameters(recurse, buffers)]

    def named_buffers(self, recurse: bool = False) -> list[tuple[str, Var]]:
        """Vars registered with ``register_buffer``."""
        found = []
        for path, module in self.named_modules() if recurse else [("", self)]:
            for key in module.__dict__.get("_buffers", ()):
                found.append((f"{path}.{key}" if path else key, module.__dict__[key]))
        return found

    def register_buffer(self, key: str, value: Var, persistent: bool = True) -> Var:
        """Make ``value`` an attribute that takes no gradient. Without ``persistent`` it is left out of ``state_dict``."""
        if not isinstance(value, Var):
            raise DTypeError(f"[register_buffer] value must be a Var, got {type(value).__name__}")
        self.__dict__.setdefault("_buffers", {})[key] = persistent
        setattr(self, key, value.stop_grad())
        return value

    def state_dict(self, to: str | None = None, recurse: bool = True) -> dict[str, Any]:
        """Dotted name -> Var, or NumPy array with ``to="numpy"``, or ``torch.Tensor`` with ``to="torch"``."""
        return state.collect(self, to, recurse)

    def load_state_dict(self, params: Mapping[str, Any]) -> None:
        """Copy values (Vars, arrays, anything NumPy converts) into the Vars of these names.

        Errors: ``ArgumentError`` listing every name whose shape differs, or saying that no name is known and why that may be;
        nothing has been changed then. Names that only one side has are listed in one warning.
        """
        state.restore(self, params)

    load_parameters = load_state_dict

    def mpi_param_broadcast(self, root: int = 0) -> None:
        """Give every rank the parameters and buffers of rank ``root``, now. Optimizers do so for theirs when they are made."""
        parallel.broadcast_vars(self.state_dict().values(), root)

    @single_process_scope()
    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the state to ``path``, which appears complete or not at all. Of several ranks only rank 0 writes.

        The name's ending chooses the format, as in ``metafuse.save``: ``.pth``, ``.pt`` or ``.bin`` for PyTorch,
        ``.safetensors``, ``.pkl`` for the reference API; every other name gets NumPy's ``.npz``, which keeps all types exactly.
        """
        state.save(self.state_dict(), path)

    def load(self, path: str | os.PathLike[str]) -> None:
        """Read the state from a file of any format that ``metafuse.load`` reads; then as ``load_state_dict``."""
        self.load_state_dict(state.load(path))

    # -- training mode ----------------------------------------------------------------------------------------------
    def train(self: Self) -> Self:
        """Training mode for this module and all below: dropout drops, batch norm uses the batch; gradients flow to parameters
        again that ``eval`` cut off. Answers the module."""
        for module in self.modules():
            module.is_train = True
            for var in module.__dict__.pop("_frozen", ()):
                var.start_grad()
        return self

    def eval(self: Self) -> Self:
        """Inference mode for this module and all below; parameters take no gradient until ``train``. Answers the module."""
        for module in self.modules():
            module.is_train = False
            frozen = [var for _, var in module._local_vars() if var.requires_grad]
            if frozen:
                module.__dict__.setdefault("_frozen", []).extend(frozen)
            for var in frozen:
                var.stop_grad()
        return self

    def is_training(self) -> bool:
        """Whether this module is in training mode."""
        return self.is_train

    @property
    def training(self) -> bool:
        """Whether this module is in training mode."""
        return self.is_train

    @training.setter
    def training(self, value: bool) -> None:
        self.is_train = bool(value)

    def requires_grad_(self: Self, requires_grad: bool = True) -> Self:
        """Let gradients flow to all floating-point Vars that are not buffers, or to none."""
        for var in self.parameters(buffers=False):
            if var.dtype.is_float:
                var.requires_grad = requires_grad
        return self

    # -- dtype -------------------------------------------------------------------------------------------------------
    def _convert(self: Self, dtype: str) -> Self:
        """Turn all floating-point Vars into ``dtype``, in place of the old ones and under the same handles."""
        for module in self.modules():
            for _, var in list(module._local_vars()):
                if var.dtype.is_float and var.dtype != dtype:
                    wanted = var.requires_grad
                    var.swap(var.detach().cast(dtype))  # type: ignore[attr-defined]
                    var.requires_grad = wanted
        return self

    def float16(self: Self) -> Self:
        """Parameters in float16."""
        return self._convert("float16")

    def half(self: Self) -> Self:
        """Parameters in float16."""
        return self._convert("float16")

    def bfloat16(self: Self) -> Self:
        """Parameters in bfloat16."""
        return self._convert("bfloat16")

    def float_auto(self: Self) -> Self:
        """Parameters in the type that activations have now; see ``metafuse.float_auto``."""
        return self._convert(auto_type().name)

    def float32(self: Self) -> Self:
        """Parameters in float32."""
        return self._convert("float32")

    def float64(self: Self) -> Self:
        """Parameters in float64."""
        return self._convert("float64")

    # -- device ------------------------------------------------------------------------------------------------------
    def cuda(self: Self, device: Any = None) -> Self:
        """Compute on the CUDA backend from now on: everything, as ``flags.use_cuda = 1`` says. ``device`` has no effect. Errors:
        ``BackendUnavailable`` where that backend is not usable."""
        from ..config import flags

        flags.use_cuda = 1
        return self

    # -- hooks: one of each kind -----------------------------------------------------------------------------------------
    def register_forward_hook(self, func: Callable[..., Any]) -> None:
        """Call ``func(module, args, result)`` (with ``, kw`` if there are keyword arguments) after ``execute``; what it answers,
        if not ``None``, replaces the result."""
        hooks.register(self, "forward", func)

    def register_pre_forward_hook(self, func: Callable[..., Any]) -> None:
        """Call ``func(module, args)`` (with ``, kw``) before ``execute``; it may answer new arguments (with keywords: a pair)."""
        hooks.register(self, "pre_forward", func)

    def register_input_backward_hook(self, func: Callable[..., Any]) -> None:
        """Call ``func(module, gradients)`` with the gradients of the Var inputs; it may answer replacements."""
        hooks.register(self, "input_backward", func)

    def register_output_backward_hook(self, func: Callable[..., Any]) -> None:
        """Call ``func(module, gradients)`` with the gradients of the outputs; it may answer replacements."""
        hooks.register(self, "output_backward", func)

    def register_backward_hook(self, func: Callable[..., Any]) -> None:
        """Call ``func(module, input gradients, output gradients)``; it may answer replacements for the former."""
        hooks.register_backward(self, func)

    def remove_forward_hook(self) -> None:
        """Take the hook away, if there is one."""
        hooks.remove(self, "forward")

    def remove_pre_forward_hook(self) -> None:
        """Take the hook away, if there is one."""
        hooks.remove(self, "pre_forward")

    def remove_input_backward_hook(self) -> None:
        """Take the hook away, if there is one."""
        hooks.remove(self, "input_backward")

    def remove_output_backward_hook(self) -> None:
        """Take the hook away, if there is one."""
        hooks.remove(self, "output_backward")

    def remove_backward_hook(self) -> None:
        """Take both backward hooks away."""
        hooks.remove(self, "input_backward")
        hooks.remove(self, "output_backward")

    # -- text ---------------------------------------------------------------------------------------------------------
    def extra_repr(self) -> str:
        """What stands between the parentheses of ``repr``: the constructor's arguments, where attributes keep them."""
        return ", ".join(str(self.__dict__[k]) for k in self._shown if k in self.__dict__)

    #: names of the attributes that ``extra_repr`` shows, in order
    _shown: tuple[str, ...] = ()

    @recursive_repr()
    def __repr__(self) -> str:
        """The tree of modules, indented."""
        lines = [f"{type(self).__name__}({self.extra_repr()}"]
        for name, module in self.named_children():
            text = repr(module).replace("\n", "\n    ")
            lines.append(f"    {name}: {text}")
        return lines[0] + ")" if len(lines) == 1 else "\n".join([*lines, ")"])


@checked
def make_module(func: Callable[..., Any], exec_n_args: int = 1) -> type[Module]:
    """A layer class whose ``execute`` calls ``func``: the first ``exec_n_args`` arguments come with the call, the others are
    given to the constructor.

    Example:
        >>> import metafuse as mf
        >>> Scale = mf.nn.make_module(lambda x, factor: x * factor)
        >>> Scale(3.0)(mf.array([2.0])).item()
        6.0
    """
    if not callable(func) or exec_n_args < 0:
        raise ArgumentError(
            f"[make_module] needs a function and exec_n_args >= 0, got {brief(func)} and {brief(exec_n_args)}"
        )

    class MakeModule(Module):
        def __init__(self, *args: Any, **kw: Any) -> None:
            self.args, self.kw = args, kw

        def execute(self, *args: Any, **kw: Any) -> Any:
            return func(*args, *self.args, **{**self.kw, **kw})

        def extra_repr(self) -> str:
            return ", ".join([*map(str, self.args), *(f"{k}={v}" for k, v in self.kw.items())])

    MakeModule.__name__ = MakeModule.__qualname__ = getattr(func, "__name__", "MakeModule")
    MakeModule.__doc__ = f"Layer that calls ``{MakeModule.__name__}``."
    return MakeModule


def _flags_checked(function: Callable[..., Any], owner: str) -> Callable[..., Any]:
    """``function`` (the constructor of ``owner``), whose arguments that are annotated ``bool`` are refused where they are neither
    that nor an integer nor ``None``: what Python takes for true, an array or a text, is a mistake."""
    flags = {name for name, kind in function.__annotations__.items() if kind in ("bool", "bool | None")}
    if not flags:
        return function
    places = function.__code__.co_varnames[: function.__code__.co_argcount]

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        for name, value in (*zip(places, args), *kwargs.items()):
            if value is not True and value is not False and name in flags:
                check_flag(owner, name, value)
        return function(*args, **kwargs)

    return call
