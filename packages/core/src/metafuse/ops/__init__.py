"""What exists: importing this package registers every operator record.

What it is: the list of modules, and the public functions that are no records of their own.
What it is not: a second list of operators; those are found through ``registry``.
Who calls it: ``metafuse.__init__``.
"""

from . import casting, numpy_habits
from . import shape as _shape
from .autograd import enable_grad, grad, no_grad
from .code import code, compile_custom_op, compile_custom_ops
from .creation import arange, array, array64, empty, eye, full, linspace, ones, zeros
from .fetching import fetch, fetch_sync
from .function import Function
from .gradient_hooks import GradHooker, grad_hooker
from .incomplete_gamma import igamma
from .indexing import getitem, setitem
from .limits import Finfo, finfo, iinfo
from .linalg import matmul_transpose
from .meta import index
from .numpy_code import numpy_code
from .protocol import *
from .protocol import __all__ as _protocol
from .questions import *
from .questions import __all__ as _questions
from .random import *
from .random import __all__ as _random
from .reduce import reduce
from .registry import later as _later
from .reindexing import reindex, reindex_reduce
from .scalar import where

__all__ = [
    "Finfo", "Function", "GradHooker", "arange", "array", "array64", "code", "compile_custom_op", "compile_custom_ops", "empty",
    "enable_grad", "eye", "fetch", "fetch_sync", "finfo", "full",
    "getitem", "grad", "grad_hooker", "igamma", "iinfo", "index", "linspace", "matmul_transpose", "no_grad", "numpy_code", "ones",
    "reduce", "reindex", "reindex_reduce", "setitem", "where", "zeros",
    *_protocol, *_questions, *_random,
]  # fmt: skip

_later(*(f"{__name__}.{_module}" for _module in (
    "neural", "arrange", "bins", "bounds", "diagonals", "einsum", "factorise", "fourier", "masks", "products", "scan",
    "selection", "solve", "sorting", "special", "statistics", "vision",
)))  # fmt: skip
