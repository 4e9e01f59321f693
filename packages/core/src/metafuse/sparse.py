"""Sparse arrays in coordinate form.

What it is: ``SparseVar``, a list of places and the values there, and its product with a dense matrix. Both are reindex and
scatter-add, so they are compiled, and have gradients with respect to the values and the dense operand.
What it is not: a solver, or a compressed format.
Who calls it: users, as ``metafuse.sparse``.

Source: coordinate format, Saad, "Iterative Methods for Sparse Linear Systems", 2nd edition, section 3.4.
"""

from __future__ import annotations

from typing import Any

from .arguments import checked
from .dtypes import DType, promote
from .errors import ArgumentError, DTypeError, ShapeError
from .ops.elementwise import cast
from .ops.meta import check_shape, check_var
from .ops.reindexing import reindex, reindex_reduce
from .ops.shape import concat
from .var import Shape, Var

__all__ = ["SparseVar", "sparse_array", "spmm"]


@checked
class SparseVar:
    """An array of ``shape`` that is zero except at ``indices``; values at equal places add up.

    Args:
        indices: integers ``[number of dimensions, number of values]``: a column per value.
        values: ``[number of values]``.
        shape: extents of the array.

    Attributes: ``indices``, ``values``, ``shape``, ``ndim``, ``dtype``, ``nnz`` (number of values).

    Errors:
        DTypeError, ShapeError: kinds or shapes that do not fit. ArgumentError: an index outside of ``shape``.

    Example:
        >>> import metafuse as mf
        >>> x = mf.sparse.SparseVar([[0, 1], [2, 0]], [3.0, 4.0], [2, 3])
        >>> x.to_dense().numpy()
        array([[0., 0., 3.],
               [4., 0., 0.]], dtype=float32)
    """

    def __init__(self, indices: Any, values: Any, shape: Any) -> None:
        self.indices = check_var("SparseVar", "indices", indices)
        self.values = check_var("SparseVar", "values", values)
        self.shape = Shape(check_shape("SparseVar", shape))
        self._check()

    def _check(self) -> None:
        if not self.indices.dtype.is_integer:
            raise DTypeError(f"[SparseVar] indices must be integers, got {self.indices.dtype}; cast them")
        ndim = len(self.shape)
        if not ndim or self.values.ndim != 1 or tuple(self.indices.shape) != (ndim, self.values.shape[0]):
            raise ShapeError(
                f"[SparseVar] needs values [n] and indices [{ndim}, n] for shape {list(self.shape)}, got "
                f"{list(self.values.shape)} and {list(self.indices.shape)}"
            )
        if not self.nnz:
            return
        places = self.indices.numpy()
        for d, extent in enumerate(self.shape):
            low, high = int(places[d].min()), int(places[d].max())
            if low < 0 or high >= extent:
                raise ArgumentError(
                    f"[SparseVar] indices[{d}] must be in 0..{extent - 1} for shape {list(self.shape)}, got {low}..{high}"
                )

    @classmethod
    def _of(cls, indices: Var, values: Var, shape: tuple[int, ...]) -> SparseVar:
        """One whose parts are known to fit."""
        made = cls.__new__(cls)
        made.indices, made.values, made.shape = indices, values, Shape(shape)
        return made

    @property
    def ndim(self) -> int:
        """Number of dimensions."""
        return len(self.shape)

    @property
    def nnz(self) -> int:
        """Number of values kept."""
        return int(self.values.shape[0])

    @property
    def dtype(self) -> DType:
        """Element type."""
        return self.values.dtype

    def t(self) -> SparseVar:
        """The transpose of a matrix; nothing is computed but the order of the indices.

        Errors:
            ShapeError: not two dimensions.
        """
        if self.ndim != 2:
            raise ShapeError(f"[SparseVar.t] needs two dimensions, got shape {list(self.shape)}")
        swapped = concat([self.indices[1:2], self.indices[0:1]])
        return SparseVar._of(swapped, self.values, self.shape[::-1])

    def to_dense(self) -> Var:
        """The whole array, as a Var."""
        places = [f"@e0({d},i0)" for d in range(self.ndim)]
        return reindex_reduce(self.values, "add", list(self.shape), places, [], [self.indices])

    def __matmul__(self, other: Any) -> Var:
        return spmm(self, other)

    def __repr__(self) -> str:
        return f"metafuse.SparseVar(shape={list(self.shape)}, nnz={self.nnz}, dtype={self.dtype})"


@checked
def sparse_array(indices: Any, values: Any, shape: Any) -> SparseVar:
    """A ``SparseVar``; see there.

    Example:
        >>> import metafuse as mf
        >>> mf.sparse.sparse_array([[0], [1]], [2.0], [2, 2]).t().to_dense().numpy()
        array([[0., 0.],
               [2., 0.]], dtype=float32)
    """
    return SparseVar(indices, values, shape)


@checked
def spmm(spase_x: SparseVar, y: Any) -> Var:
    """The product of a sparse matrix ``[m, n]`` and a dense matrix ``[n, k]`` (or vector ``[n]``).

    Returns:
        Var ``[m, k]`` (or ``[m]``).

    Errors:
        DTypeError: ``spase_x`` is no SparseVar. ShapeError: extents that do not fit.

    Example:
        >>> import metafuse as mf
        >>> x = mf.sparse.sparse_array([[0, 1], [1, 0]], [2.0, 3.0], [2, 2])
        >>> mf.sparse.spmm(x, mf.array([[1.0], [10.0]])).numpy()
        array([[20.],
               [ 3.]], dtype=float32)
    """
    if not isinstance(spase_x, SparseVar):
        raise DTypeError(
            f"[spmm] spase_x must be a SparseVar, got {type(spase_x).__name__}; see sparse_array"
        )
    y = check_var("spmm", "y", y)
    if spase_x.ndim != 2 or y.ndim not in (1, 2) or spase_x.shape[1] != y.shape[0]:
        raise ShapeError(
            f"[spmm] needs [m, n] and [n, k] (or [n]), got {list(spase_x.shape)} and {list(y.shape)}"
        )
    common = promote(spase_x.dtype, y.dtype)
    values, y = cast(spase_x.values, common), cast(y, common)
    indices = spase_x.indices
    rest = [f"i{k}" for k in range(1, y.ndim)]
    taken = reindex(y, [spase_x.nnz, *y.shape[1:]], ["@e0(1,i0)", *rest], 0, [], [indices])
    scaled = taken * (values.unsqueeze(1) if y.ndim == 2 else values)
    return reindex_reduce(
        scaled, "add", [spase_x.shape[0], *y.shape[1:]], ["@e0(0,i0)", *rest], [], [indices]
    )
