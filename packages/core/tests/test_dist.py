"""Distribution: groups, the loopback, order of collectives, data parallel training that equals training alone."""

from __future__ import annotations

import threading

import numpy as np
import pytest

import metafuse as mf
from metafuse import nn
from metafuse.dist import buckets, loopback, parallel
from metafuse.dist.alone import Alone
from metafuse.errors import (
    ArgumentError,
    CollectiveMismatch,
    DistributionError,
    DTypeError,
    GradientError,
    ShapeError,
)

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(50, 6)).astype(np.float32)
Y = (X[:, :1] * 2 - X[:, 1:2]).astype(np.float32)


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


# -- data parallel ---------------------------------------------------------------------------------------------------
class Net(nn.Module):
    def __init__(self, sync=True):
        self.a = nn.Linear(6, 16)
        self.bn = nn.BatchNorm(16, sync=sync)
        self.b = nn.Linear(16, 1)

    def execute(self, x):
        return self.b(nn.relu(self.bn(self.a(x))))


def train(
    rank,
    *,
    batch=16,
    epochs=2,
    make=lambda p: nn.Adam(p, 1e-2),
    change=None,
    compiled=False,
    accumulate=1,
    clip=0.0,
):
    """The very script that runs alone; answers the loss curve, a weight, and the running variance."""
    mf.set_global_seed(3)
    mf.data.set_shuffle_seed(5)
    net = Net()
    optimizer = make(net.parameters())
    if change:
        change(net)
    data = mf.data.TensorDataset(X, Y).set_attrs(batch_size=batch, shuffle=True)
    curve = []

    def step(x, y):
        loss = ((net(x) - y) ** 2).mean()
        of_all = mf.dist.global_mean(loss)
        if accumulate == 1 and not clip:
            optimizer.step(loss)
        else:
            optimizer.backward(loss)
        return of_all

    run = mf.compile(step) if compiled else step
    for _ in range(epochs):
        for number, (x, y) in enumerate(data):
            of_all = run(x, y)
            if (accumulate > 1 or clip) and number % accumulate == accumulate - 1:
                if clip:
                    optimizer.clip_grad_norm(clip)
                optimizer.step()
            curve.append(of_all.item())
    return np.array(curve), net.a.weight.numpy(), net.bn.running_var.numpy()


