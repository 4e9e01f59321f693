"""Distribution: groups, the loopback, order of collectives."""

from __future__ import annotations

import threading

import numpy as np
import pytest

import metafuse as mf
from metafuse.dist import loopback
from metafuse.dist.alone import Alone
from metafuse.errors import (
    ArgumentError,
    CollectiveMismatch,
    DTypeError,
    GradientError,
    ShapeError,
)


@pytest.fixture(autouse=True)
def on_the_reference_backend():
    with mf.flag_scope(backend="reference"):
        yield


# -- alone --------------------------------------------------------------------------------------------------------
def test_a_process_alone_is_a_group_of_one():
    assert (mf.rank, mf.world_size, mf.in_mpi) == (0, 1, False)
    assert isinstance(mf.dist.world(), Alone)
    x = mf.array([1.0, 2.0])
    for y in (
        x.mpi_all_reduce(),
        x.mpi_all_reduce("mean"),
        x.mpi_reduce(),
        x.mpi_broadcast(),
        x.mpi_all_gather(),
        x.mpi_reduce_scatter(),
    ):
        np.testing.assert_array_equal(y.numpy(), [1, 2])
    mf.dist.barrier()
    assert mf.dist.gather_objects("a") == ["a"]
    assert mf.dist.average(3.0) == 3.0
    np.testing.assert_array_equal(mf.grad((x.start_grad().mpi_all_reduce() * 3).sum(), x).numpy(), [3, 3])


def test_the_names_of_the_reference_api():
    assert (mf.mpi.world_size(), mf.mpi.world_rank(), mf.mpi.local_rank(), mf.mpi.get_state()) == (
        1,
        0,
        0,
        False,
    )
    mf.mpi.mpi_barrier()
    x = mf.array([1.0, 2.0])
    mf.mpi.var_all_reduce(x)
    mf.mpi.var_reduce(x)
    mf.mpi.var_broadcast(x)
    np.testing.assert_array_equal(x.numpy(), [1, 2])
    with pytest.raises(DTypeError, match="C-contiguous"):
        mf.mpi.broadcast([1, 2], 0)
    with pytest.raises(ArgumentError, match="root must be a rank"):
        mf.mpi.broadcast(np.zeros(3), 1)


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda x: x.mpi_all_reduce("median"), ArgumentError, r"op must be 'mean' or one of add"),
        (lambda x: x.int32().mpi_all_reduce("mean"), DTypeError, "a mean needs a floating type, got int32"),
        (lambda x: x.mpi_reduce("add", 1), ArgumentError, "root must be a rank, 0 <= root < 1, got 1"),
        (lambda x: x.mpi_broadcast(True), ArgumentError, "root must be a rank"),
        (lambda x: mf.mpi_all_reduce("x"), DTypeError, "mpi_all_reduce"),
        (lambda x: x.mpi_send(3), ArgumentError, "dest must be a rank"),
    ],
)
def test_bad_arguments(call, error, text):
    with pytest.raises(error, match=text):
        call(mf.array([1.0, 2.0]))


# -- the loopback ---------------------------------------------------------------------------------------------------
def test_ranks_have_worlds_of_their_own():
    def main(rank):
        assert (mf.rank, mf.world_size, mf.in_mpi) == (rank, 3, True)
        mf.set_global_seed(5)
        return float(mf.rand(1).item()), mf.get_seed(), threading.current_thread().name

    found = loopback.run(3, main)
    assert len({f[0] for f in found}) == 3
    assert [f[1] for f in found] == [5, 5 + 2591, 5 + 2 * 2591]
    assert mf.world_size == 1


def test_seeds_may_be_equal():
    def main(rank):
        mf.set_global_seed(5, different_seed_for_mpi=False)
        return mf.get_seed(), float(np.random.rand())

    assert len(set(loopback.run(3, main))) == 1


def test_what_was_pending_before_is_pending_after():
    x = mf.array([1.0]) + 1

    def main(rank):
        return mf.array([rank]).mpi_all_reduce().item()

    assert loopback.run(2, main) == [1, 1]
    assert x.item() == 2


def test_a_group_in_which_all_wait_is_described():
    def main(rank):
        if rank == 1:
            mf.array([1.0]).mpi_recv(0).sync()

    with pytest.raises(
        CollectiveMismatch, match=r"rank 1 waits in recv of float32\[1\] from rank 0; ended already: \[0\]"
    ):
        loopback.run(2, main)


def test_a_mismatch_names_both_calls_and_lines():
    def main(rank):
        if rank == 0:
            mf.array([1.0]).mpi_all_reduce().sync()
        else:
            mf.array([1.0, 2.0]).mpi_broadcast().sync()

    with pytest.raises(CollectiveMismatch) as caught:
        loopback.run(2, main)
    text = str(caught.value)
    assert "rank 0 called mpi_all_reduce(op='add') of float32[1] recorded at" in text
    assert "rank 1 called mpi_broadcast(root=0) of float32[2] recorded at" in text
    assert text.count("test_dist.py:") >= 2


