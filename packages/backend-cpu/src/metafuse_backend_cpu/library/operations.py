"""Which contractions go to oneDNN, and their plans.

What it is: the backend's half of ``metafuse.backend.library``: the mixin ``LibraryOps``. Cheap answers are rules about shapes
and strides; a plan is made by the extension, which may still refuse.
What it is not: the primitives, layouts and packing; see ``native/onednn``.
Who calls it: ``backend.CpuBackend``, which inherits it.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from math import prod

from metafuse.backend.contract import Handle
from metafuse.backend.library import LibraryCall, LibraryOp, LibraryPlan, Operand, PostOp, SupportsLibraryOps

from ..machine import cpu_features
from . import loading

__all__ = ["LibraryOps"]

#: oneDNN counts elements in 64 bits, but its compiled kernels hold many offsets and extents in 32
_MOST_EXTENT = (1 << 31) - 1
_MOST_BYTES = 1 << 40
_CONVOLUTIONS = ("convolution", "convolution_data", "convolution_weight")
_BINARY = ("add", "sub", "mul", "max", "min")
_ELEMENTWISE = (
    "relu",
    "clip",
    "sigmoid",
    "tanh",
    "swish",
    "hardswish",
    "gelu_erf",
    "gelu_tanh",
)
#: products per number that a conversion to bfloat16 takes: below, it costs more than it saves
_FEWEST_USES = 16
#: oneDNN fuses at most this many; longer tails are better off in a kernel of ours
_MOST_POSTS = 8


@lru_cache(maxsize=1)
def _multiplied() -> frozenset[str]:
    """Element types that this processor multiplies itself."""
    names, features = {"float32"}, cpu_features()
    if "avx512_bf16" in features or "amx_bf16" in features:
        names.add("bfloat16")
    if "avx512_fp16" in features or "amx_fp16" in features:
        names.add("float16")
    return frozenset(names)


@lru_cache(maxsize=1)
def _stored() -> frozenset[str]:
    """Element types of operands: the 16-bit ones too where they are quickly converted."""
    short = ("bfloat16", "float16") if cpu_features() >= {"avx2", "f16c"} else ()
    return frozenset(("float32", *short))


def _computed(op: LibraryOp) -> str:
    """The type to which factors are converted: sums are float32 always.

    What isn't bfloat16 becomes that beside one that is. Numbers beyond the range of float16 must not be lost, so it counts only
    where both factors have it; else, as on processors without arithmetic for a type, products are those of float32."""
    types = {op.first.dtype.name, op.second.dtype.name}
    if "float16" in types:
        return "float16" if types == {"float16"} and "float16" in _multiplied() else "float32"
    asked = "bfloat16" in types or (op.math == "bfloat16" and _worth_converting(op))
    return "bfloat16" if asked and "bfloat16" in _multiplied() else "float32"


def _worth_converting(op: LibraryOp) -> bool:
    """Whether the numbers that would be converted in each run are used often enough; packing costs more than copying."""
    second = 0 if op.constant else 1 if op.kind == "convolution_weight" else 4
    return op.points >= _FEWEST_USES * (prod(op.first.shape) + second * prod(op.second.shape))


def _sound(operand: Operand) -> bool:
    """Whether its extents and strides are ones that oneDNN can be given."""
    if not all(0 < extent <= _MOST_EXTENT for extent in operand.shape):
        return False
    if not all(0 <= stride <= _MOST_EXTENT for stride in operand.strides):
        return False
    reach = sum((n - 1) * stride for n, stride in zip(operand.shape, operand.strides, strict=True))
    return (reach + 1) * operand.dtype.itemsize <= _MOST_BYTES


def _distinct(operand: Operand) -> bool:
    """Whether no two elements share memory, by strides that nest."""
    axes = sorted((s, n) for n, s in zip(operand.shape, operand.strides, strict=True) if n > 1)
    reach = 0
    for stride, extent in axes:
        if stride <= reach:
            return False
        reach += stride * (extent - 1)
    return True


def _view(operand: Operand) -> tuple[str, tuple[int, ...], tuple[int, ...]]:
    return operand.dtype.name, operand.shape, operand.strides


def _takes_matmul(op: LibraryOp) -> bool:
    first, second, result = op.first, op.second, op.result
    rank = len(result.shape)
    if not 2 <= rank <= 12 or len(first.shape) != rank or len(second.shape) != rank:
        return False
    for operand in (first, second):  # a broadcast row or column of a matrix is no matrix to a library
        if any(s == 0 and n > 1 for s, n in zip(operand.strides[-2:], operand.shape[-2:], strict=True)):
            return False
    if not op.constant and _is_dot_products(first, second):
        return False
    return (
        first.shape[-1] == second.shape[-2]
        and first.shape[-2] == result.shape[-2]
        and second.shape[-1] == result.shape[-1]
    )


def _is_dot_products(first: Operand, second: Operand) -> bool:
    """A matrix by a vector where every sum runs along memory: oneDNN would copy the matrix, a loop reads it once."""
    if first.shape[-2] == 1:
        return second.shape[-1] > 1 and second.strides[-2] == 1
    return second.shape[-1] == 1 and first.strides[-1] == 1


def _takes_convolution(op: LibraryOp) -> bool:
    spatial = len(op.stride)
    if not 1 <= spatial <= 3 or len(op.dilation) != spatial or len(op.padding) != spatial or op.groups < 1:
        return False
    if any(len(operand.shape) != spatial + 2 for operand in (op.first, op.second, op.result)):
        return False
    if any(stride < 1 for stride in op.stride) or any(step < 1 for step in op.dilation):
        return False
    image, weight, output = op.first, op.second, op.result
    if op.kind == "convolution_data":
        image, output = op.result, op.first
    elif op.kind == "convolution_weight":
        weight, output = op.result, op.second
    if image.shape[1] != weight.shape[1] * op.groups or weight.shape[0] != output.shape[1]:
        return False
    if image.shape[0] != output.shape[0] or output.shape[1] % op.groups:
        return False
    if op.kind == "convolution_data" and any(side < 0 for sides in op.padding for side in sides):
        return False  # what is cropped would have to be filled with zeros
    if op.scale and op.kind != "convolution":
        return False
    for d, (before, after) in enumerate(op.padding):
        room = image.shape[d + 2] + before + after - (weight.shape[d + 2] - 1) * op.dilation[d] - 1
        if room < 0 or room // op.stride[d] + 1 != output.shape[d + 2]:
            return False
        if max(before, after) > _MOST_EXTENT:
            return False
    return all(_distinct(operand) for operand in (image, weight, output))


class LibraryOps(SupportsLibraryOps):
    """The oneDNN half of the CPU backend."""

    def takes(self, op: LibraryOp) -> bool:
        """Whether oneDNN is here and the operation is one that it does well."""
        if op.math not in ("float32", "bfloat16") or loading.absence() is not None:
            return False
        parties = (op.first, op.second, op.result)
        if any(operand.dtype.name not in _stored() for operand in parties):
            return False
        if not all(_sound(operand) for operand in parties) or not _distinct(op.result):
            return False
        if op.kind == "matmul":
            fits = _takes_matmul(op)
        else:
            fits = op.kind in _CONVOLUTIONS and _takes_convolution(op)
        return fits and loading.onednn() is not None

    def takes_post(self, op: LibraryOp, post: PostOp, operand: Operand | None) -> bool:
        """Whether oneDNN fuses ``post`` into the primitive of ``op``."""
        if op.kind not in ("matmul", "convolution") or len(op.post) >= _MOST_POSTS:
            return False
        if operand is None:
            return post.kind in _ELEMENTWISE
        return post.kind in _BINARY and _broadcasts(op, operand) and _fusible(op, operand)

    def library_plan(self, op: LibraryOp) -> LibraryPlan | None:
        """Primitives and layouts for ``op``; ``None`` where oneDNN has only its slow reference for it."""
        if not self.takes(op) or not all(_follows(op, post) for post in op.post):
            return None
        module = loading.onednn()
        if module is None:
            return None
        made = module.plan(
            op.kind,
            _view(op.first),
            _view(op.second),
            _view(op.result),
            op.groups,
            op.stride,
            op.dilation,
            [before for before, _ in op.padding],
            [after for _, after in op.padding],
            op.scale,
            [_view(operand) for operand in op.operands],
            [(post.kind, post.operand, post.alpha, post.beta) for post in op.post],
            op.constant,
            _computed(op),
        )
        if made is None:
            return None
        return LibraryPlan(made.step, made.scratch_bytes, made.kept_bytes, f"oneDNN {made.about}")

    def about_library(self) -> str:
        """One line for people: which oneDNN this is, or why there is none. Loads it."""
        return loading.describe()

    def launch_library(self, call: LibraryCall, handles: Sequence[Handle], changed: bool) -> None:
        """Run one call; programs do the same for many with less overhead."""
        self.run(self.prepare([call], ""), handles, (), changed)  # type: ignore[attr-defined]


def _follows(op: LibraryOp, post: PostOp) -> bool:
    """Whether a post-operation of ``op`` makes sense at all, fused or not."""
    if post.operand < 0:
        return post.kind in _ELEMENTWISE
    return (
        post.kind in _BINARY
        and post.operand < len(op.operands)
        and _broadcasts(op, op.operands[post.operand])
    )


def _broadcasts(op: LibraryOp, operand: Operand) -> bool:
    """Whether an operand has an element for each of the result's."""
    missing = len(op.result.shape) - len(operand.shape)
    if missing < 0 or operand.dtype.name not in _stored() or not _sound(operand):
        return False
    return all(n in (1, whole) for n, whole in zip(operand.shape, op.result.shape[missing:], strict=True))


def _fusible(op: LibraryOp, operand: Operand) -> bool:
    """A scalar, a vector along the channels (columns), or every element in the layout of the result."""
    result = op.result
    missing = len(result.shape) - len(operand.shape)
    shape = (1,) * missing + operand.shape
    strides = (0,) * missing + operand.strides
    varying = {d for d, (n, s) in enumerate(zip(shape, strides, strict=True)) if n > 1 and s != 0}
    channel = 1 if op.kind != "matmul" else len(result.shape) - 1
    if varying <= {channel}:
        return prod(strides[d] for d in varying) == 1
    if op.kind != "matmul" and not _channels_last(result):
        return False  # the result is made in another layout and copied
    return all(n == 1 or strides[d] == result.strides[d] for d, n in enumerate(result.shape))


def _channels_last(image: Operand) -> bool:
    """Whether an image is dense with its channels innermost."""
    step = 1
    for d in (1, *range(len(image.shape) - 1, 1, -1), 0):
        if image.shape[d] > 1 and image.strides[d] != step:
            return False
        step *= image.shape[d]
    return True
