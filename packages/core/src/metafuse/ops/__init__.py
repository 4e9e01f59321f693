"""What exists: importing this package registers every operator record.

What it is: the list of modules, and the public functions that are no records of their own.
What it is not: a second list of operators; those are found through ``registry``.
Who calls it: ``metafuse.__init__``.
"""

from . import arrange, casting, products, scan, selection, sorting, special, statistics
from . import einsum as _einsum
from . import neural as _neural
from . import shape as _shape
from .autograd import enable_grad, grad, no_grad
from .code import code
from .creation import arange, array, array64, empty, eye, full, linspace, ones, zeros
from .function import Function
from .host import nonzero
from .indexing import getitem, setitem
from .linalg import matmul_transpose
from .meta import index
from .random import (
    get_seed,
    normal,
    rand,
    rand_like,
    randint,
    randn,
    randn_like,
    random,
    randperm,
    set_global_seed,
    set_seed,
    uniform,
)
from .reduce import reduce
from .registry import later as _later
from .reindexing import reindex, reindex_reduce
from .scalar import where

__all__ = [
    "Function", "arange", "array", "array64", "code", "empty", "enable_grad", "eye", "full", "get_seed", "getitem",
    "grad", "index", "linspace", "matmul_transpose", "no_grad", "nonzero", "normal", "ones", "rand", "rand_like",
    "randint", "randn", "randn_like", "random", "randperm", "reduce", "reindex", "reindex_reduce", "set_global_seed",
    "set_seed", "setitem", "uniform", "where", "zeros",
]  # fmt: skip

_later("factorise", "fourier", "solve")
