"""When values are computed, what is kept, and that memory is never overwritten under somebody's eyes."""

from __future__ import annotations

import copy
import gc

import numpy as np
import pytest

import metafuse as mf
from metafuse.config import flag_scope
from metafuse.graph.node import state
from metafuse.runtime import programs
from metafuse.runtime.kernels import statistics


def test_nothing_runs_before_a_value_is_read() -> None:
    mf.sync_all()
    before = statistics.programs
    x = mf.ones(3) * 2 + 1
    assert statistics.programs == before
    assert x.shape == (3,) and x.dtype == "float32"
    assert statistics.programs == before
    np.testing.assert_array_equal(x.numpy(), [3, 3, 3])
    assert statistics.programs == before + 1


def test_older_held_values_run_in_the_same_program_younger_ones_wait() -> None:
    mf.sync_all()
    x = mf.array([1.0, 2.0])
    older = x + 1
    asked = x * 2
    younger = x - 1
    before = statistics.programs
    asked.sync()
    assert statistics.programs == before + 1
    assert older._node.buffer is not None
    assert younger._node.buffer is None
    older.numpy()
    assert statistics.programs == before + 1


def test_dead_values_never_run() -> None:
    mf.sync_all()
    x = mf.array([1.0])
    dropped = mf.code([1], "float32", [x], cpu_src="this is no C++")
    del dropped
    assert (x + 1).item() == 2.0


def test_second_step_plans_nothing() -> None:
    weight = mf.ones(4, 4).stop_grad()
    for step in range(4):
        x = mf.array(np.full((2, 4), float(step), np.float32))
        weight.update(weight - (x @ weight).sum() * 0.1)
        before = statistics.plans
        weight.sync()
        if step >= 2:
            assert statistics.plans == before


def test_numbers_are_run_time_arguments() -> None:
    x = mf.array([1.0, 2.0])
    (x * 0.5 + 3.0).sync()
    before = (statistics.plans, statistics.compilations)
    for k in range(5):
        np.testing.assert_allclose(
            (x * (0.1 * k) + float(k)).numpy(), np.array([1, 2]) * 0.1 * k + k, rtol=1e-6
        )
    assert (statistics.plans, statistics.compilations) == before


def address(x: mf.Var) -> int:
    """Where the value lies in memory."""
    return int(x.data.__array_interface__["data"][0])


def test_update_in_place_reuses_the_buffer_only_if_nobody_else_holds_it() -> None:
    x = mf.zeros(64).stop_grad().sync()
    place = address(x)
    x.update(x + 1)
    x.sync()
    assert address(x) == place
    shared = x.detach()
    x.update(x + 1)
    x.sync()
    np.testing.assert_array_equal(shared.numpy(), np.ones(64))
    np.testing.assert_array_equal(x.numpy(), np.full(64, 2.0))


def test_a_graph_kept_for_a_gradient_keeps_its_leaves() -> None:
    p = mf.array([2.0, 3.0])
    y = p * p * p
    y.sync()
    p.update(p + 1)
    p.sync()
    old = p.detach()
    q = mf.array([2.0])
    z = q * q
    z.sync()
    before = q.detach()
    q.update(q * 10)
    q.sync()
    np.testing.assert_allclose(before.numpy(), [2.0])
    np.testing.assert_allclose(old.numpy(), [3.0, 4.0])
    np.testing.assert_allclose(y.numpy(), [8.0, 27.0])


def test_statistics_after_a_retained_forward_do_not_disturb_the_backward() -> None:
    rng = np.random.default_rng(0)
    values = rng.standard_normal((4, 3)).astype(np.float32)
    x, running = mf.array(values), mf.zeros(3).stop_grad()
    mean = x.mean(0)
    y = (x - mean).sqr()
    running.update(running * 0.9 + mean.detach() * 0.1)
    y.sync()
    mf.sync_all()
    g = mf.grad(y.sum(), x)
    np.testing.assert_allclose(g.numpy(), 2 * (values - values.mean(0)), rtol=1e-4, atol=1e-5)


def test_views_share_memory_and_outlive_the_var() -> None:
    x = mf.array([1.0, 2.0, 3.0])
    view = x.data
    del x
    gc.collect()
    np.testing.assert_array_equal(view, [1, 2, 3])


@pytest.mark.parametrize("backend", ["", "reference"])
@pytest.mark.parametrize("stored", [False, True])
@pytest.mark.parametrize(
    "follower",
    [
        mf.Var.clone,
        mf.Var.detach,
        copy.copy,
        lambda x: x.reshape(3, 1),
        lambda x: mf.zeros(3).assign(x),
        lambda x: x * 1,
    ],
)
def test_what_is_written_to_the_data_does_not_reach_what_was_recorded_before(
    follower, stored, backend
) -> None:
    with flag_scope(backend=backend):
        x = mf.array([1.0, 2.0, 3.0])
        y = follower(x)
        if stored:
            mf.sync([x, y])
        view = x.data
        view[0] = 9
        x.data[1] += 8
        assert (x.tolist(), (x * 2).tolist()) == ([9, 10, 3], [18, 20, 6])
        assert y.numpy().ravel().tolist() == [1, 2, 3]
        y.data[2] = 7
        assert (x.tolist(), y.numpy().ravel().tolist()) == ([9, 10, 3], [1, 2, 7])
        assert view.tolist() == [9, 10, 3]