def test_unchecked_calls_are_not_compared_but_the_loopback_sees_them():
    def main(rank):
        with_shape = np.ones(2 + rank, np.float32)
        mf.array(with_shape).mpi_all_reduce().sync()

    with mf.flag_scope(dist_check=0), pytest.raises(CollectiveMismatch, match="collective 0"):
        loopback.run(2, main)


def test_a_send_of_another_type_is_told():
    def main(rank):
        if rank == 0:
            mf.array([1, 2]).mpi_send(1).sync()
        else:
            mf.array([1.0, 2.0]).mpi_recv(0).sync()

    with pytest.raises(CollectiveMismatch, match="expects 2 elements of float32, rank 0 sent 2 of int32"):
        loopback.run(2, main)


def test_shapes_that_cannot_be_shared_out():
    def main(rank):
        with pytest.raises(ShapeError, match=r"multiple of the 2 ranks, got shape \(3,\)"):
            mf.array([1.0, 2.0, 3.0]).mpi_reduce_scatter()
        with pytest.raises(ArgumentError, match="another rank, got this one"):
            mf.array([1.0]).mpi_send(rank)
        with pytest.raises(GradientError, match="multiply"):
            x = mf.array([1.0]).start_grad()
            mf.grad(x.mpi_all_reduce("multiply"), x)

    loopback.run(2, main)


def test_rebinding_the_answer_does_not_lose_the_call():
    def main(rank):
        y = mf.array([1.0]).mpi_all_reduce()
        y += 1
        z = mf.array([2.0]).mpi_all_reduce()
        return y.item(), z.item()

    assert loopback.run(2, main) == [(3.0, 4.0)] * 2


def test_backward_passes_are_recorded_anew():
    """A gradient that was recorded before is not repeated together with the collectives that came before it."""

    def main(rank):
        w = mf.array([1.0 + rank]).start_grad()
        found = []
        for _ in range(4):
            metric = (w * 1.0).mpi_all_reduce()
            g = mf.grad((w.mpi_all_reduce() * (w * 2.0)).sum(), w)
            found.append((metric.item(), g.item()))
        return found

    # the sum over ranks of (w0 + w1) 2 w_r = 2 (w0 + w1)^2
    assert loopback.run(2, main) == [[(3.0, 12.0)] * 4] * 2


def test_single_process_scope():
    ran = []

    @mf.single_process_scope(rank=1)
    def report(rank):
        ran.append(rank)
        assert (mf.world_size, mf.in_mpi) == (1, False)
        return mf.array([float(rank)]).mpi_all_reduce().item()

    def main(rank):
        total = mf.array([1.0]).mpi_all_reduce()
        answer = report(rank)
        assert mf.world_size == 3
        with mf.single_process_scope():
            assert mf.world_size == 1
        return answer, total.item()

    assert loopback.run(3, main) == [(None, 3.0), (1.0, 3.0), (None, 3.0)]
    assert ran == [1]


def test_scopes_within_scopes():
    @mf.single_process_scope(rank=1)
    def inner():
        return mf.world_size, mf.rank

    @mf.single_process_scope(rank=0)
    def outer():
        with mf.single_process_scope():
            assert mf.world_size == 1
        assert mf.world_size == 1
        return inner()  # alone already: runs here

    def main(rank):
        answer = outer(), inner()
        with pytest.raises(ZeroDivisionError), mf.single_process_scope():
            raise ZeroDivisionError
        return answer, mf.world_size, mf.array([1.0]).mpi_all_reduce().item()

    assert loopback.run(2, main) == [(((1, 0), None), 2, 2.0), ((None, (1, 0)), 2, 2.0)]


def test_the_names_of_the_reference_api_on_several_ranks():
    def main(rank):
        x = mf.array([float(rank), 1.0]).start_grad()
        mf.mpi.var_broadcast(x, 1)
        first = x.numpy().tolist()
        mf.mpi.var_all_reduce(x)
        second = x.numpy().tolist()
        y = mf.array([1.0 + rank])
        mf.mpi.var_reduce(y, 1)
        a = np.full(3, rank, np.int64)
        mf.mpi.broadcast(a, 1)
        mf.mpi.set_state(False)
        alone = mf.world_size
        mf.mpi.set_state(True)
        assert x.requires_grad
        return first, second, y.item(), a.tolist(), alone, mf.world_size

    assert loopback.run(2, main) == [
        ([1.0, 1.0], [2.0, 2.0], 0.0, [1, 1, 1], 1, 2),
        ([1.0, 1.0], [2.0, 2.0], 3.0, [1, 1, 1], 1, 2),
    ]
