"""Random numbers: counter-based, the same bits on every backend, for any number of threads and at every replay.

What it is: sources that read the Philox-4x32-10 stream at (seed, offset); seed and offset are taken when the operator is
recorded and are run-time numbers, so a training loop compiles nothing new.
What it is not: cryptography.
Who calls it: users, ``init``, ``neural.dropout``.

Source: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011; normal numbers by Box and Muller, 1958.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from functools import lru_cache
from threading import Lock
from typing import Any

import numpy as np

from ..dtypes import DType, float32, float64, int64
from ..errors import ArgumentError, DTypeError, ShapeError, brief
from ..graph.node import Signature, signature, spec_of
from ..kernel.expr import Expr, call
from ..var import Var, record
from .creation import _split_dtype
from .elementwise import KNOWN_LIMIT, broadcast_shapes, cast
from .meta import check_dtype, check_flag, check_integer, check_number, check_shape, check_var, linear_index
from .scalar import cos, log
from .telling import renamed, tells

__all__ = [
    "bernoulli", "get_seed", "multinomial", "normal", "rand", "rand_like", "randint", "randint_like", "randn", "randn_like",
    "random", "randperm", "seed", "set_global_seed", "set_seed", "uniform",
]  # fmt: skip


#: the largest number below 1
_BELOW_ONE = {"float16": 1 - 2.0**-11, "bfloat16": 1 - 2.0**-8}


class _Stream:
    """Where in which stream the next operator reads. ``rank`` answers which of several processes this is; ``dist`` sets it."""

    rank: Callable[[], int] = staticmethod(lambda: 0)

    def __init__(self) -> None:
        self.lock = Lock()
        self.seed = (time.time_ns() ^ os.getpid() << 20) & 0x7FFF_FFFF
        self.offset = 0

    def take(self, count: int) -> tuple[int, int]:
        """Reserve ``count`` numbers; answers seed and offset (in blocks of four)."""
        with self.lock:
            offset = self.offset
            self.offset += -(-count // 4)
            return self.seed, offset

    def after_fork(self) -> None:
        """In a process that was forked while another thread held the lock, nobody would give it back."""
        self.lock = Lock()


_stream = _Stream()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_stream.after_fork)


def seed_of(seed: int, rank: int) -> int:
    """The seed of a rank; that of rank 0 is ``seed`` itself."""
    return (int(seed) + rank * 2591) % 2**63


def set_global_seed(seed: int, different_seed_for_mpi: bool = True) -> None:
    """Start all random streams (metafuse, NumPy, ``random``) anew at ``seed``.

    ``different_seed_for_mpi``: each rank of a distributed run gets a seed of its own, so that dropout differs; rank 0 has
    ``seed``.

    Example:
        >>> import metafuse as mf
        >>> mf.set_global_seed(5)
        >>> x = mf.rand(3)
        >>> mf.set_global_seed(5)
        >>> bool((mf.rand(3) == x).all())
        True
    """
    import random as python_random

    by_rank = check_flag("set_global_seed", "different_seed_for_mpi", different_seed_for_mpi)
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or not 0 <= seed < 2**63:
        raise ArgumentError(f"[set_global_seed] seed must be an integer in 0..2**63-1, got {brief(seed)}")
    if by_rank:
        seed = seed_of(seed, _stream.rank())
    with _stream.lock:
        _stream.seed, _stream.offset = int(seed), 0
    np.random.seed(int(seed) % 2**32)
    python_random.seed(int(seed))


set_seed, seed = renamed("set_seed", set_global_seed), renamed("seed", set_global_seed)


def get_seed() -> int:
    """The seed of the stream.

    Example:
        >>> import metafuse as mf
        >>> mf.set_global_seed(5)
        >>> mf.get_seed()
        5
    """
    return _stream.seed


def _uniform(shape: tuple[int, ...]) -> Var:
    """float32 in [0, 1)."""
    sig = _drawing(shape)
    return record(sig, (), _stream.take(sig.spec.size))


@lru_cache(maxsize=KNOWN_LIMIT)
def _drawing(shape: tuple[int, ...]) -> Signature:
    body = call("uniform", Expr("scalar", (), int64, 0), Expr("scalar", (), int64, 1), linear_index(shape))
    body = Expr(body.op, body.args, float32)
    return signature("map", "uniform", shape, (), spec_of(shape, float32), body, (int64, int64))


def _float_type(operator: str, dtype: Any) -> DType:
    kind = check_dtype(operator, dtype)
    if not kind.is_float:
        raise DTypeError(f"[{operator}] dtype must be floating, got {kind}")
    return kind


def random(shape: Any = (1,), dtype: Any = float32, type: str = "uniform") -> Var:
    """Random numbers of ``shape``: ``type`` "uniform" in [0, 1) or "normal" (mean 0, deviation 1).

    Example:
        >>> import metafuse as mf
        >>> mf.set_global_seed(1)
        >>> x = mf.random([2, 3])
        >>> bool((x >= 0).all() & (x < 1).all())
        True
    """
    extents = check_shape("random", shape)
    kind = _float_type("random", dtype)
    if not isinstance(type, str):
        raise DTypeError(f"[random] type must be 'uniform' or 'normal', got {brief(type)}")
    if type == "uniform":
        drawn = _uniform(extents)
        # 16-bit floats have few digits: what is next to 1 must not become 1
        result = cast(drawn.minimum(_BELOW_ONE[kind.name]) if kind.is_half else drawn, kind)  # type: ignore[attr-defined]
    elif type == "normal":
        # 1 - u is in (0, 1], so the logarithm is finite
        radius = (log(1.0 - _uniform(extents)) * -2.0).sqrt()  # type: ignore[attr-defined]
        result = cast(radius * cos(_uniform(extents) * (2 * math.pi)), kind)
    else:
        raise ArgumentError(f"[random] type must be 'uniform' or 'normal', got {brief(type)}")
    return result.start_grad()


def rand(*shape: Any, dtype: Any = float32, requires_grad: bool = True) -> Var:
    """Uniform numbers in [0, 1).

    Example:
        >>> import metafuse as mf
        >>> mf.rand(2, 3).shape
        (2, 3)
    """
    shape, dtype = _split_dtype(shape, dtype)
    result = random(_shape_of("rand", shape), dtype)
    return result if check_flag("rand", "requires_grad", requires_grad) else result.stop_grad()


def randn(*shape: Any, dtype: Any = float32, requires_grad: bool = True) -> Var:
    """Normal numbers of mean 0 and deviation 1.

    Example:
        >>> import metafuse as mf
        >>> mf.randn(2, 3).dtype
        metafuse.float32
    """
    shape, dtype = _split_dtype(shape, dtype)
    result = random(_shape_of("randn", shape), dtype, "normal")
    return result if check_flag("rand", "requires_grad", requires_grad) else result.stop_grad()


def _shape_of(operator: str, shape: tuple[Any, ...]) -> tuple[int, ...]:
    if len(shape) == 1 and isinstance(shape[0], (tuple, list)):
        shape = tuple(shape[0])
    return check_shape(operator, shape) if shape else (1,)


def _shaped(name: str, x: Any, dtype: Any, type: str = "uniform") -> Var:
    x = check_var(name, "x", x)
    return random(tuple(x.shape), dtype if dtype is not None else x.dtype, type)


@tells
def rand_like(x: Any, dtype: Any = None) -> Var:
    """Uniform numbers of the shape of ``x``.

    Example:
        >>> import metafuse as mf
        >>> mf.rand_like(mf.zeros(2, 3)).shape
        (2, 3)
    """
    return _shaped("rand_like", x, dtype)


@tells
def randn_like(x: Any, dtype: Any = None) -> Var:
    """Normal numbers of the shape of ``x``.

    Example:
        >>> import metafuse as mf
        >>> mf.randn_like(mf.zeros(2, 3)).shape
        (2, 3)
    """
    return _shaped("randn_like", x, dtype, "normal")


@tells
def randint_like(x: Any, low: int, high: int | None = None) -> Var:
    """Whole numbers in low..high-1 (0..low-1 with one bound), of the shape and dtype of ``x``.

    Example:
        >>> import metafuse as mf
        >>> mf.randint_like(mf.zeros(2, 2), 5).dtype
        metafuse.float32
    """
    x = check_var("randint_like", "x", x)
    return randint(low, high, tuple(x.shape), x.dtype)


@tells
def uniform(low: Any = 0.0, high: Any = 1.0, size: Any = (1,), dtype: Any = float32) -> Var:
    """Uniform numbers in [low, high).

    Example:
        >>> import metafuse as mf
        >>> bool((mf.uniform(2.0, 3.0, [4]) >= 2.0).all())
        True
    """
    low, high = _bounds("uniform", low=low, high=high)
    return random(size, dtype) * (high - low) + low


def _bounds(operator: str, **values: Any) -> tuple[Any, Any]:
    """Two numbers or Vars."""
    one, two = (
        (check_number if isinstance(v, (bool, int, float)) else check_var)(operator, n, v)
        for n, v in values.items()
    )
    return one, two


@tells
def normal(mean: Any = 0.0, std: Any = 1.0, size: Any = None, dtype: Any = float32) -> Var:
    """Normal numbers of the given mean and standard deviation.

    Args:
        mean, std: numbers or Vars.
        size: shape; ``None``: the broadcast shape of ``mean`` and ``std``.

    Example:
        >>> import metafuse as mf
        >>> mf.normal(0.0, 2.0, [3]).shape
        (3,)
    """
    mean, std = _bounds("normal", mean=mean, std=std)
    if size is None:
        size = broadcast_shapes("normal", [tuple(v.shape) for v in (mean, std) if type(v) is Var]) or (1,)
    return random(size, dtype, "normal") * std + mean


def randint(low: int, high: int | None = None, shape: Any = (1,), dtype: Any = "int32") -> Var:
    """Whole numbers in low..high-1 (0..low-1 with one bound).

    Example:
        >>> import metafuse as mf
        >>> int(mf.randint(0, 5, [10]).max()) < 5
        True
    """
    if high is None:
        low, high = 0, low
    low, high = check_integer("randint", "low", low), check_integer("randint", "high", high)
    if high <= low:
        raise ArgumentError(f"[randint] needs whole numbers low < high, got {brief(low)} and {brief(high)}")
    # float32 has 24 random bits; scaled in float64 so that ranges up to 2**24 are even
    drawn = cast(cast(_uniform(check_shape("randint", shape)), "float64") * float(high - low), "int64") + low
    return cast(drawn, dtype)


@tells
def randperm(n: int, dtype: Any = "int32") -> Var:
    """A random order of 0..n-1.

    Example:
        >>> import metafuse as mf
        >>> sorted(mf.randperm(4).tolist())
        [0, 1, 2, 3]
    """
    from .sorting_loops import permutation

    return cast(permutation(_uniform((3,)), check_integer("randperm", "n", n, 0)), dtype)


def bernoulli(input: Any) -> Var:
    """1 with the probability that each element says, else 0; in the dtype of ``input``.

    Example:
        >>> import metafuse as mf
        >>> mf.bernoulli(mf.array([0.0, 1.0])).numpy()
        array([0., 1.], dtype=float32)
    """
    p = check_var("bernoulli", "input", input)
    if not p.dtype.is_float:
        raise DTypeError(f"[bernoulli] input must hold probabilities, got {p.dtype}; cast it to float32")
    return cast(_uniform(tuple(p.shape)) < p, p.dtype)


def multinomial(weights: Any, num_samples: int, replacement: bool = False) -> Var:
    """Numbers of columns drawn with probabilities in proportion to ``weights``.

    Args:
        weights: ``[columns]`` or ``[rows, columns]``, not negative; each row is drawn from on its own.
        num_samples: how many; without ``replacement`` at most as many as columns, and those of weight 0 come last.

    Returns:
        int32 ``[..., num_samples]``.

    Example:
        >>> import metafuse as mf
        >>> mf.multinomial(mf.array([0.0, 3.0]), 3, replacement=True).numpy()
        array([1, 1, 1], dtype=int32)
    """
    from .bins import searchsorted
    from .scan import cumsum
    from .sorting import topk

    w = check_var("multinomial", "weights", weights)
    count = check_integer("multinomial", "num_samples", num_samples, 0)
    if w.ndim not in (1, 2) or not w.shape[-1]:
        raise ShapeError(
            f"[multinomial] weights must be [columns] or [rows, columns], got shape {list(w.shape)}"
        )
    if not check_flag("multinomial", "replacement", replacement):
        if count > w.shape[-1]:
            raise ArgumentError(
                f"[multinomial] can't draw {count} of {w.shape[-1]} columns without replacement; set replacement=True"
            )
        # who arrives first of exponential times with these rates: Efraimidis and Spirakis, 2006
        arrival = -log(1.0 - _uniform(tuple(w.shape))) / cast(w, float32)
        return topk(arrival, count, -1, False)[1]
    total = cumsum(cast(w, float64), -1)
    last = total.max(-1, keepdims=True)
    drawn = cast(_uniform((*w.shape[:-1], count)), float64) * last
    # rounding may reach the total itself, which belongs to the first column that attains it
    return searchsorted(total, drawn, True).minimum(searchsorted(total, last))
