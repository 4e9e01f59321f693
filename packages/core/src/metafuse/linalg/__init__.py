"""Linear algebra: factorisations, inverses, determinants, systems of equations, Einstein sums.

What it is: the names of ``ops.factorise``, ``ops.solve`` and ``ops.einsum`` under one roof. LAPACK does the work on the
host, through NumPy, for stacks of matrices in leading dimensions; results have gradients of any order.
What it is not: products of matrices (``metafuse.matmul``, compiled).
Who calls it: users, as ``metafuse.linalg``.

Half-precision and integer input is computed in float32. Errors that only values can cause (a singular matrix) are raised when
the value is computed, and name the line that asked for it.
"""

from ..ops.einsum import einsum
from ..ops.factorise import cholesky, complex_eig, complex_qr, complex_svd, eig, eigh, qr, svd
from ..ops.solve import complex_inv, det, inv, pinv, slogdet, solve

__all__ = [
    "cholesky",
    "complex_eig",
    "complex_inv",
    "complex_qr",
    "complex_svd",
    "det",
    "eig",
    "eigh",
    "einsum",
    "inv",
    "pinv",
    "qr",
    "slogdet",
    "solve",
    "svd",
]