def same(alone, found):
    for values in found:
        for a, b in zip(alone, values, strict=True):
            np.testing.assert_allclose(b, a, rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize("count", [2, 3, 4])
@pytest.mark.parametrize("batch", [16, 7])
def test_the_loss_curve_is_that_of_one_process(count, batch):
    """50 samples: the last batch is ragged, and smaller than the number of ranks where the batch is 7 and there are 2 or more."""
    same(train(0, batch=batch), loopback.run(count, lambda rank: train(rank, batch=batch)))


@pytest.mark.parametrize(
    "options",
    [
        {"make": lambda p: nn.SGD(p, 0.05, momentum=0.9, weight_decay=1e-3)},
        {"accumulate": 2},
        {"clip": 0.1},
        {"compiled": True, "batch": 13, "epochs": 8},
    ],
    ids=["momentum", "accumulation", "clipping", "compiled"],
)
def test_other_ways_to_train(options):
    same(train(0, **options), loopback.run(2, lambda rank: train(rank, **options)))


def test_small_buckets():
    with mf.flag_scope(dist_bucket_bytes=64):
        before = buckets.statistics.count
        found = loopback.run(2, lambda rank: train(rank, epochs=1))
        assert buckets.statistics.count - before > 2 * 4 * 2
    same(train(0, epochs=1), found)


def test_accumulation_communicates_once():
    before = buckets.statistics.count
    loopback.run(2, lambda rank: train(rank, epochs=1, accumulate=2))
    assert buckets.statistics.count - before == 2 * 2  # two updates of four batches, on each of two ranks


def test_parameters_changed_after_the_optimizer_was_made_become_equal():
    def shift(net):
        net.a.weight.update(net.a.weight + (1.0 if mf.rank else 0.0)).start_grad()

    def on_rank_0(net):
        pass

    same(train(0, change=on_rank_0), loopback.run(2, lambda rank: train(rank, change=shift)))


def test_parameters_that_differ_when_the_loss_is_known_are_refused():
    def main(rank):
        net = nn.Linear(3, 1)
        optimizer = nn.SGD(net.parameters(), 0.1)
        net.weight.update(net.weight + float(rank)).start_grad()
        loss = net(mf.ones([2, 3])).mean()
        loss.sync()
        optimizer.step(loss)

    with pytest.raises(DistributionError, match=r"parameters differ between rank 0 and ranks \[1\]"):
        loopback.run(2, main)


def test_parameters_of_16_bits():
    def main(rank):
        p = mf.array(np.ones(5), "bfloat16").start_grad()
        optimizer = nn.SGD([p], 1.0)
        optimizer.step((p * float(rank)).sum())
        return p.numpy().tolist(), str(p.dtype)

    assert loopback.run(2, main) == [([0.5] * 5, "bfloat16")] * 2


def test_gradients_read_between_backward_and_step_are_of_all():
    def main(rank):
        p = mf.array([2.0]).start_grad()
        optimizer = nn.SGD([p], 1.0)
        optimizer.backward((p * (1.0 + rank)).sum())
        if rank == 0:  # only one rank looks
            assert p.opt_grad(optimizer).item() == 1.5
        else:
            p.opt_grad(optimizer)
        optimizer.backward((p * 2.0).sum())
        optimizer.step()
        return p.item()

    assert loopback.run(2, main) == [-1.5] * 2


@pytest.mark.parametrize("nbytes", [8 << 20, 8])
def test_sums_that_nobody_has_read_come_before_the_next(nbytes):
    """Two sums in the same memory, recorded before either has run."""

    def main(rank):
        p, q = mf.array([2.0, 1.0]).start_grad(), mf.array(1.0).start_grad()
        optimizer = nn.SGD([p, q], 1.0)
        late = mf.array([3.0, 5.0])
        optimizer.backward((p * (1.0 + rank)).sum() + q * rank)
        first = p.opt_grad(optimizer)  # is a sum over ranks now, and not computed
        optimizer.backward((p * late).sum() + q * 10.0)
        optimizer.step()
        return first.numpy().tolist(), p.numpy().tolist(), q.item()

    with mf.flag_scope(dist_bucket_bytes=nbytes):
        assert loopback.run(2, main) == [([1.5, 1.5], [-2.5, -5.5], -9.5)] * 2


def test_dropout_differs_between_ranks_and_parameters_do_not():
    def main(rank):
        mf.set_global_seed(3)
        net = nn.Sequential(nn.Linear(6, 8), nn.Dropout(0.5), nn.Linear(8, 1))
        optimizer = nn.Adam(net.parameters(), 1e-2)
        mask = nn.Dropout(0.5)(mf.ones([64])).numpy()
        for x, y in mf.data.TensorDataset(X, Y).set_attrs(batch_size=7):
            optimizer.step(((net(x) - y) ** 2).mean())
        return mask, [p.numpy() for p in net.parameters()]

    (mask, first), (other_mask, second) = loopback.run(2, main)
    assert (mask != other_mask).any()
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a, b)


def test_numbers_of_other_types_are_averaged():
    def main(rank):
        counted = mf.array(np.array(7 + rank))
        big = mf.array64(np.array([2**40 + rank], np.int64)).mpi_all_reduce()
        strided = mf.array(np.arange(12, dtype=np.float32).reshape(3, 4) * (rank + 1))[:, 1].transpose()
        return (
            mf.dist.average(counted, 1),
            int(big.numpy()[0]),
            strided.mpi_all_reduce("mean").numpy().tolist(),
        )

    assert loopback.run(2, main) == [(7.5, 2**41 + 1, [1.5, 7.5, 13.5])] * 2


def test_batches_of_ones_own_have_a_weight():
    def main(rank):
        p = mf.array([0.0]).start_grad()
        optimizer = nn.SGD([p], 1.0)
        mine = [1.0, 2.0, 6.0][: 1 + 2 * rank]
        with mf.dist.batch_scope(len(mine)):
            optimizer.step((p * mf.array(mine)).mean())
            assert abs(mf.dist.average(np.mean(mine)) - 10 / 4) < 1e-9
        return p.item()

    assert loopback.run(2, main) == [-2.5] * 2
    with pytest.raises(ArgumentError, match="samples must be an integer >= 0"), mf.dist.batch_scope(-1):
        pass


