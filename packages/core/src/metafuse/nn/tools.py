"""Small helpers for networks: making a module without first values, computing in float32, advice on gradients.

What it is: functions of the reference API that are no layers, those of complex values in polar and pair form among them.
What it is not: operators.
Who calls it: users.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from .. import init
from ..config import flag_scope
from ..errors import DTypeError, GradientError, brief
from ..ops.complex_number import ComplexNumber, as_complex
from ..ops.creation import empty
from ..ops.meta import check_shape, check_var
from ..ops.precision import in_float32
from ..ops.shape import stack
from ..ops.telling import tells
from .module import Module

__all__ = ["backward", "fp32_guard", "get_init_var_rand", "polar", "skip_init", "view_as_real"]


def backward(v: Any, *args: Any, **kw: Any) -> None:
    """There is no ``loss.backward()``: raises a ``GradientError`` that says what to write instead.

    Example:
        >>> import metafuse as mf
        >>> try:
        ...     mf.nn.backward(mf.ones(1))
        ... except RuntimeError as error:
        ...     print(str(error)[:35])
        [backward] a Var has no backward; w
    """
    raise GradientError(
        "[backward] a Var has no backward; write optimizer.step(loss), or optimizer.backward(loss) and then "
        "optimizer.step(), or mf.grad(loss, parameters)"
    )


def fp32_guard(func: Callable[..., Any]) -> Callable[..., Any]:
    """Have ``func`` compute in float32: 16-bit arguments are converted, mixed precision is off inside, and the answer takes the
    arguments' type again.

    Example:
        >>> import metafuse as mf
        >>> total = mf.nn.fp32_guard(lambda x: (x * 300).sum())
        >>> print(total(mf.ones([4]).float16()).dtype)
        float16
    """
    if not callable(func):
        raise DTypeError(f"[fp32_guard] func must be callable, got {type(func).__name__}")
    computed = in_float32(func)

    @wraps(func)
    def guarded(*args: Any, **kw: Any) -> Any:
        with flag_scope(auto_mixed_precision_level=0):
            return computed(*args, **kw)

    return guarded


def get_init_var_rand(shape: Any, dtype: Any) -> Any:
    """A Var of ``shape`` drawn from the standard normal distribution.

    Example:
        >>> import metafuse as mf
        >>> mf.nn.get_init_var_rand([2, 3], "float32").shape
        (2, 3)
    """
    return init.gauss(check_shape("get_init_var_rand", shape), dtype)


def skip_init(module_cls: type[Module], *args: Any, **kw: Any) -> Module:
    """``module_cls(*args, **kw)`` with zeros instead of first values, which are never computed: for weights to be loaded.

    Example:
        >>> import metafuse as mf
        >>> mf.nn.skip_init(mf.nn.Linear, 3, 4).weight.shape
        (4, 3)
    """
    if not (isinstance(module_cls, type) and issubclass(module_cls, Module)):
        raise DTypeError(f"[skip_init] module_cls must be a class of modules, got {brief(module_cls)}")
    module = module_cls(*args, **kw)
    for var in module.parameters():
        wanted = var.requires_grad
        var.update(empty(var.shape, dtype=var.dtype))
        var.requires_grad = wanted
    return module


@tells
def polar(abs: Any, angle: Any) -> ComplexNumber:
    """The complex values of these lengths and angles (radians).

    Example:
        >>> import metafuse as mf
        >>> z = mf.nn.polar(mf.array([2.0]), mf.array([0.0]))
        >>> z.real.item(), z.imag.item()
        (2.0, 0.0)
    """
    length, direction = check_var("polar", "abs", abs), check_var("polar", "angle", angle)
    return ComplexNumber(length * direction.cos(), length * direction.sin())  # type: ignore[attr-defined]


def view_as_real(x: Any) -> Any:
    """Complex values ``[...]`` as a Var ``[..., 2]`` of real and imaginary parts.

    Example:
        >>> import metafuse as mf
        >>> mf.nn.view_as_real(mf.nn.ComplexNumber(mf.array([1.0]), mf.array([2.0]))).numpy()
        array([[1., 2.]], dtype=float32)
    """
    value = as_complex("view_as_real", x)
    return stack([value.real, value.imag], -1)
