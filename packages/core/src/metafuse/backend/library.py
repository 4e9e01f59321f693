"""Library operations: contractions that a backend may hand to a vendor's library instead of generated loops.

What it is: the vocabulary in which core describes one matrix product or convolution, with what is applied to its result,
and the ability ``SupportsLibraryOps`` with which a backend takes or refuses it.
What it is not: required. What is refused, or on a backend without the ability, runs through generated loops.
Who calls it: ``passes.library`` describes and asks at planning time; ``runtime.launching`` runs what was taken.

Every operand is a strided view of a whole buffer: dimensions have a fixed meaning and order per kind, strides say where
the elements are, so that any layout in memory (channels last, a transposed weight) is the same description.

=====================  ===============================  ===============================  ================================
kind                   first                            second                           result
=====================  ===============================  ===============================  ================================
``matmul``             (batch..., M, K)                 (batch..., K, N)                 (batch..., M, N)
``convolution``        image (N, C, *spatial)           weight (O, C / groups, *kernel)  image (N, O, *spatial)
``convolution_data``   gradient of the result           weight (O, C / groups, *kernel)  gradient of the image
                       (N, O, *spatial)                                                  (N, C, *spatial)
``convolution_weight`` image (N, C, *spatial)           gradient of the result           gradient of the weight
                                                        (N, O, *spatial)                 (O, C / groups, *kernel)
=====================  ===============================  ===============================  ================================

A batch dimension of extent 1, or of stride 0, is broadcast. A transposed convolution is ``convolution_data``.

Each operand, ``operands`` too, has an element type of its own: float32, bfloat16 or float16. A backend may convert
both factors to bfloat16 where one of them has that type or ``math`` says so, and to float16 where both have it; sums,
``scale`` and post-operations are float32 always, and the result is rounded to its type once, when it is stored (a
backend that can't fuse a post-operation may round before it as well).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

from ..dtypes import DType
from .contract import Handle

__all__ = ["LibraryCall", "LibraryOp", "LibraryPlan", "Operand", "PostOp", "SupportsLibraryOps"]


@dataclass(frozen=True)
class Operand:
    """A strided view of a buffer that starts at its first element. Strides count elements."""

    dtype: DType
    shape: tuple[int, ...]
    strides: tuple[int, ...]


@dataclass(frozen=True)
class PostOp:
    """One step applied to the result before it is stored, in order.

    ``kind``: ``add``, ``sub`` (value - operand), ``mul``, ``max``, ``min`` with operand number ``operand`` of
    ``LibraryOp.operands`` (broadcast to the result's shape), or, with numbers: ``relu`` (v > 0 ? v : alpha * v), ``clip``
    (between alpha and beta), ``sigmoid``, ``tanh``, ``swish`` (v * sigmoid(alpha * v)), ``hardswish``
    (v * clip(alpha * v + beta, 0, 1)), ``gelu_erf``, ``gelu_tanh``.
    """

    kind: str
    operand: int = -1
    alpha: float = 0.0
    beta: float = 0.0


@dataclass(frozen=True)
class LibraryOp:
    """One contraction. Buffers of its call, in order: first, second, result, then ``scale`` (if any), then ``operands``.

    ``stride``, ``dilation`` (1 = dense), ``padding`` (before, after) have one entry per spatial dimension; a negative padding
    crops.
    ``scale``: a float32 vector of one number per output channel (convolution) or column (matmul) that multiplies the weight when
    it is packed, before that is rounded; it is constant whenever the second operand is.
    ``constant``: the second operand (and ``scale``) seldom changes, so that its packed form is worth keeping between runs.
    ``math``: ``"float32"``, or ``"bfloat16"`` where products of float32 may be rounded to bfloat16 first.
    """

    kind: str
    first: Operand
    second: Operand
    result: Operand
    groups: int = 1
    stride: tuple[int, ...] = ()
    dilation: tuple[int, ...] = ()
    padding: tuple[tuple[int, int], ...] = ()
    scale: bool = False
    operands: tuple[Operand, ...] = ()
    post: tuple[PostOp, ...] = ()
    constant: bool = False
    math: str = "float32"

    @property
    def points(self) -> int:
        """Products that are summed, all in all."""
        spatial = len(self.stride)
        if self.kind == "matmul":
            return prod(self.result.shape) * self.first.shape[-1]
        weight = {"convolution_weight": self.result}.get(self.kind, self.second)
        image = {"convolution": self.result, "convolution_data": self.first}.get(self.kind, self.second)
        return image.shape[0] * prod(image.shape[2 : 2 + spatial]) * prod(weight.shape)


@dataclass(frozen=True)
class LibraryPlan:
    """What a backend answers for an operation it takes: the loaded thing itself, and bytes of scratch memory per run.

    ``about`` names the implementation for people. ``kept_bytes``: memory it holds between runs (packed weights)."""

    loaded: Any
    scratch_bytes: int = 0
    kept_bytes: int = 0
    about: str = ""


@dataclass(frozen=True)
class LibraryCall:
    """One step of a program: positions in the handle table of the buffers of ``op``, then of the scratch memory (-1: none).

    ``name`` is for people."""

    op: LibraryOp
    plan: LibraryPlan
    slots: tuple[int, ...]
    scratch: int
    name: str = "library"


class SupportsLibraryOps(ABC):
    """Runs some contractions through a library. A backend that also ``SupportsPrograms`` takes ``LibraryCall`` among its
    steps."""

    @abstractmethod
    def takes(self, op: LibraryOp) -> bool:
        """Cheap answer, without making anything: whether ``library_plan`` is likely to take ``op`` (whatever its ``post``)."""

    @abstractmethod
    def takes_post(self, op: LibraryOp, post: PostOp, operand: Operand | None) -> bool:
        """Cheap answer: whether ``post`` may follow the ``op.post`` that are there already."""

    @abstractmethod
    def library_plan(self, op: LibraryOp) -> LibraryPlan | None:
        """Prepare ``op``, or ``None`` to refuse. Equal operations may share primitives, never kept memory."""

    @abstractmethod
    def launch_library(self, call: LibraryCall, handles: Sequence[Handle], changed: bool) -> None:
        """Run one call. ``changed``: constant operands differ from those of the last run (or this is the first)."""