def test_parameters_are_exchanged_now_and_then():
    def main(rank):
        p = mf.array([0.0]).start_grad()
        optimizer = nn.SGD([p], 1.0)
        optimizer.param_sync_iter = 2
        found = []
        for _ in range(2):
            optimizer.step((p * 1.0).sum())
            p.update(p + rank * 0.25).start_grad()  # drifts
            found.append(p.item())
        optimizer.step((p * 1.0).sum())
        optimizer.step((p * 1.0).sum())
        return p.item()

    values = loopback.run(2, main)
    assert values[0] == values[1]


def test_every_rank_reads_its_own_part():
    def main(rank):
        data = mf.data.TensorDataset(np.arange(11)).set_attrs(batch_size=4, keep_numpy_array=True)
        assert len(data) == 3
        return [(x[0].tolist(), parallel.current_share()) for x in data]

    first, second = loopback.run(2, main)
    assert [x for x, _ in first] == [[0, 1], [4, 5], [8, 9]]
    assert [x for x, _ in second] == [[2, 3], [6, 7], [10]]
    assert [s.weight for _, s in first] == [0.5, 0.5, 2 / 3]
    with pytest.raises(DistributionError), mf.flag_scope(distribution=""):
        raise DistributionError("flags come back")


def test_a_rank_without_a_sample_counts_for_nothing():
    def main(rank):
        own, share = parallel.shared_out([7])
        return own, share.samples, share.weight

    assert loopback.run(3, main) == [([7], 1, 1.0), ([7], 0, 0.0), ([7], 0, 0.0)]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_synchronised_batch_norm_by_hand(dtype):
    """The layer written with the operators that users have gives what the layer gives."""
    rows = mf.array(X[:10]).cast(dtype).float32().numpy()

    def main(rank):
        x = mf.array(np.array_split(rows, 2)[rank], dtype)
        layer = nn.BatchNorm(6)
        y = layer(x)
        count = mf.array([float(x.shape[0])]).mpi_all_reduce()
        mean = x.float32().sum(0).mpi_all_reduce() / count
        variance = ((x.float32() - mean) ** 2).sum(0).mpi_all_reduce() / count
        by_hand = (x.float32() - mean) / (variance + layer.eps).sqrt()
        return y.float32().numpy(), by_hand.numpy(), layer.running_mean.numpy()

    found = loopback.run(2, main)
    for y, by_hand, _ in found:
        np.testing.assert_allclose(y, by_hand, atol=2e-2 if dtype == "bfloat16" else 2e-6)
    whole = nn.BatchNorm(6)
    expected = whole(mf.array(rows)).numpy()
    np.testing.assert_allclose(
        np.concatenate([y for y, _, _ in found]), expected, atol=2e-2 if dtype == "bfloat16" else 2e-6
    )
    np.testing.assert_allclose(found[1][2], whole.running_mean.numpy(), atol=1e-6)


def test_batch_norm_without_sync_has_its_own_statistics():
    def main(rank):
        layer = nn.BatchNorm(6, sync=False)
        layer(mf.array(np.full((4, 6), float(rank), np.float32)))
        return float(layer.running_mean.numpy()[0])

    assert loopback.run(2, main) == pytest.approx([0.0, 0.1])


def test_rank_0_saves(tmp_path):
    def main(rank):
        net = nn.Linear(2, 1)
        net.weight.update(net.weight * 0 + float(rank))
        net.save(str(tmp_path / "net.npz"))
        mf.dist.barrier()
        other = nn.Linear(2, 1)
        other.load(str(tmp_path / "net.npz"))
        other.mpi_param_broadcast(1)
        return other.weight.numpy().tolist()

    assert loopback.run(2, main) == [[[0.0, 0.0]]] * 2
    assert [p.name for p in tmp_path.iterdir()] == ["net.npz"]
