"""Embedding: a learned row for each number.

What it is: the table and the look-up.
What it is not: the computation (``ops.neural.basic``).
Who calls it: users.
"""

from __future__ import annotations

from typing import Any

from .. import init
from ..errors import ArgumentError, brief
from ..ops import neural
from ..ops.meta import check_flag
from ..ops.neural.checks import integer
from .module import Module

__all__ = ["Embedding"]


class Embedding(Module):
    """The rows of a table that integers name.

    Args:
        num_embeddings: number of rows.
        embedding_dim: length of a row.
        padding_idx: this row starts as zeros.
        dtype: of the table.
        train_padding: whether the row ``padding_idx`` takes gradients like the others.

    Rows start normally distributed with mean 0 and deviation 1.

    Example:
        >>> import metafuse as mf
        >>> mf.nn.Embedding(10, 3)(mf.array([[1, 2], [3, 4]])).shape
        (2, 2, 3)

    Source: rows of weight.
    """

    _shown = ("num_embeddings", "embedding_dim")

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        padding_idx: int | None = None,
        dtype: Any = "float32",
        train_padding: bool = True,
    ) -> None:
        self.num_embeddings = integer("Embedding", "num_embeddings", num_embeddings, 1)
        self.embedding_dim = integer("Embedding", "embedding_dim", embedding_dim, 1)
        self.padding_idx = padding_idx
        self.train_padding = check_flag("Embedding", "train_padding", train_padding)
        self.weight = init.gauss([self.num_embeddings, self.embedding_dim], dtype)
        if padding_idx is not None:
            if (
                not -num_embeddings
                <= integer("Embedding", "padding_idx", padding_idx, -num_embeddings)
                < num_embeddings
            ):
                raise ArgumentError(
                    f"[Embedding] padding_idx must be in {-num_embeddings}..{num_embeddings - 1}, got {brief(padding_idx)}"
                )
            table = self.weight.numpy()
            table[padding_idx] = 0
            self.weight.update(table)
            self.weight.start_grad()

    def execute(self, x: Any) -> Any:
        return neural.embedding(x, self.weight, None if self.train_padding else self.padding_idx)