def test_looking_at_the_data_leaves_alone_what_does_not_read_it_and_copies_nothing() -> None:
    x = (mf.ones(4, 4) * 2).softmax(1).sync()
    other = mf.ones(2) * 3
    place = address(x)
    assert other._node.buffer is None
    view = x.data
    assert address(x) == place == int(view.__array_interface__["data"][0])


def test_long_chains_neither_recurse_nor_crash() -> None:
    x = mf.array([1.0, 2.0])
    y = x
    for _ in range(20_000):
        y = y + 0.5
    np.testing.assert_allclose(y.numpy(), [10001.0, 10002.0])
    np.testing.assert_allclose(mf.grad(y, x).numpy(), [1.0, 1.0])
    del y


def test_too_long_a_pending_graph_runs_by_itself() -> None:
    mf.sync_all()
    limit, state.limit = state.limit, 50
    try:
        held = [mf.array([1.0]) + k for k in range(60)]
        assert held[0]._node.buffer is not None
    finally:
        state.limit = limit


def test_live_nodes_stay_constant_over_many_steps() -> None:
    from metafuse import nn

    model = nn.Linear(4, 2)
    optimizer = nn.SGD(model.parameters(), 0.01, 0.9)

    def step() -> None:
        loss = (model(mf.ones(3, 4)) - 1.0).sqr().mean()
        optimizer.step(loss)

    for _ in range(5):
        step()
    gc.collect()
    from metafuse.runtime.buffer import live_bytes

    before = (live_bytes.count, live_bytes.now, len(state.pending))
    for _ in range(100):
        step()
    gc.collect()
    assert (live_bytes.count, live_bytes.now, len(state.pending)) == before


def test_a_failing_program_loses_nothing() -> None:
    mf.sync_all()
    x = mf.array([1.0, 2.0])
    good = x + 1
    from metafuse.graph.node import spec_of
    from metafuse.ops.host import HostFunction, host_op

    def fail(_: np.ndarray) -> np.ndarray:
        raise RuntimeError("no")

    broken = host_op("broken", HostFunction(fail), [x], spec_of((2,), x.dtype))
    with pytest.raises(RuntimeError, match="no"):
        broken.sync()
    del broken
    np.testing.assert_array_equal(good.numpy(), [2, 3])


def test_errors_in_a_program_name_operators_and_the_users_line() -> None:
    from metafuse.errors import KernelError

    x = mf.array([1.0, 2.0])
    y = x.exp() + 1
    story = programs.story([y._node])
    assert "add" in story and "test_evaluation.py" in story and "float32[2]" in story
    assert issubclass(KernelError, RuntimeError)


def test_a_buffer_is_not_taken_over_by_what_an_earlier_launch_writes() -> None:
    with mf.flag_scope(auto_convert_64_to_32=0):
        result = mf.diag(mf.array(np.array([1.5], np.float32)))
    np.testing.assert_array_equal(result.numpy(), [[1.5]])


class _Raising:
    """A copy of an array whose computation raises while ``failing``."""

    failing = True

    def forward(self, np: object, data: dict[str, list[np.ndarray]]) -> None:
        if self.failing:
            raise RuntimeError("the user's")
        data["outputs"][0][:] = data["inputs"][0]

    def __call__(self, x: mf.Var) -> mf.Var:
        return mf.numpy_code(x.shape, x.dtype, [x], self.forward)


def test_an_update_is_made_once_where_the_first_attempt_raises() -> None:
    weight = mf.array([0.5, 0.5]).sync()
    raising = _Raising()
    weight += 1
    seen = raising(weight)
    with pytest.raises(RuntimeError, match="the user's"):
        seen.sync()
    raising.failing = False
    assert weight.tolist() == seen.tolist() == [1.5, 1.5]


@pytest.mark.parametrize("later", [False, True])
def test_a_compiled_step_that_raises_changes_nothing(later: bool) -> None:
    weight, beside = mf.array([0.5, 0.5]).sync(), mf.zeros(2).sync()
    failing: list[bool] = []

    def copy(np: object, data: dict[str, list[np.ndarray]]) -> None:
        if failing:
            raise RuntimeError("the user's")
        data["outputs"][0][:] = data["inputs"][0]

    @mf.compile
    def step(x: mf.Var) -> mf.Var:
        beside.assign(x + 0)
        weight.assign(weight + x)
        if later:
            weight.sync()  # a program of its own
        return mf.numpy_code([2], "float32", [beside], copy)

    one = mf.ones(2).sync()
    for _ in range(6):
        step(one)
    mf.sync_all()
    recorded = step.recorded
    assert step.replayed and weight.tolist() == [6.5, 6.5]
    failing.append(True)
    with pytest.raises(RuntimeError, match="the user's"):
        step(one)
    assert weight.tolist() == [6.5, 6.5] and step.recorded == recorded


def test_what_fails_raises_where_it_is_read_and_nowhere_else() -> None:
    mf.sync_all()
    x = mf.array([1.0, 2.0])
    raising = _Raising()
    broken = raising(x)
    also = broken + 1
    good = x * 2
    assert good.tolist() == [2, 4] and (good + x).tolist() == [3, 6]
    mf.sync([x - 1, good])
    for value in (broken, also):
        with pytest.raises(RuntimeError, match="the user's"):
            value.numpy()
    raising.failing = False
    assert also.tolist() == [2, 3] and broken.tolist() == [1, 2]


def test_no_memory_for_one_value_is_no_matter_for_others() -> None:
    huge = mf.zeros(2**50) + 1
    assert (mf.ones(2) + 1).tolist() == [2, 2]
    with pytest.raises(MemoryError):
        huge.sync()
    assert huge[:2].tolist() == [1, 1]
