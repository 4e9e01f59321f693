"""Contractions through oneDNN whose operands have different element types, and products rounded to bfloat16."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import pytest

from library_kit import BASES, ONES, cases, convolution, in_dtypes, laid_out, matmul, operands, with_posts
from metafuse.backend.library import LibraryOp, Operand, PostOp
from metafuse.dtypes import DType, as_dtype, bfloat16, float16, float32
from metafuse_backend_cpu.library import loading
from metafuse_backend_cpu.library.operations import _computed, _stored

pytestmark = [
    pytest.mark.skipif(loading.onednn() is None, reason=str(loading.absence())),
    pytest.mark.skipif("bfloat16" not in _stored(), reason="no short floats on this processor"),
]

TYPES = (float32, bfloat16, float16)
ALL = list(product(TYPES, TYPES, TYPES))
BACKWARD = {
    "3x3": ((2, 16, 9, 9), (32, 16, 3, 3), {"padding": ONES}),
    "channels first": ((2, 16, 9, 9), (32, 16, 3, 3), {"padding": ONES, "last": False}),
    "1x1, wide": ((2, 96, 9, 9), (32, 96, 1, 1), {"stride": (2, 2)}),
    "depthwise": ((2, 16, 9, 9), (16, 1, 3, 3), {"padding": ONES, "groups": 16}),
    "grouped": ((2, 16, 9, 9), (32, 8, 3, 3), {"padding": ONES, "groups": 2}),
    "strided": ((2, 96, 9, 9), (16, 96, 3, 3), {"padding": ONES, "stride": (2, 2)}),
    "first of a network": ((2, 3, 21, 20), (16, 3, 7, 7), {"stride": (2, 2), "last": False}),
}


@pytest.fixture
def case(backend):
    yield from cases(backend)


def computed(op: LibraryOp) -> DType:
    return as_dtype(_computed(op))


def name_of(types: tuple[DType, ...]) -> str:
    return " ".join(map(str, types))


@pytest.mark.parametrize("math", ["float32", "bfloat16"])
@pytest.mark.parametrize("types", ALL, ids=name_of)
@pytest.mark.parametrize("name", BASES)
def test_every_combination(case, name, types, math):
    op = replace(in_dtypes(BASES[name], *types), math=math)
    for one in (
        op,
        replace(op, constant=True),
        replace(op, scale=True),
        replace(op, scale=True, constant=True),
    ):
        made = case(one)
        made.check(computed=computed(one))
        made.check(computed=computed(one), changed=False)


@pytest.mark.parametrize("operand", TYPES, ids=str)
@pytest.mark.parametrize("types", ALL, ids=name_of)
@pytest.mark.parametrize("name", BASES)
def test_operands_of_the_result(case, name, types, operand):
    parts = {key: replace(view, dtype=operand) for key, view in operands(BASES[name]).items()}
    op = with_posts(
        in_dtypes(BASES[name], *types),
        (PostOp("add"), parts["vector"]),
        (PostOp("relu"), None),
        (PostOp("mul"), parts["full"]),
        (PostOp("add"), parts["vector by strides"]),
    )
    made = case(op)
    # What is not fused is rounded after each step.
    made.check(computed=computed(op), rounded=12 if "apart" in made.plan.about else 1, tolerance=3e-5)


@pytest.mark.parametrize("math", ["float32", "bfloat16"])
@pytest.mark.parametrize("types", ALL, ids=name_of)
@pytest.mark.parametrize("kind", ["convolution_data", "convolution_weight"])
@pytest.mark.parametrize("name", BACKWARD)
def test_gradients(case, name, kind, types, math):
    image, weight, more = BACKWARD[name]
    op = replace(in_dtypes(convolution(kind, image, weight, **more), *types), math=math)
    case(op).check(computed=computed(op))


def test_what_is_multiplied():
    op = BASES["3x3"]
    wide = {
        _computed(in_dtypes(op, *types)) for types in ALL if float16 in types[:2] and types[0] is not types[1]
    }
    assert wide == {"float32"}  # nothing beyond the range of float16 is lost
    assert _computed(op) == "float32"
    short = _computed(in_dtypes(op, bfloat16, float32, float32))
    assert short == _computed(replace(op, math="bfloat16", constant=True))
    thin = matmul(laid_out((400, 300)), laid_out((300, 10)), math="bfloat16")
    assert _computed(thin) == "float32"  # a conversion would cost more than it saves
    assert _computed(in_dtypes(thin, bfloat16, float32, float32)) == short


def test_range_of_float32_beside_float16(case):
    op = in_dtypes(BASES["matrix"], float16, float32, float32)
    made = case(op)
    made.buffers[1] *= 1e30
    made.upload(1)
    made.check()


SPECIAL = np.array(
    [np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-40, 3.3895e38, 65504.0, 65520.0, 1 + 2.0**-9], np.float32
)


@pytest.mark.parametrize("types", list(product(TYPES, TYPES)), ids=name_of)
def test_rounding_is_that_of_the_types(case, types):
    """A product by ones is a conversion and nothing else."""
    source, target = types
    made = case(in_dtypes(matmul(laid_out((len(SPECIAL), 1)), laid_out((1, 2))), source, source, target))
    with np.errstate(over="ignore"):
        made.buffers[0][:] = source.convert(SPECIAL)
        made.buffers[1][:] = 1
        made.upload(0)
        made.upload(1)
        wanted = target.convert(source.convert(SPECIAL).astype(np.float32))
    got = made.run()[:, 1]
    normal = ~(np.abs(wanted) < 1e-37) | (wanted == 0)  # denormals of bfloat16 may be taken for zero
    assert np.array_equal(got[normal], wanted[normal], equal_nan=True)


@pytest.mark.parametrize("source", TYPES, ids=str)
@pytest.mark.parametrize("order", [(0, 1, 2), (0, 2, 1), (2, 1, 0), (1, 2, 0)])
@pytest.mark.parametrize("extents", [(2, 70, 41), (3, 8, 129), (1, 2, 300), (5, 3, 2)])
def test_copies_of_any_layout(case, source, order, extents):
    """Both factors are converted or packed, whatever their order of dimensions."""
    batch, rows, inner = extents
    op = matmul(
        laid_out(extents, order), laid_out((batch, inner, 35), order), laid_out((batch, rows, 35), order)
    )
    for target in TYPES:
        for constant in (False, True):
            one = replace(in_dtypes(op, source, float16, target), constant=constant)
            case(one).check(computed=computed(one))


def test_rows_with_gaps(case):
    op = matmul(
        Operand(bfloat16, (30, 20), (64, 1)),
        Operand(float16, (20, 16), (1, 33)),
        Operand(float16, (30, 16), (48, 1)),
    )
    case(op).check(computed=computed(op))
    op = matmul(Operand(float32, (5, 30, 20), (0, 64, 1)), replace(laid_out((5, 20, 16)), dtype=bfloat16))
    case(op).check(computed=computed(op))


@pytest.mark.parametrize("scale", [False, True])
@pytest.mark.parametrize("types", list(product(TYPES, TYPES)), ids=name_of)
@pytest.mark.parametrize(
    "channels", [(1024, 48), (1024, 50), (512, 200), (33, 70), (2048, 16), (31, 130)], ids=str
)
def test_weights_in_blocks_that_are_not_full(case, threads, channels, types, scale):
    """Rows whose length is a large power of two are turned by copies of ours, as is whatever is scaled."""
    threads(2)
    taken, made = channels
    op = convolution("convolution", (1, taken, 3, 4), (made, taken, 1, 1), scale=scale)
    one = in_dtypes(op, *types, float32)
    case(one).check(computed=computed(one))
    if not scale:
        op = convolution("convolution_data", (1, taken, 3, 4), (made, taken, 1, 1), constant=True)
        one = in_dtypes(op, *types, float32)
        case(one).check(computed=computed(one))


def test_cropped_images_of_another_type(case):
    for kind in ("convolution", "convolution_weight"):
        op = convolution(kind, (2, 16, 12, 11), (8, 16, 3, 3), padding=((-2, 1), (1, -3)))
        for types in ALL[1:]:
            one = in_dtypes(op, *types)
            case(one).check(computed=computed(one))


def test_large_copies_on_several_threads(case, threads):
    threads(2)
    for order in ((0, 1), (1, 0)):
        op = in_dtypes(matmul(laid_out((700, 600), order), laid_out((600, 500))), float16, bfloat16, float32)
        case(op).check(computed=computed(op))
