"""Library operations in programs: what is handed over, tails, layouts, constants, refusals."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import metafuse as mf
from metafuse import nn
from metafuse.debug import record_launches
from metafuse.plugins.registry import registry
from metafuse.runtime import executor
from numpy_library_kit import LibraryBackend


@pytest.fixture
def library() -> Iterator[LibraryBackend]:
    backend = LibraryBackend()
    with registry().hosting(backend), mf.flag_scope(backend=backend.name):
        yield backend


def rand(*shape: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(sum(shape)).uniform(-1, 1, shape).astype(np.float32)


def both(function: Callable[..., Any], *arrays: np.ndarray[Any, Any], backend: LibraryBackend) -> list[Any]:
    """The results with the library, checked against the reference backend."""
    results = []
    for name in (backend.name, "reference"):
        with mf.flag_scope(backend=name):
            answer = function(*(mf.array(a) for a in arrays))
            mf.sync_all()
            results.append([v.numpy() for v in (answer if isinstance(answer, (list, tuple)) else [answer])])
    for got, want in zip(*results, strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4)
    return results[0]


def folded(x: Any, w: Any, mean: Any, var: Any, gamma: Any, beta: Any) -> Any:
    return nn.relu(nn.batch_norm(nn.conv2d(x, w, None, 1, 1), mean, var, gamma, beta))


BN = (rand(2, 3, 8, 8), rand(5, 3, 3, 3), rand(5), rand(5) ** 2 + 0.5, rand(5) + 2, rand(5) * 3)


def test_matmul_with_bias_and_relu_is_one_operation(library: LibraryBackend) -> None:
    both(lambda x, w, b: nn.relu(x @ w + b), rand(4, 6), rand(6, 5), rand(5), backend=library)
    assert [o.kind for o in library.ops] == ["matmul"]
    assert [p.kind for p in library.ops[0].post] == ["add", "relu"]


@pytest.mark.parametrize(
    ("activation", "kind"),
    [
        ("sigmoid", "sigmoid"), ("tanh", "tanh"), ("gelu", "gelu_erf"), ("silu", "swish"), ("relu6", "clip"), ("relu", "relu"),
        ("gelu_tanh", "gelu_tanh"), ("quick_gelu", "swish"), ("hardswish", "hardswish"),
    ],
)  # fmt: skip
def test_activations(library: LibraryBackend, activation: str, kind: str) -> None:
    function = getattr(nn, activation)
    arrays = rand(4, 6) * 3, rand(6, 5), rand(5)
    both(lambda x, w, b: function(x @ w + b), *arrays, backend=library)
    assert len(library.ops) == 1 and [p.kind for p in library.ops[0].post] == ["add", kind]
    x, w, b = map(mf.array, arrays)
    with mf.flag_scope(backend=library.name), record_launches() as launches:
        function(x @ w + b).sync()
    assert len(launches) == 1


def test_what_looks_like_an_activation_but_is_another_one(library: LibraryBackend) -> None:
    """Other numbers, and a factor that is not what the gate depends on."""
    for function in (
        lambda v: v * ((v + 2.0).maximum(0).minimum(6) / 6.0),
        lambda v: v * ((v + 3.0).maximum(0).minimum(5) / 6.0),
        lambda v: v * (((v * v * 0.05 + 1.0) * v * 0.7978845608028654).tanh() + 1.0) * 0.5,
        lambda v: (v + 1.0) * (v * 1.702).sigmoid(),
    ):
        both(lambda x, w, f=function: f(x @ w), rand(4, 6) * 3, rand(6, 5), backend=library)


def test_slopes_of_hardswish_beside_its_kinks() -> None:
    x = mf.array([-5.0, -3.001, -2.999, 0.0, 2.999, 3.001, 5.0])
    np.testing.assert_allclose(
        mf.grad(nn.hardswish(x), x).numpy(), [0, 0, -0.49967, 0.5, 1.49967, 1, 1], atol=1e-5
    )


def test_batch_norm_is_folded(library: LibraryBackend) -> None:
    with mf.no_grad():
        both(folded, *BN, backend=library)
    (op,) = library.ops
    assert op.scale and [p.kind for p in op.post] == ["add", "relu"]


def test_residual_joins_the_later_convolution(library: LibraryBackend) -> None:
    def block(x: Any, w: Any, v: Any) -> Any:
        y = nn.conv2d(nn.relu(nn.conv2d(x, w, None, 1, 1)), w, None, 1, 1)
        return nn.conv2d(nn.relu(y + nn.conv2d(x, v)), v)

    with mf.no_grad():
        both(block, rand(1, 4, 6, 6), rand(4, 4, 3, 3), rand(4, 4, 1, 1), backend=library)
    assert sorted(len(o.post) for o in library.ops) == [0, 0, 1, 2]


def test_channels_last_inside_row_major_outside(library: LibraryBackend) -> None:
    def net(x: Any, w: Any, v: Any) -> Any:
        y = nn.relu(nn.conv2d(x, w, None, 1, 1))
        y = nn.max_pool2d(y, 2, 2)
        return nn.conv2d(y, v)

    with mf.no_grad():
        both(net, rand(2, 3, 8, 8), rand(4, 3, 3, 3), rand(6, 4, 3, 3), backend=library)
    first, second = library.ops
    assert first.first.strides == (192, 64, 8, 1) and first.result.strides == (256, 1, 32, 4)
    assert second.first.strides == (64, 1, 16, 4) and second.result.strides == (24, 4, 2, 1)


def test_flatten_after_convolution(library: LibraryBackend) -> None:
    def net(x: Any, w: Any, v: Any) -> Any:
        y = nn.relu(nn.conv2d(x, w))
        return nn.max_pool2d(y, 2, 2).reshape([2, -1]) @ v

    with mf.no_grad():
        both(net, rand(2, 3, 6, 6), rand(4, 3, 3, 3), rand(16, 5), backend=library)


def test_training_step(library: LibraryBackend) -> None:
    def step(x: Any, w: Any, v: Any, gamma: Any, beta: Any) -> Any:
        y = nn.relu(nn.batch_norm(nn.conv2d(x, w, None, 2, 1), None, None, gamma, beta, training=True))
        y = nn.conv2d(nn.max_pool2d(y, 2, 2), v, None, 1, 1)
        loss = (y * y).mean()
        return [loss, *mf.grad(loss, [w, v, gamma, beta, x])]

    both(step, rand(2, 3, 16, 16), rand(4, 3, 3, 3), rand(6, 4, 3, 3), rand(4) + 1, rand(4), backend=library)
    kinds = sorted(o.kind for o in library.ops)
    assert kinds == ["convolution"] * 2 + ["convolution_data"] * 2 + ["convolution_weight"] * 2


def test_values_kept_for_a_later_gradient_may_be_channels_last(library: LibraryBackend) -> None:
    def late(x: Any, w: Any, v: Any) -> Any:
        w.start_grad()
        h = nn.conv2d(x, w, None, 1, 1)
        loss = (nn.conv2d(h * h, v) ** 2).sum()
        loss.sync()
        return [loss, *mf.grad(loss, [w])]

    both(late, rand(2, 3, 6, 6), rand(4, 3, 3, 3), rand(5, 4, 3, 3), backend=library)


def test_constants_are_packed_again_only_when_they_change(library: LibraryBackend) -> None:
    _, w, mean, var, gamma, beta = (mf.array(a).stop_grad() for a in BN)
    mf.sync_all()

    def run() -> Any:
        with mf.no_grad():
            return folded(mf.array(BN[0]), w, mean, var, gamma, beta).numpy()

    first = run()
    assert library.packed == 1
    with record_launches() as rows:
        pass
    np.testing.assert_array_equal(run(), first)
    assert library.packed == 1
    gamma.assign(gamma * 2).sync()
    changed = run()
    assert library.packed == 2
    assert np.abs(changed - first).max() > 0.1
    w.data[...] = 0.0  # written behind our back
    assert np.ptp(run(), axis=(0, 2, 3)).max() == 0.0
    run()
    assert not rows


def test_weights_that_a_program_updates_are_not_kept(library: LibraryBackend) -> None:
    x, w = mf.array(rand(4, 6)), mf.array(rand(6, 5))
    for _ in range(2):
        w.start_grad()
        loss = ((x @ w) ** 2).mean()
        (g,) = mf.grad(loss, [w])
        w.update(w - g * 0.1)
        w.sync()
    assert library.ops and not any(o.constant for o in library.ops)


@pytest.mark.parametrize("refused", ["convolution", "late convolution", "post relu", "post add"])
def test_refusals_give_the_same_result(refused: str) -> None:
    backend = LibraryBackend(frozenset({refused}))
    with registry().hosting(backend), mf.flag_scope(backend=backend.name), mf.no_grad():
        both(folded, *BN, backend=backend)


def test_the_flag_turns_the_library_off(library: LibraryBackend) -> None:
    with mf.flag_scope(library=0):
        (mf.array(rand(4, 6)) @ mf.array(rand(6, 5))).sync()
    assert not library.ops


@pytest.mark.parametrize("refused", [frozenset(), frozenset({"late convolution"})])
@pytest.mark.parametrize("groups", [2, 4])
def test_grouped_convolutions_stay_channels_last_and_take_tails(refused: frozenset[str], groups: int) -> None:
    backend = LibraryBackend(refused)

    def net(x: Any, w: Any, v: Any, gamma: Any, mean: Any, var: Any) -> Any:
        y = nn.relu(nn.conv2d(x, w))
        y = nn.relu(nn.batch_norm(nn.conv2d(y, v, None, 1, 1, groups=groups), mean, var, gamma))
        return nn.conv2d(y, w[:, :, :1, :1] + 1)

    arrays = (
        rand(2, 4, 6, 6),
        rand(4, 4, 3, 3),
        rand(4, 4 // groups, 3, 3),
        rand(4) + 2,
        rand(4),
        rand(4) ** 2 + 1,
    )
    with registry().hosting(backend), mf.flag_scope(backend=backend.name), mf.no_grad():
        both(net, *arrays, backend=backend)
    if not refused:
        assert len(backend.ops) == 3
        grouped = backend.ops[1]
        assert (
            grouped.groups == groups and grouped.scale and [p.kind for p in grouped.post] == ["add", "relu"]
        )
        assert grouped.first.strides == grouped.result.strides == (64, 1, 16, 4)


def test_gradients_of_grouped_convolutions(library: LibraryBackend) -> None:
    def net(x: Any, w: Any, v: Any) -> Any:
        y = nn.conv2d(nn.relu(nn.conv2d(x, w)), v, None, 1, 1, groups=2)
        loss = (nn.relu(y) ** 2).sum()
        return [loss, *mf.grad(loss, [x, w, v])]

    both(net, rand(2, 4, 6, 6), rand(4, 4, 3, 3), rand(4, 2, 3, 3), backend=library)


def test_channel_shuffle(library: LibraryBackend) -> None:
    def net(x: Any, w: Any) -> Any:
        y = nn.conv2d(x, w)
        y = y.reshape([2, 2, 2, 4, 4]).transpose(0, 2, 1, 3, 4).reshape([2, 4, 4, 4])
        return nn.conv2d(y, w)

    with mf.no_grad():
        both(net, rand(2, 4, 6, 6), rand(4, 4, 3, 3), backend=library)
    assert library.ops[1].first.strides == (64, 1, 16, 4)


def test_one_row_is_a_product_of_the_library_too(library: LibraryBackend) -> None:
    both(
        lambda x, w, b: (
            nn.relu(nn.linear(x, w, b)) if hasattr(nn, "linear") else nn.relu(x @ w.transpose(1, 0) + b)
        ),
        rand(1, 6),
        rand(5, 6),
        rand(5),
        backend=library,
    )
    assert [o.kind for o in library.ops] == ["matmul"]


def test_bfloat16_math_stores_what_is_only_multiplied_in_16_bits(library: LibraryBackend) -> None:
    def net(x: Any, w: Any, v: Any) -> Any:
        y = nn.relu(nn.conv2d(x, w, None, 1, 1))
        z = nn.relu(nn.conv2d(y, v, None, 1, 1))
        return nn.conv2d(z, v) + nn.conv2d(z, v).max()

    arrays = [mf.array(a) for a in (rand(2, 3, 6, 6), rand(4, 3, 3, 3), rand(4, 4, 3, 3))]
    with mf.no_grad():
        exact = net(*arrays).numpy()
        library.ops.clear()
        with mf.flag_scope(math="bfloat16"):
            rounded = net(*arrays).numpy()
    first, second, third = library.ops
    assert all(o.math == "bfloat16" for o in library.ops)
    assert first.first.dtype.name == "float32" and first.result.dtype.name == "bfloat16"
    assert (
        second.first.dtype.name == "bfloat16" == second.result.dtype.name
        and second.second.dtype.name == "float32"
    )
    assert third.result.dtype.name == "float32"
    assert 0 < np.abs(rounded - exact).max() < 0.03 * np.abs(exact).max()


def test_bfloat16_math_stores_images_between_operations_in_16_bits(library: LibraryBackend) -> None:
    def net(x: Any, w: Any, v: Any) -> Any:
        y = nn.pool(nn.relu(nn.conv2d(x, w, None, 1, 1)), 3, "maximum", 1, 1)
        z = nn.relu(nn.conv2d(y, v, None, 1, 1))
        z = nn.relu(nn.conv2d(z, v, None, 1, 1) + z)
        return nn.conv2d(z, v).sum() + (z * z).sum()

    arrays = [mf.array(a) for a in (rand(2, 3, 6, 6), rand(4, 3, 3, 3), rand(4, 4, 3, 3))]
    with mf.no_grad():
        exact = net(*arrays).numpy()
        library.ops.clear()
        with mf.flag_scope(math="bfloat16"):
            rounded = net(*arrays).numpy()
    first, second, third, last = library.ops
    assert first.result.dtype.name == "bfloat16"  # a maximum of it is multiplied
    assert second.result.dtype.name == "bfloat16"  # multiplied, and added to a result
    assert [o.dtype.name for o in third.operands] == ["bfloat16"] and third.result.dtype.name == "float32"
    assert last.first.dtype.name == "float32"  # somebody else reads it too
    assert 0 < abs(rounded - exact) < 0.03 * abs(exact)


def test_a_bfloat16_model_narrows_in_the_tail(library: LibraryBackend) -> None:
    with mf.no_grad():
        x, w, *rest = (mf.array(a).bfloat16() for a in BN)
        mf.sync_all()
        y = folded(x, w, *rest)
        y = nn.conv2d(y, mf.array(rand(3, 5, 3, 3)).bfloat16()).numpy()
        exact = nn.conv2d(folded(*(mf.array(a) for a in BN)), mf.array(rand(3, 5, 3, 3))).numpy()
    assert len(library.ops) >= 2
    first = library.ops[0]
    assert (
        first.scale
        and [p.kind for p in first.post] == ["add", "relu"]
        and first.result.dtype.name == "bfloat16"
    )
    assert np.abs(y - exact).max() < 0.05 * np.abs(exact).max()


def test_a_value_in_the_middle_of_a_tail_that_somebody_holds_under_another_shape(
    library: LibraryBackend,
) -> None:
    x, w, b = (mf.array(a) for a in (rand(8, 4), rand(4, 1), rand(1)))
    with mf.no_grad():
        y = x @ w + b
        held = y.reshape([8])
        z = nn.relu(y * 2.0)
        del y
        mf.sync_all()
    expected = rand(8, 4) @ rand(4, 1) + rand(1)
    np.testing.assert_allclose(held.numpy(), expected[:, 0], rtol=1e-5)
    np.testing.assert_allclose(z.numpy(), np.maximum(expected * 2, 0), rtol=1e-5, atol=1e-6)


def test_programs_that_keep_much_make_room_for_new_ones(
    library: LibraryBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(executor, "KEPT_LIMIT", 250)
    w = mf.array(rand(4, 3)).stop_grad().sync()
    kept = []
    for rows in range(2, 8):
        with mf.no_grad():
            (mf.array(rand(rows, 4)) @ w).sync()
        programs = executor.device().programs
        kept.append(sum(p.kept_bytes for p in programs))
    assert max(kept) <= 350 and kept[-1] > 0
