"""The functions of ``metafuse.init``; see the package's docstring."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from math import erf, prod, sqrt
from typing import Any

import numpy as np

from ..arguments import checked
from ..dtypes import as_dtype, is_number
from ..errors import ArgumentError, ShapeError, brief
from ..ops import creation
from ..ops.creation import array, full
from ..ops.random import normal, random
from ..ops.telling import renamed
from ..var import Var


def _extents(op: str, shape: Any) -> list[int]:
    several = shape if isinstance(shape, Sequence) and not isinstance(shape, str) else [shape]
    if any(isinstance(n, bool) or not isinstance(n, (int, np.integer)) or n < 0 for n in several):
        raise ShapeError(f"[{op}] shape must hold integers >= 0, got {brief(shape)}")
    return [int(n) for n in several]


def _parameter(value: Var, dtype: Any) -> Var:
    """``value`` as a leaf that takes part in training."""
    wanted = as_dtype(dtype)
    value = value.cast(wanted).detach()  # type: ignore[attr-defined]
    return value.start_grad() if wanted.is_float else value


def _put(var: Var, value: Var) -> Var:
    """Give ``var`` new values and leave it as trainable as it was."""
    wanted = var.requires_grad
    var.update(value)
    var.requires_grad = wanted
    return var


def _fans(op: str, shape: Sequence[int]) -> tuple[int, int]:
    """(fan_in, fan_out) of a weight."""
    if len(shape) < 2:
        raise ShapeError(f"[{op}] needs a shape with at least 2 dimensions (out, in, ...), got {list(shape)}")
    window = prod(shape[2:])
    return max(shape[1] * window, 1), max(shape[0] * window, 1)  # no elements: nothing to scale


def _fan(op: str, shape: Sequence[int], mode: str) -> int:
    if mode not in ("fan_in", "fan_out"):
        raise ArgumentError(f"[{op}] mode must be 'fan_in' or 'fan_out', got {brief(mode)}")
    return _fans(op, shape)[mode == "fan_out"]


# -- constants -----------------------------------------------------------------------------------------------------
@checked
def constant(shape: Any, dtype: Any = "float32", value: float = 0.0) -> Var:
    """Everything ``value``.

    Example:
        >>> import metafuse as mf
        >>> mf.init.constant([2], "float32", 3.0).numpy()
        array([3., 3.], dtype=float32)
    """
    number = value if as_dtype(dtype).is_float else int(value)
    return _parameter(full(_extents("constant", shape), number, dtype), dtype)


@checked
def constant_(var: Var, value: float = 0.0) -> Var:
    """Set everything to ``value``.

    Example:
        >>> import metafuse as mf
        >>> mf.init.constant_(mf.zeros(2), 3.0).tolist()
        [3.0, 3.0]
    """
    return _put(var, constant(var.shape, var.dtype, value))


fill = renamed("fill", constant_)


@checked
def zero(shape: Any, dtype: Any = "float32") -> Var:
    """Zeros.

    Example:
        >>> import metafuse as mf
        >>> mf.init.zero([2]).tolist()
        [0.0, 0.0]
    """
    return constant(shape, dtype, 0.0)


@checked
def zero_(var: Var) -> Var:
    """Set everything to 0.

    Example:
        >>> import metafuse as mf
        >>> mf.init.zero_(mf.ones(2)).tolist()
        [0.0, 0.0]
    """
    return constant_(var, 0.0)


@checked
def one(shape: Any, dtype: Any = "float32") -> Var:
    """Ones.

    Example:
        >>> import metafuse as mf
        >>> mf.init.one([2]).tolist()
        [1.0, 1.0]
    """
    return constant(shape, dtype, 1.0)


@checked
def one_(var: Var) -> Var:
    """Set everything to 1.

    Example:
        >>> import metafuse as mf
        >>> mf.init.one_(mf.zeros(2)).tolist()
        [1.0, 1.0]
    """
    return constant_(var, 1.0)


@checked
def eye(shape: Any, dtype: Any = "float32") -> Var:
    """A matrix with ones on the diagonal; ``shape`` is the number of rows (and columns), or both.

    Example:
        >>> import metafuse as mf
        >>> mf.init.eye(2).numpy()
        array([[1., 0.],
               [0., 1.]], dtype=float32)
    """
    extents = _extents("eye", shape)
    extents = extents * 2 if len(extents) == 1 else extents
    if len(extents) != 2:
        raise ShapeError(f"[eye] shape must have 2 dimensions, got {extents}")
    return _parameter(creation.eye(extents[0], extents[1], dtype), dtype)


@checked
def eye_(var: Var) -> Var:
    """Set a matrix to ones on the diagonal and zeros elsewhere.

    Example:
        >>> import metafuse as mf
        >>> mf.init.eye_(mf.zeros(2, 2)).tolist()
        [[1.0, 0.0], [0.0, 1.0]]
    """
    if var.ndim != 2:
        raise ShapeError(f"[eye_] var must have 2 dimensions, got shape {tuple(var.shape)}")
    return _put(var, creation.eye(var.shape[0], var.shape[1], var.dtype))


# -- uniform -----------------------------------------------------------------------------------------------------
@checked
def uniform(shape: Any, dtype: Any = "float32", low: float = 0, high: float = 1) -> Var:
    """Uniform in ``low`` .. ``high``.

    Example:
        >>> import metafuse as mf
        >>> x = mf.init.uniform([100], "float32", 2.0, 3.0).numpy()
        >>> bool(x.min() >= 2) and bool(x.max() <= 3)
        True
    """
    share: Any = random(_extents("uniform", shape))
    return _parameter(share * float(high - low) + float(low), dtype)


@checked
def uniform_(var: Var, low: float = 0, high: float = 1) -> Var:
    """Set to uniform numbers in ``low`` .. ``high``.

    Example:
        >>> import metafuse as mf
        >>> x = mf.init.uniform_(mf.zeros(100), 2.0, 3.0)
        >>> bool(((x >= 2) & (x < 3)).all())
        True
    """
    return _put(var, uniform(var.shape, var.dtype, low, high))


@checked
def random_(var: Var) -> Var:
    """Set to uniform numbers in 0 .. 1.

    Example:
        >>> import metafuse as mf
        >>> x = mf.init.random_(mf.zeros(100))
        >>> bool(((x >= 0) & (x < 1)).all())
        True
    """
    return uniform_(var)


@checked
def invariant_uniform(shape: Any, dtype: Any = "float32", mode: str = "fan_in") -> Var:
    """Uniform in +-``1 / sqrt(fan)``: what ``Linear`` and ``Conv`` start from.

    Example:
        >>> import metafuse as mf
        >>> bool((mf.init.invariant_uniform([8, 4]).abs() <= 0.5).all())
        True
    """
    bound = 1.0 / sqrt(_fan("invariant_uniform", _extents("invariant_uniform", shape), mode))
    return uniform(shape, dtype, -bound, bound)


@checked
def invariant_uniform_(var: Var, mode: str = "fan_in") -> Var:
    """Set to ``invariant_uniform`` numbers.

    Example:
        >>> import metafuse as mf
        >>> bool((mf.init.invariant_uniform_(mf.zeros(8, 4)).abs() <= 0.5).all())
        True
    """
    return _put(var, invariant_uniform(var.shape, var.dtype, mode))


@checked
def xavier_uniform(shape: Any, dtype: Any = "float32", gain: float = 1.0) -> Var:
    """Uniform in +-``gain * sqrt(6 / (fan_in + fan_out))`` (Glorot and Bengio 2010).

    Example:
        >>> import metafuse as mf
        >>> bool((mf.init.xavier_uniform([4, 2]).abs() <= 1).all())
        True
    """
    bound = gain * sqrt(6.0 / sum(_fans("xavier_uniform", _extents("xavier_uniform", shape))))
    return uniform(shape, dtype, -bound, bound)


@checked
def xavier_uniform_(var: Var, gain: float = 1.0) -> Var:
    """Set to ``xavier_uniform`` numbers.

    Example:
        >>> import metafuse as mf
        >>> bool((mf.init.xavier_uniform_(mf.zeros(4, 2)).abs() <= 1).all())
        True
    """
    return _put(var, xavier_uniform(var.shape, var.dtype, gain))


# -- normal --------------------------------------------------------------------------------------------------------
@checked
def gauss(shape: Any, dtype: Any = "float32", mean: float = 0.0, std: float = 1.0) -> Var:
    """Normally distributed.

    Example:
        >>> import metafuse as mf
        >>> mf.init.gauss([2, 3]).shape
        (2, 3)
    """
    return _parameter(normal(mean, std, _extents("gauss", shape)), dtype)


@checked
def gauss_(var: Var, mean: float = 0.0, std: float = 1.0) -> Var:
    """Set to normally distributed numbers.

    Example:
        >>> import metafuse as mf
        >>> mf.init.gauss_(mf.zeros(2, 3), 0.0, 0.1).shape
        (2, 3)
    """
    return _put(var, gauss(var.shape, var.dtype, mean, std))


@checked
def relu_invariant_gauss(shape: Any, dtype: Any = "float32", mode: str = "fan_in") -> Var:
    """Normal with deviation ``sqrt(2 / fan)`` (He et al. 2015).

    Example:
        >>> import metafuse as mf
        >>> mf.init.relu_invariant_gauss([2, 3]).shape
        (2, 3)
    """
    fan = _fan("relu_invariant_gauss", _extents("relu_invariant_gauss", shape), mode)
    return gauss(shape, dtype, 0.0, sqrt(2.0 / fan))


@checked
def relu_invariant_gauss_(var: Var, mode: str = "fan_in") -> Var:
    """Set to ``relu_invariant_gauss`` numbers.

    Example:
        >>> import metafuse as mf
        >>> mf.init.relu_invariant_gauss_(mf.zeros(2, 3)).shape
        (2, 3)
    """
    return _put(var, relu_invariant_gauss(var.shape, var.dtype, mode))


@checked
def xavier_gauss(shape: Any, dtype: Any = "float32", gain: float = 1.0) -> Var:
    """Normal with deviation ``gain * sqrt(2 / (fan_in + fan_out))`` (Glorot and Bengio 2010).

    Example:
        >>> import metafuse as mf
        >>> mf.init.xavier_gauss([2, 3]).shape
        (2, 3)
    """
    std = gain * sqrt(2.0 / sum(_fans("xavier_gauss", _extents("xavier_gauss", shape))))
    return gauss(shape, dtype, 0.0, std)


@checked
def xavier_gauss_(var: Var, gain: float = 1.0) -> Var:
    """Set to ``xavier_gauss`` numbers.

    Example:
        >>> import metafuse as mf
        >>> mf.init.xavier_gauss_(mf.zeros(2, 3)).shape
        (2, 3)
    """
    return _put(var, xavier_gauss(var.shape, var.dtype, gain))


@checked
def calculate_gain(nonlinearity: str, param: float | None = None) -> float:
    """The factor by which weights before this function should be larger.

    Args:
        nonlinearity: ``"linear"``, ``"sigmoid"``, ``"tanh"``, ``"relu"``, ``"leaky_relu"``, ``"selu"``, or ``"conv1d"`` and
            the like, which count as linear.
        param: the slope of ``"leaky_relu"``; ``None`` means 0.01.

    Example:
        >>> import metafuse as mf
        >>> round(mf.init.calculate_gain("relu"), 4)
        1.4142
    """
    linear = ("linear", *(f"conv{t}{d}d" for t in ("", "_transpose") for d in (1, 2, 3)))
    table = {"sigmoid": 1.0, "tanh": 5.0 / 3, "relu": sqrt(2.0), "selu": 0.75, **dict.fromkeys(linear, 1.0)}
    if nonlinearity == "leaky_relu":
        slope = 0.01 if param is None else param
        if not is_number(slope):
            raise ArgumentError(f"[calculate_gain] param must be a number, got {brief(param)}")
        return sqrt(2.0 / (1.0 + slope**2))
    if nonlinearity not in table:
        raise ArgumentError(
            f"[calculate_gain] nonlinearity must be one of {', '.join([*table, 'leaky_relu'])}; got {brief(nonlinearity)}"
        )
    return table[nonlinearity]


@checked
def calculate_std(var: Var, mode: str, nonlinearity: str, param: float = 0.01) -> float:
    """``gain / sqrt(fan)`` of a weight.

    Example:
        >>> import metafuse as mf
        >>> round(mf.init.calculate_std(mf.zeros(8, 4), "fan_in", "relu"), 4)
        0.7071
    """
    fan = _fan("calculate_std", tuple(var.shape), mode)
    return calculate_gain(nonlinearity, param) / sqrt(fan)


@checked
def kaiming_uniform_(var: Var, a: float = 0, mode: str = "fan_in", nonlinearity: str = "leaky_relu") -> Var:
    """Set to uniform numbers in +-``sqrt(3) * gain / sqrt(fan)`` (He et al. 2015); ``a`` is the slope of leaky relu.

    Example:
        >>> import metafuse as mf
        >>> bool((mf.init.kaiming_uniform_(mf.zeros(8, 6)).abs() <= 1).all())
        True
    """
    bound = sqrt(3.0) * calculate_std(var, mode, nonlinearity, a)
    return uniform_(var, -bound, bound)


@checked
def kaiming_normal_(var: Var, a: float = 0, mode: str = "fan_in", nonlinearity: str = "leaky_relu") -> Var:
    """Set to normal numbers with deviation ``gain / sqrt(fan)`` (He et al. 2015); ``a`` is the slope of leaky relu.

    Example:
        >>> import metafuse as mf
        >>> mf.init.kaiming_normal_(mf.zeros(8, 6), nonlinearity="relu").shape
        (8, 6)
    """
    return gauss_(var, 0.0, calculate_std(var, mode, nonlinearity, a))


@checked
def trunc_normal_(var: Var, mean: float = 0.0, std: float = 1.0, a: float = -2.0, b: float = 2.0) -> Var:
    """Set to normal numbers that are all within ``a`` .. ``b``.

    A uniform number between the distribution function's values at ``a`` and ``b`` is put through its inverse.

    Example:
        >>> import metafuse as mf
        >>> bool((mf.init.trunc_normal_(mf.zeros(100), a=-1.0, b=1.0).abs() <= 1).all())
        True
    """
    if not std > 0 or not a < b:
        raise ArgumentError(
            f"[trunc_normal_] needs std > 0 and a < b, got std={brief(std)}, a={brief(a)}, b={brief(b)}"
        )
    low, high = (0.5 * (1 + erf((bound - mean) / (std * sqrt(2)))) for bound in (a, b))
    chance = random(list(var.shape)).numpy().astype(np.float64) * (high - low) + low
    values = np.clip(_normal_quantile(chance) * std + mean, a, b)
    return _put(var, array(values, var.dtype))


@lru_cache(maxsize=1)
def _normal_table() -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Points and the standard normal distribution function at them."""
    points = np.linspace(-9, 9, 36001)
    return points, np.array([0.5 * (1 + erf(x / sqrt(2))) for x in points])


def _normal_quantile(chance: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The inverse of the standard normal distribution function, by linear interpolation between points 0.0005 apart."""
    points, values = _normal_table()
    return np.interp(chance, values, points)


for _function in (
    constant_, eye_, gauss_, invariant_uniform_, kaiming_normal_, kaiming_uniform_, one_, random_, relu_invariant_gauss_,
    trunc_normal_, uniform_, xavier_gauss_, xavier_uniform_, zero_,
):  # fmt: skip
    setattr(Var, _function.__name__, _function)
Var.fill = Var.fill_ = constant_  # type: ignore[attr-defined]
Var.normal_ = gauss_  # type: ignore[attr-defined]
