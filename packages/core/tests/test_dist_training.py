"""Data parallel training that equals training alone."""

from __future__ import annotations

import numpy as np
import pytest

import metafuse as mf
from metafuse import nn
from metafuse.dist import buckets, loopback, parallel
from metafuse.errors import (
    ArgumentError,
    DistributionError,
)

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(50, 6)).astype(np.float32)
Y = (X[:, :1] * 2 - X[:, 1:2]).astype(np.float32)


@pytest.fixture(autouse=True)
def on_the_reference_backend():
    with mf.flag_scope(backend="reference"):
        yield


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
        net.train()
        optimizer = nn.Adam(net.parameters(), 1e-2)
        mask = net[1](mf.ones([64])).numpy()
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
