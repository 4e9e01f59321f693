"""Contractions through oneDNN against NumPy in float64: shapes, layouts, post-operations, packed operands, refusals."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from library_kit import (
    BASES,
    ONES,
    TWOS,
    cases,
    channels_last,
    convolution,
    laid_out,
    matmul,
    operands,
    with_posts,
)
from metafuse.backend.library import LibraryOp, Operand, PostOp
from metafuse.dtypes import float32, float64, int32
from metafuse_backend_cpu.library import loading
from metafuse_backend_cpu.library.operations import LibraryOps

pytestmark = pytest.mark.skipif(loading.onednn() is None, reason=str(loading.absence()))

KINDS = ("convolution", "convolution_data", "convolution_weight")


@pytest.fixture
def case(backend):
    yield from cases(backend)


SHAPES = {
    "3x3": ((2, 16, 9, 11), (32, 16, 3, 3), {"padding": ONES}),
    "1x1": ((2, 16, 9, 11), (24, 16, 1, 1), {}),
    "1x1 strided": ((2, 16, 9, 11), (24, 16, 1, 1), {"stride": (2, 2)}),
    "first of a network": ((2, 3, 21, 20), (16, 3, 7, 7), {"stride": (2, 2), "padding": ((3, 3), (3, 3))}),
    "odd channels": ((3, 5, 8, 7), (7, 5, 3, 2), {"padding": ((0, 1), (1, 0))}),
    "one channel": ((2, 1, 12, 12), (1, 1, 5, 5), {}),
    "grouped": ((2, 16, 9, 9), (32, 8, 3, 3), {"groups": 2, "padding": ONES}),
    "grouped, narrow": ((2, 12, 9, 9), (6, 4, 3, 3), {"groups": 3, "padding": ONES}),
    "depthwise": ((2, 20, 9, 9), (20, 1, 3, 3), {"groups": 20, "padding": ONES}),
    "depthwise, strided": ((2, 16, 9, 9), (16, 1, 5, 5), {"groups": 16, "stride": (2, 2), "padding": TWOS}),
    "depthwise, two each": ((2, 8, 9, 9), (16, 1, 3, 3), {"groups": 8, "padding": ONES}),
    "dilated": ((1, 16, 15, 15), (16, 16, 3, 3), {"dilation": (2, 3), "padding": ((2, 2), (3, 3))}),
    "asymmetric": (
        (2, 8, 9, 8),
        (16, 8, 3, 4),
        {"padding": ((0, 2), (3, 1)), "stride": (2, 1)},
    ),
    "one dimension": ((3, 8, 30), (16, 8, 5), {"stride": (3,), "padding": ((2, 4),)}),
    "three dimensions": ((1, 8, 6, 7, 5), (16, 8, 3, 2, 3), {"padding": ((1, 1), (0, 1), (1, 1))}),
    "a last row that no window reaches": ((1, 16, 10, 10), (16, 16, 3, 3), {"stride": (2, 2)}),
    "1x1, wide": ((2, 96, 9, 11), (24, 96, 1, 1), {}),
    "1x1, wide, strided": ((2, 100, 9, 10), (8, 100, 1, 1), {"stride": (2, 3)}),
    "strided, wide": ((2, 96, 9, 9), (16, 96, 3, 3), {"stride": (2, 2), "padding": ONES}),
    "grouped, wide": ((2, 32, 15, 14), (32, 16, 3, 3), {"groups": 2, "padding": ONES}),
    "1x1, narrow to wide": ((2, 64, 9, 11), (80, 64, 1, 1), {}),
    "1x1, wide to narrow": ((2, 80, 9, 11), (24, 80, 1, 1), {}),
    "1x1, narrow, many points": ((16, 8, 160, 161), (9, 8, 1, 1), {}),
    "grouped, rows that collide": ((1, 512, 17, 18), (512, 8, 3, 3), {"groups": 64, "padding": ONES}),
    "grouped, strided, rows that collide": (
        (1, 1024, 18, 17),
        (1024, 16, 3, 3),
        {"groups": 64, "padding": ONES, "stride": (2, 2)},
    ),
    "whole image": ((4, 16, 5, 5), (10, 16, 5, 5), {}),
    "one point": ((4, 16, 1, 1), (10, 16, 1, 1), {}),
}


@pytest.mark.parametrize("last", [True, False], ids=["channels last", "channels first"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", SHAPES)
def test_convolutions(case, kind, name, last):
    image, weight, more = SHAPES[name]
    made = case(convolution(kind, image, weight, last=last, **more))
    if made.plan is None:  # refused, which loops of ours then do: only where no compiled kernel exists
        assert name in ("depthwise, two each", "grouped, narrow")
        return
    assert "ref" not in made.plan.about
    made.check()


@pytest.mark.parametrize("kind", ["convolution", "convolution_weight"])
@pytest.mark.parametrize("last", [True, False])
def test_negative_padding_crops(case, kind, last):
    op = convolution(kind, (2, 16, 12, 11), (8, 16, 3, 3), padding=((-2, 1), (1, -3)), last=last)
    case(op).check()


def test_image_and_result_in_different_orders(case):
    op = convolution("convolution", (2, 3, 12, 12), (16, 3, 3, 3), padding=ONES)
    case(replace(op, first=laid_out(op.first.shape))).check()
    case(replace(op, result=laid_out(op.result.shape))).check()
    case(replace(op, first=laid_out(op.first.shape, (3, 1, 0, 2)))).check()


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (0, 2, 3, 1), (2, 3, 1, 0)])
@pytest.mark.parametrize("kind", KINDS)
def test_weights_in_any_order(case, kind, order):
    op = convolution(kind, (2, 16, 9, 9), (32, 8, 3, 3), groups=2, padding=ONES)
    wide = convolution(kind, (2, 96, 9, 9), (32, 96, 1, 1), stride=(2, 1))
    party = "result" if kind == "convolution_weight" else "second"
    for one in (op, wide):
        case(replace(one, **{party: laid_out(getattr(one, party).shape, order)})).check()


PRODUCTS = {
    "plain": ((33, 40), None, (40, 29), None),
    "transposed first": ((33, 40), (1, 0), (40, 29), None),
    "transposed second": ((33, 40), None, (40, 29), (1, 0)),
    "both transposed": ((33, 40), (1, 0), (40, 29), (1, 0)),
    "one row": ((1, 128), None, (128, 65), (1, 0)),
    "one row, by rows": ((1, 128), None, (128, 65), None),
    "one column": ((65, 128), None, (128, 1), None),
    "one column, by columns": ((65, 128), (1, 0), (128, 1), None),
    "inner of one": ((17, 1), None, (1, 19), None),
    "a number": ((1, 7), None, (7, 1), None),
    "batches": ((2, 3, 17, 20), None, (2, 3, 20, 9), None),
    "heads": ((2, 3, 17, 20), (0, 2, 1, 3), (2, 3, 20, 17), (0, 3, 1, 2)),
    "batches by one matrix": ((2, 3, 17, 20), None, (1, 1, 20, 9), None),
    "one matrix by batches": ((1, 1, 17, 20), None, (2, 3, 20, 9), None),
    "batches that meet": ((2, 1, 17, 20), None, (1, 3, 20, 9), None),
    "five dimensions": ((2, 1, 3, 8, 5), None, (2, 4, 3, 5, 6), None),
}


@pytest.mark.parametrize("constant", [False, True])
@pytest.mark.parametrize("name", PRODUCTS)
def test_products(case, name, constant):
    first, first_order, second, second_order = PRODUCTS[name]
    op = matmul(laid_out(first, first_order), laid_out(second, second_order), constant=constant)
    made = case(op)
    if made.plan is None:
        assert not constant
        assert name in ("one row", "one column")
        return
    made.check()


@pytest.mark.parametrize("constant", [False, True])
def test_a_transposed_result(case, constant):
    first, second = laid_out((2, 33, 40)), laid_out((2, 40, 29))
    result = laid_out((2, 33, 29), (0, 2, 1))
    case(matmul(first, second, result, constant=constant)).check()
    shifted = with_posts(
        matmul(first, second, result, constant=constant),
        (PostOp("add"), laid_out((1, 1, 29))),
        (PostOp("mul"), laid_out((2, 33, 29), (0, 2, 1))),
    )
    case(shifted).check()


def test_rows_with_gaps_and_broadcast_by_stride(case):
    rows = Operand(float32, (30, 20), (64, 1))
    case(matmul(rows, Operand(float32, (20, 16), (1, 33)), Operand(float32, (30, 16), (48, 1)))).check()
    every = Operand(float32, (5, 30, 20), (0, 64, 1))
    case(matmul(every, laid_out((5, 20, 16)))).check()
    case(matmul(laid_out((5, 30, 20)), Operand(float32, (5, 20, 16), (0, 16, 1)))).check()


NUMBERS = [
    PostOp("relu"),
    PostOp("relu", alpha=0.1),
    PostOp("clip", alpha=-0.5, beta=6),
    PostOp("sigmoid"),
    PostOp("tanh"),
    PostOp("swish", alpha=1),
    PostOp("swish", alpha=1.7),
    PostOp("hardswish", alpha=1 / 6, beta=0.5),
    PostOp("gelu_erf"),
    PostOp("gelu_tanh"),
]


@pytest.mark.parametrize("post", NUMBERS, ids=lambda post: f"{post.kind} {post.alpha:.2g}")
@pytest.mark.parametrize("name", BASES)
def test_functions_of_the_result(backend, case, name, post):
    assert backend.takes_post(BASES[name], post, None)
    case(with_posts(BASES[name], (post, None))).check(tolerance=5e-5)


@pytest.mark.parametrize("kind", ["add", "sub", "mul", "max", "min"])
@pytest.mark.parametrize("which", ["vector", "vector by strides", "number", "full"])
@pytest.mark.parametrize("name", BASES)
def test_operands_of_the_result(backend, case, name, which, kind):
    op, operand = BASES[name], operands(BASES[name])[which]
    fused = backend.takes_post(op, PostOp(kind), operand)
    assert fused == (name != "channels first" or which != "full")
    alone = case(with_posts(op, (PostOp(kind), operand)))
    alone.check()
    assert fused == ("apart" not in alone.plan.about)
    case(with_posts(op, (PostOp("relu"), None), (PostOp(kind), operand), (PostOp("tanh"), None))).check()


@pytest.mark.parametrize("name", BASES)
def test_a_block_of_a_residual_network(case, name):
    parts = operands(BASES[name])
    op = with_posts(
        BASES[name],
        (PostOp("add"), parts["vector"]),
        (PostOp("add"), parts["full"]),
        (PostOp("clip", alpha=0, beta=6), None),
        (PostOp("mul"), parts["vector by strides"]),
        (PostOp("mul"), parts["number"]),
    )
    case(op).check()


def test_operands_of_lower_rank_and_of_other_extents(backend, case):
    op = BASES["3x3"]
    case(with_posts(op, (PostOp("mul"), laid_out((1,))), (PostOp("add"), laid_out((32, 1, 1))))).check()
    each = laid_out((2, 32, 1, 1))
    assert not backend.takes_post(op, PostOp("mul"), each)
    case(with_posts(op, (PostOp("mul"), each))).check()
    assert not backend.takes_post(op, PostOp("mul"), laid_out((1, 16, 1, 1)))
    assert backend.library_plan(with_posts(op, (PostOp("mul"), laid_out((1, 16, 1, 1))))) is None
    assert backend.library_plan(with_posts(op, (PostOp("mul"), laid_out((1, 1, 32, 1, 1))))) is None
    assert backend.library_plan(replace(op, post=(PostOp("mul", 3),))) is None
    assert backend.library_plan(replace(op, post=(PostOp("cosine"),))) is None
    assert not backend.takes_post(op, PostOp("cosine"), None)
    assert not backend.takes_post(
        convolution("convolution_data", (1, 4, 4, 4), (4, 4, 1, 1)), PostOp("relu"), None
    )


def test_backward_data_with_what_follows(case):
    op = convolution("convolution_data", (2, 16, 9, 9), (32, 16, 3, 3), padding=ONES)
    op = with_posts(op, (PostOp("add"), laid_out((1, 16, 1, 1))), (PostOp("relu"), None))
    case(op).check()


@pytest.mark.parametrize("constant", [False, True])
@pytest.mark.parametrize("name", BASES)
def test_scale_is_folded_into_the_weight(case, name, constant):
    op = replace(BASES[name], scale=True, constant=constant)
    case(op).check()
    vector = operands(op)["vector"]
    case(with_posts(op, (PostOp("add"), vector), (PostOp("relu"), None))).check()


@pytest.mark.parametrize("scale", [False, True])
@pytest.mark.parametrize("name", ["3x3", "depthwise", "packed matrix", "batches"])
def test_packed_operands_follow_their_changes_only(case, name, scale):
    made = case(replace(BASES[name], constant=True, scale=scale))
    made.check(changed=True)
    before = made.run(changed=False).copy()
    if not made.plan.kept_bytes:
        pytest.skip("used as it is on this processor")
    made.buffers[1] *= 2
    made.upload(1)
    assert np.array_equal(made.run(changed=False), before)  # the packed form of before
    made.check(changed=True)
    if scale:
        made.buffers[3] += 1
        made.upload(3)
        made.check(changed=True)
    made.buffers[0] += 1  # the first operand is never kept
    made.upload(0)
    made.check(changed=False)


def test_the_first_run_packs_whatever_it_is_told(case):
    case(replace(BASES["3x3"], constant=True)).check(changed=False)


def test_equal_operations_share_no_packed_memory(case):
    op = replace(BASES["3x3"], constant=True)
    one, other = case(op, seed=1), case(op, seed=2)
    one.check()
    other.check()
    one.check(changed=False)
    other.check(changed=False)


@pytest.mark.parametrize("name", ["3x3", "1x1", "matrix", "channels first"])
def test_nan_and_infinity_are_not_lost(case, name):
    made = case(BASES[name])
    made.buffers[0][3], made.buffers[0][40] = np.nan, np.inf
    made.upload(0)
    with np.errstate(invalid="ignore"):
        got, wanted = made.run(), made.expected()
    assert np.array_equal(np.isnan(got), np.isnan(wanted))
    assert np.array_equal(np.isfinite(got), np.isfinite(wanted))


def refused() -> dict[str, LibraryOp]:
    """Operations that must not be taken, whatever oneDNN would say."""
    op = convolution("convolution", (2, 16, 9, 9), (32, 16, 3, 3), padding=ONES)
    data = convolution("convolution_data", (2, 16, 9, 9), (32, 16, 3, 3), padding=ONES)
    product = matmul(laid_out((8, 9)), laid_out((9, 10)))
    wide = Operand(float64, product.first.shape, product.first.strides)
    whole = Operand(int32, product.first.shape, product.first.strides)
    huge = Operand(float32, (1 << 33, 8), (8, 1))
    return {
        "double": replace(product, first=wide),
        "whole numbers": replace(product, first=whole),
        "empty": matmul(laid_out((0, 9)), laid_out((9, 10))),
        "no sum": matmul(laid_out((8, 0)), laid_out((0, 10))),
        "empty image": convolution("convolution", (0, 16, 9, 9), (32, 16, 3, 3)),
        "huge": matmul(huge, laid_out((8, 8)), Operand(float32, (1 << 33, 8), (8, 1))),
        "a broadcast row": replace(product, second=Operand(float32, (9, 10), (0, 1))),
        "overlapping result": replace(product, result=Operand(float32, (8, 10), (1, 1))),
        "overlapping image": replace(op, first=Operand(float32, op.first.shape, (1296, 1, 16, 16))),
        "other inner extent": replace(product, second=laid_out((8, 10))),
        "another size of the result": replace(op, result=laid_out((2, 32, 8, 9), channels_last(4))),
        "groups that do not divide": replace(op, groups=3),
        "cropped where it is written": replace(data, padding=((-1, 3), (1, 1))),
        "a window larger than the image": replace(op, dilation=(100, 1)),
        "huge dilation": replace(op, dilation=(1 << 62, 1)),
        "no stride": replace(op, stride=(0, 1)),
        "four dimensions": convolution("convolution", (1, 4, 3, 3, 3, 3), (4, 4, 1, 1, 1, 1)),
        "scaled backward": replace(data, scale=True),
        "unknown kind": replace(product, kind="einsum"),
        "unknown arithmetic": replace(product, math="tf32"),
    }


@pytest.mark.parametrize("name", refused())
def test_refusals(backend, name):
    op = refused()[name]
    assert not backend.takes(op)
    assert backend.library_plan(op) is None


@pytest.mark.parametrize(
    "bytes_of_all", [5 << 20, 26 << 20], ids=["beyond the caches of a core", "beyond all caches"]
)
def test_gradients_of_weights_of_large_images(case, bytes_of_all):
    # between a few MB and a few tens of MB, images are read from end to end first
    batch = bytes_of_all // (2 * 4 * 8 * 64 * 64)
    made = case(convolution("convolution_weight", (batch, 8, 64, 64), (8, 8, 3, 3), padding=ONES))
    for _ in range(2):
        made.check(
            tolerance=6e-5
        )  # float32 sums of hundreds of thousands of products, on one thread one after the other


def test_a_window_in_the_padding_alone(backend, case):
    op = convolution("convolution", (1, 16, 4, 4), (16, 16, 3, 3), padding=((7, 7), (7, 7)))
    made = case(op)
    if made.plan is not None:
        made.check()


def test_plans_say_what_they_are(backend):
    assert isinstance(backend, LibraryOps)
    op = replace(BASES["3x3"], constant=True)
    plan = backend.library_plan(op)
    assert plan.about.startswith("oneDNN ")
    assert plan.kept_bytes >= 32 * 16 * 9 * 4
    assert loading.describe().startswith("oneDNN 3.")
