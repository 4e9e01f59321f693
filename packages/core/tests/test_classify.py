"""Contractions as library operations: what each one is, and that the description computes what the program computes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import metafuse as mf
from classify_kit import Memory, check, in_order, kinds, leaves, program
from metafuse.ops.reindexing import reindex
from metafuse.passes.affine import row_major
from metafuse.passes.classify import Classified, classify
from metafuse.testing.levels.library import WINDOWS, Window, by_hand

some = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
FORWARD, WEIGHT, DATA = "convolution", "convolution_weight", "convolution_data"


@pytest.fixture(autouse=True, scope="module")
def on_reference() -> Iterator[None]:
    with mf.flag_scope(backend="reference"):
        yield


def last(*images: Sequence[int], groups: int = 1) -> Any:
    """Memory with the channels last for values that have the shape of one of ``images``, whatever extents of 1 are put in, and
    groups and channels in dimensions of their own if there are groups; row-major for others."""
    split = [(n, groups, c // groups, *space) if groups > 1 else (n, c, *space) for n, c, *space in images]
    known = {tuple(n for n in s if n != 1): s for s in split}

    def order(shape: Sequence[int]) -> list[int]:
        found = known.get(tuple(n for n in shape if n != 1))
        if found is None:
            return in_order(shape)
        wide = [d for d, n in enumerate(shape) if n != 1]
        channels = [d for d, n in zip([d for d, n in enumerate(found) if n != 1], wide, strict=True)
                    if 1 <= d <= (2 if groups > 1 else 1)]  # fmt: skip
        at = dict(zip([d for d, n in enumerate(found) if n != 1], wide, strict=True))
        fast = [at[d] for d in channels]
        return [*(d for d in range(len(shape)) if d not in fast), *fast]

    return order


def gradients(function: Any, *shapes: Sequence[int]) -> tuple[Any, ...]:
    """The value and its gradients, with an upstream gradient that is stored."""
    inputs = leaves(*shapes)
    y = function(*inputs)
    (g,) = leaves(y.shape)
    return (y, *mf.grad((y * g).sum(), inputs))


def only(*values: Any, order: Any = None) -> Classified:
    """The one contraction of a program."""
    found = program(*values)
    assert len(found.matches) == 1
    known = check(found, *found.matches) if order is None else check(found, *found.matches, order)
    assert known is not None
    return known


# -- matrix products --------------------------------------------------------------------------------------------------
def test_matmul() -> None:
    known = only(mf.matmul(*leaves((3, 4), (4, 5))))
    op = known.op
    assert (op.kind, known.swapped, known.result_axes, known.channel_axis) == (
        "matmul",
        False,
        ((0,), (1,)),
        1,
    )
    assert (op.first.shape, op.first.strides) == ((3, 4), (4, 1))
    assert (op.second.shape, op.second.strides) == ((4, 5), (5, 1))
    assert (op.result.shape, op.result.strides) == ((3, 5), (5, 1))


@pytest.mark.parametrize("head", [(6,), (2, 3), (1,)])
def test_linear_reads_its_weight_transposed(head: tuple[int, ...]) -> None:
    known = only(mf.nn.linear(*leaves((*head, 4), (5, 4))))
    rows = int(np.prod(head))
    assert known.op.first.shape == (rows, 4)
    assert (known.op.second.shape, known.op.second.strides) == ((4, 5), (1, 4))
    assert known.op.result.shape == (rows, 5)
    assert known.channel_axis == (0 if head == (1,) else 1)


def test_transposed_operands_are_views() -> None:
    x, y = leaves((4, 3), (5, 4))
    found = program(mf.matmul(mf.transpose(x), mf.transpose(y)))
    assert all(found.graph.is_leaf(v.source) for m in found.matches.values() for v in (m.a, m.b))
    known = only(mf.matmul(mf.transpose(x), mf.transpose(y)))
    assert (known.op.first.strides, known.op.second.strides) == ((1, 3), (1, 4))


def test_the_dense_dimension_of_the_result_is_its_last() -> None:
    found = program(mf.matmul(*leaves((3, 4), (4, 5))))
    (match,) = found.matches.values()
    strides = lambda k: row_major(found.graph.specs[k].shape)
    known = classify(match, lambda k: found.graph.specs[k], strides, (1, 3))
    assert known is not None and known.swapped and known.channel_axis == 0
    assert (known.op.result.shape, known.op.result.strides) == ((5, 3), (3, 1))


@pytest.mark.parametrize(
    ("left", "right"),
    [((6, 3, 4), (6, 4, 5)), ((2, 3, 3, 4), (2, 3, 4, 5)), ((6, 3, 4), (4, 5)), ((3, 4), (6, 4, 5)),
     ((2, 1, 3, 4), (2, 7, 4, 5)), ((1, 4), (4, 5)), ((3, 4), (4, 1)), ((6, 1, 4), (6, 4, 5)), ((4,), (4, 5)),
     ((3, 4), (4,)), ((2, 3, 4, 5), (5, 1))],
)  # fmt: skip
def test_matmuls_and_their_gradients(left: tuple[int, ...], right: tuple[int, ...]) -> None:
    names = kinds(program(*gradients(mf.matmul, left, right)))
    assert names[0] == "matmul"
    # sums over axes that do not follow each other: space and batch of a convolution, or nothing
    spread = {(3, 4): WEIGHT, (2, 1, 3, 4): "-"}.get(left if len(right) > 2 else (), "matmul")
    assert set(names) == {"matmul", spread}


def test_heads_of_attention() -> None:
    q, k = leaves((2, 5, 3, 4), (2, 7, 3, 4))  # (batch, time, head, feature)
    swap = lambda x: mf.transpose(x, [0, 2, 1, 3])
    known = only(mf.matmul(swap(q), mf.transpose(swap(k), [0, 1, 3, 2])))
    assert known.op.first.shape == (2, 3, 5, 4) and known.op.second.shape == (2, 3, 4, 7)
    assert known.op.second.strides == (84, 4, 1, 12)


def test_rows_that_do_not_follow_each_other_are_batches() -> None:
    x, w = leaves((3, 4, 5), (5, 6))
    known = only(mf.matmul(mf.transpose(x, [1, 0, 2]), w))
    assert (known.op.first.shape, known.op.first.strides) == ((3, 4, 5), (20, 5, 1))
    assert known.op.second.shape == (1, 5, 6)
    assert (known.op.result.shape, known.op.result.strides) == ((3, 4, 6), (6, 18, 1))


def test_thin_products_are_told_from_folds() -> None:
    x, v = leaves((3, 4), (4,))
    assert not program((x * v).sum(1)).matches  # no matrix product was meant
    assert not program((x * x).sum()).matches
    assert kinds(program(mf.matmul(x, v))) == ["matmul"]


@given(
    st.lists(st.integers(1, 3), min_size=0, max_size=2), st.integers(1, 5), st.integers(2, 5), st.integers(1, 5),
    st.tuples(st.booleans(), st.booleans()), st.permutations(range(4)), st.booleans(),
)  # fmt: skip
@some
def test_any_matmul_in_any_memory(
    head: list[int], m: int, k: int, n: int, flips: tuple[bool, bool], order: list[int], shared: bool
) -> None:
    left = (*head, *((k, m) if flips[0] else (m, k)))
    right = (*(() if shared else head), *((n, k) if flips[1] else (k, n)))

    def product(x: Any, y: Any) -> Any:
        turn = lambda a: mf.transpose(a, [*range(a.ndim - 2), a.ndim - 1, a.ndim - 2])
        return mf.matmul(turn(x) if flips[0] else x, turn(y) if flips[1] else y)

    kinds(program(*gradients(product, left, right)), lambda shape: _ordered(order, len(shape)))


def _ordered(order: Sequence[int], rank: int) -> list[int]:
    return sorted(range(rank), key=lambda d: (order[d % len(order)], d))


# -- convolutions -----------------------------------------------------------------------------------------------------
def convolution(spatial: int, *options: Any) -> Any:
    function = {1: mf.nn.conv1d, 2: mf.nn.conv2d, 3: mf.nn.conv3d}[spatial]
    return lambda x, w: function(x, w, None, *options)


def test_convolution_and_gradients() -> None:
    found = program(*gradients(convolution(2, (2, 3), (1, 2), (1, 2)), (2, 3, 9, 11), (4, 3, 3, 2)))
    order = last((2, 3, 9, 11), (2, 4, 5, 5))
    forward, weight, data = (check(found, k, order) for k in sorted(found.matches))
    assert forward is not None and weight is not None and data is not None
    assert [forward.op.kind, weight.op.kind, data.op.kind] == [FORWARD, WEIGHT, DATA]
    for known in (forward, weight, data):
        assert (known.op.stride, known.op.dilation) == ((2, 3), (1, 2))
        assert known.op.padding[0][0] == 1 and known.op.padding[1][0] == 2
        assert known.channel_axis == (0 if known is weight else 1)
    assert forward.op.first.shape == (2, 3, 9, 11) and forward.op.first.strides == (297, 1, 33, 3)
    assert forward.op.second.shape == (4, 3, 3, 2)
    assert forward.op.result.shape == (2, 4, 5, 5) and forward.op.result.strides == (100, 1, 20, 4)
    assert data.op.result.shape == (2, 3, 9, 11) and weight.op.result.shape == (4, 3, 3, 2)


@pytest.mark.parametrize(
    ("image", "weight", "options", "groups"),
    [((2, 4, 6, 7), (6, 2, 3, 3), (1, 1, 1, 2), 2), ((2, 4, 6, 7), (4, 1, 3, 3), (2, 1, 1, 4), 4),
     ((2, 4, 6, 7), (8, 1, 3, 3), (1, 1, 1, 4), 4), ((1, 4, 6, 7), (4, 1, 3, 3), (1, 1, 1, 4), 4),
     ((2, 3, 6, 7), (4, 3, 1, 1), (1, 0), 1), ((2, 3, 6, 7), (4, 3, 1, 1), (2, 0), 1), ((2, 3, 6, 7), (4, 3, 1, 1), (1, 1), 1),
     ((1, 3, 6, 7), (4, 3, 3, 3), (1, 1), 1), ((2, 1, 6, 7), (4, 1, 3, 3), (1, 1), 1), ((2, 3, 6, 7), (1, 3, 3, 3), (1, 1), 1),
     ((1, 1, 6, 7), (1, 1, 3, 3), (1, 1), 1), ((2, 3, 1, 1), (4, 3, 3, 3), (1, 1), 1), ((2, 3, 2, 2), (4, 3, 3, 3), (1, 1), 1),
     ((2, 3, 1, 7), (4, 3, 1, 3), (1, (0, 1)), 1), ((2, 3, 6, 7), (4, 3, 3, 1), (1, (1, 0)), 1),
     ((2, 3, 8, 9), (4, 3, 2, 2), (3, 0), 1), ((2, 3, 5), (4, 3, 3), (2, 1), 1), ((2, 3, 5), (4, 3, 1), (2,), 1),
     ((2, 3, 4, 5, 4), (4, 3, 2, 3, 2), (1, 1, 2), 1), ((2, 4, 4, 5, 4), (4, 2, 2, 3, 2), (2, 1, 1, 2), 2)],
)  # fmt: skip
def test_convolutions_of_every_shape(
    image: tuple[int, ...], weight: tuple[int, ...], options: tuple[Any, ...], groups: int
) -> None:
    values = gradients(convolution(len(image) - 2, *options), image, weight)
    found = program(*values)
    for order in (in_order, last(image, values[0].shape, groups=groups)):
        names, known = [], []
        for k in sorted(found.matches):
            known.append(check(found, k, order))
            assert known[-1] is not None
            names.append(known[-1].op.kind)
        assert FORWARD in names and WEIGHT in names
        one = set(weight[2:]) == {1} and options[:2] in ((1, 0), (1,))
        assert (FORWARD if one else DATA) in names
        assert {c.op.groups for c in known} == {groups}


def test_convolutions_that_are_matrix_products() -> None:
    whole = gradients(convolution(2), (2, 3, 4, 4), (5, 3, 4, 4))
    assert kinds(program(*whole)) == [FORWARD, WEIGHT, "matmul"]
    point = gradients(convolution(2), (2, 3, 1, 1), (5, 3, 1, 1))
    assert kinds(program(*point)) == ["matmul"] * 3


@pytest.mark.parametrize("name", WINDOWS)
def test_convolution_by_hand(name: str) -> None:
    c = WINDOWS[name]
    found = program(*gradients(lambda x, w: by_hand(c, x, w), c.x, c.w))
    names = kinds(found)
    if c.groups not in (1, c.x[1]):  # a quotient of an axis is no affine place
        assert names == []
    elif name == "1x1":
        assert sorted(names) == [FORWARD, FORWARD, WEIGHT]
    elif name == "whole image":
        assert sorted(names) == [FORWARD, WEIGHT, "matmul"]
    else:
        assert sorted(names) == [FORWARD, DATA, WEIGHT]


def test_channels_last_by_hand() -> None:
    """Shapes (N, H, W, C) and a kernel (R, S, C, O), as another library has them."""

    def product(x: Any, w: Any) -> Any:
        n, h, v, c = x.shape
        r, s, _, o = w.shape
        shape = [n, h, v, o, r, s, c]
        windows = reindex(x, shape, ["i0", "i1+i4-1", "i2+i5-1", "i6"])
        return (windows * reindex(w, shape, ["i4", "i5", "i6", "i3"])).sum([4, 5, 6])

    found = program(*gradients(product, (2, 6, 7, 3), (3, 3, 3, 4)))
    assert sorted(kinds(found)) == [FORWARD, DATA, WEIGHT]
    known = check(found, min(found.matches))
    assert known is not None and known.channel_axis == 3
    assert known.op.first.shape == (2, 3, 6, 7) and known.op.first.strides == (126, 1, 21, 3)


def test_true_convolution_is_a_transposed_one() -> None:
    """A kernel that runs backwards."""
    x, w = leaves((2, 3, 8), (4, 3, 3))
    shape = [2, 4, 8, 3, 3]
    y = (reindex(x, shape, ["i0", "i3", "i2-i4+1"]) * reindex(w, shape, ["i1", "i3", "i4"])).sum([3, 4])
    assert kinds(program(y)) == [DATA]


def test_what_is_no_library_operation() -> None:
    x, w = leaves((2, 3, 8), (4, 3, 3))
    shape = [2, 4, 5, 3, 3]
    shifted = reindex(x, shape, ["i0", "i3", "i2+i4+1"]) * reindex(w, shape, ["i1", "i3", "i4"])
    assert kinds(program(shifted.sum([3, 4]))) == ["-"]  # starts within the image
    square = reindex(x, [2, 4, 4, 3, 2, 2], ["i0", "i3", "i2+i4+i5"]) * reindex(
        leaves((4, 3, 2, 2))[0], [2, 4, 4, 3, 2, 2], ["i1", "i3", "i4", "i5"]
    )
    assert kinds(program(square.sum([3, 4, 5]))) == ["-"]  # two kernels along one dimension
    a, b = leaves((9, 4), (4, 5))
    part = reindex(a, [5, 4, 5], ["i0+2", "i1"]) * reindex(b, [5, 4, 5], ["i1", "i2"])
    assert kinds(program(part.sum([1]))) == ["-"]  # no view from the buffer's first element


def test_parts_of_arrays() -> None:
    a, b = leaves((9, 8), (4, 5))
    known = only(mf.matmul(a[:6:2, ::2], b))  # a view, as it starts at the first element
    assert (known.op.first.shape, known.op.first.strides) == ((3, 4), (16, 2))
    copied = program(mf.matmul(a[2:7, 4:], b))
    (match,) = copied.matches.values()
    assert not copied.graph.is_leaf(copied.graph.base(match.a.source))
    assert kinds(copied) == ["matmul"]


# -- transposed convolutions and other scatters -----------------------------------------------------------------------
@pytest.mark.parametrize("groups", [1, 2, 4])
def test_transposed_convolution(groups: int) -> None:
    def function(x: Any, w: Any) -> Any:
        return mf.nn.conv_transpose(x, w, None, 2, 1, 1, groups)

    values = gradients(function, (2, 4, 5, 6), (4, 3, 3, 3))
    found = program(*values)
    for order in (in_order, last((2, 4, 5, 6), values[0].shape, groups=groups)):
        assert sorted(kinds(found, order)) == [FORWARD, DATA, WEIGHT]


def test_scatter_into_something_larger() -> None:
    """Rows beyond what is added are zero: nothing may be read for them."""
    a, b = leaves((3, 4), (4, 5))
    product = reindex(a, [3, 4, 5], ["i0", "i1"]) * reindex(b, [3, 4, 5], ["i1", "i2"])
    y = product.reindex_reduce("add", [7, 5], ["i0", "i2"])
    expected = np.zeros((7, 5))
    expected[:3] = a.numpy() @ b.numpy()
    kinds(program(y))
    np.testing.assert_allclose(y.numpy(), expected, rtol=1e-5, atol=1e-6)


def test_transposed_convolution_of_a_slice() -> None:
    """What lies beyond the slice is not read, though it is there."""
    x, w = leaves((2, 3, 9), (3, 4, 3))
    part = x[:, :, :5]
    shape = [2, 3, 4, 5, 3]
    product = part.broadcast(shape, [2, 4]) * w.broadcast(shape, [0, 3])
    y = product.reindex_reduce("add", [2, 4, 11], ["i0", "i2", "i3*2+i4"])
    assert kinds(program(y)) == [DATA]
    expected = np.zeros((2, 4, 11))
    for tap in range(3):
        expected[:, :, tap : tap + 9 : 2] += np.einsum(
            "nct,co->not", x.numpy()[:, :, :5], w.numpy()[:, :, tap]
        )
    np.testing.assert_allclose(y.numpy(), expected, rtol=1e-4, atol=1e-5)


# -- any of them ------------------------------------------------------------------------------------------------------
@st.composite
def windows(draw: Any) -> Window:
    """A convolution that fits, with trailing rows that may be unused."""
    groups = draw(st.sampled_from([1, 1, 2, 3]))
    channels, outputs = groups * draw(st.integers(1, 3)), groups * draw(st.integers(1, 3))
    kernel, stride, dilation, padding, size = [], [], [], [], []
    for _ in range(2):
        kernel.append(draw(st.integers(1, 4)))
        stride.append(draw(st.integers(1, 3)))
        dilation.append(draw(st.integers(1, 3)))
        padding.append(draw(st.integers(0, 3)))
        span = (kernel[-1] - 1) * dilation[-1] + 1
        size.append(draw(st.integers(max(1, span - 2 * padding[-1]), max(1, span - 2 * padding[-1]) + 5)))
    batch = draw(st.integers(1, 3))
    return Window((batch, channels, *size), (outputs, channels // groups, *kernel), tuple(stride), tuple(padding),
                  tuple(dilation), groups)  # fmt: skip


@given(windows(), st.booleans())
@some
def test_any_convolution_in_any_memory(c: Window, turned: bool) -> None:
    options = (c.stride, c.padding, c.dilation, c.groups)
    values = gradients(convolution(2, *options), c.x, c.w)
    order = last(c.x, values[0].shape, groups=c.groups) if turned else in_order
    names = kinds(program(*values), order)
    if (
        not turned or c.groups == 1
    ):  # else a weight may have an image's shape, and be turned to where groups don't merge
        assert "-" not in names
    if c.groups == 1:
        plain = program(*gradients(lambda x, w: by_hand(c, x, w), c.x, c.w))
        assert "-" not in kinds(plain, order)


@given(windows(), st.integers(0, 2), st.integers(0, 2))
@some
def test_any_transposed_convolution(c: Window, more: int, rows: int) -> None:
    extra = [min(e, max(s, d) - 1) for e, s, d in zip((more, rows), c.stride, c.dilation, strict=True)]
    shape = (c.x[0], c.w[0], *c.x[2:])
    spans = [(n - 1) * s - 2 * p + d * (k - 1) + e + 1 for n, s, p, d, k, e in zip(
        shape[2:], c.stride, c.padding, c.dilation, c.w[2:], extra, strict=True)]  # fmt: skip
    if min(spans) < 1:
        return
    found = program(
        *gradients(
            lambda x, w: mf.nn.conv_transpose(x, w, None, c.stride, c.padding, extra, c.groups, c.dilation),
            shape,
            c.w,
        )
    )
    assert "-" not in kinds(found)


def test_empty_contractions_are_none() -> None:
    found = program(mf.matmul(*leaves((3, 0), (0, 5))))
    assert all(Memory(found, k, in_order).classified() is None for k in found.matches)
