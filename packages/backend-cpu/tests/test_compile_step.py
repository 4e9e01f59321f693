"""``metafuse.compile`` on this backend: the same bits as the plain loop, and no memory taken from call to call."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import metafuse as mf
from metafuse import nn
from metafuse.config import flag_scope
from metafuse.runtime import executor

pytestmark = pytest.mark.compiler


@pytest.fixture(autouse=True)
def _on_the_cpu():
    with flag_scope(backend="cpu"):
        yield
        mf.sync_all()


class Network(nn.Module):
    def __init__(self) -> None:
        self.conv = nn.Conv(1, 4, 3)
        self.norm = nn.BatchNorm(4)
        self.drop = nn.Dropout(0.2)
        self.dense = nn.Linear(4 * 3 * 3, 5)

    def execute(self, x: Any) -> Any:
        x = nn.max_pool2d(nn.relu(self.norm(self.conv(x))), 2)
        return self.dense(self.drop(x.reshape([x.shape[0], -1])))


def run(
    compiled: bool, steps: int, make: Callable[[], tuple[Any, Any]], size: int = 8
) -> tuple[list[Any], Any]:
    mf.set_global_seed(5)
    net, optimizer = make()
    mf.sync_all()
    rng = np.random.default_rng(0)

    def step(x: Any, y: Any) -> Any:
        loss = nn.cross_entropy_loss(net(x), y)
        optimizer.step(loss)
        return loss

    call = mf.compile(step) if compiled else step
    seen: list[Any] = []
    for k in range(steps):
        optimizer.lr = 0.05 / (1 + k // 4)
        x = rng.standard_normal((size, 1, 8, 8)).astype(np.float32)
        y = rng.integers(0, 5, size).astype(np.int32)
        seen.append(call(mf.array(x), mf.array(y)).item())
        if k % 5 == 4:
            net.eval()
            seen.append(net(mf.array(x)).numpy())
            net.train()
    seen += [p.numpy() for p in net.parameters()]
    return seen, call


@pytest.mark.parametrize("kind", ["sgd", "adam"])
def test_a_convolutional_network_trains_to_the_same_bits(kind):
    def make() -> tuple[Any, Any]:
        net = Network()
        parameters = net.parameters()
        return net, nn.SGD(parameters, 0.05, 0.9) if kind == "sgd" else nn.Adam(parameters, 0.01)

    plain, _ = run(False, 16, make)
    fast, call = run(True, 16, make)
    for a, b in zip(plain, fast, strict=True):
        np.testing.assert_array_equal(a, b)
    assert call.plain == 0
    assert call.replayed >= 8


def test_a_step_takes_no_memory_from_call_to_call():
    net = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))
    optimizer = nn.SGD(net.parameters(), 0.01, 0.9)
    x, y = mf.randn(32, 64), mf.array(np.arange(32) % 10)
    mf.sync_all()

    @mf.compile
    def step(x: Any, y: Any) -> Any:
        loss = nn.cross_entropy_loss(net(x), y)
        optimizer.step(loss)
        return loss

    for _ in range(8):
        loss = step(x, y)
    assert step.replayed >= 3
    backend = executor.device().backend
    gc.collect()
    before = backend.memory_stats()
    places = sorted(p._node.buffer.handle for p in net.parameters())
    seen = set()
    for _ in range(50):
        loss = step(x, y)
        seen.add(tuple(sorted(p._node.buffer.handle for p in net.parameters())))
    after = backend.memory_stats()
    assert after["system_allocations"] == before["system_allocations"]
    assert after["blocks"] == before["blocks"]
    assert after["bytes_in_use"] == before["bytes_in_use"]
    assert len(seen) <= 4 and places  # in place, or between two buffers
    assert np.isfinite(loss.item())


def test_packed_weights_follow_the_parameters():
    net = nn.Sequential(
        nn.Conv(3, 8, 3, padding=1), nn.BatchNorm(8), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 16, 4)
    )
    net.eval()
    x = mf.array(np.random.default_rng(1).standard_normal((2, 3, 4, 4)).astype(np.float32))
    fast = mf.compile(lambda x: net(x))
    for k in range(16):
        if k == 6:
            net.load_state_dict({n: v.numpy() * 1.5 for n, v in net.named_parameters()})
        if k == 9:
            net[0].weight.update(net[0].weight * 0.5)
        if k == 12:
            net[4].weight.data[...] = 0.25
        np.testing.assert_array_equal(fast(x).numpy(), net(x).numpy())
    assert fast.replayed >= 10


def test_snippets_with_numbers_that_change():
    class Box:
        scale = 1.0

    box = Box()
    box.scale = 2.0

    @mf.compile
    def step(x: Any) -> Any:
        source = 'for (int i = 0; i < in0_shape0; ++i) @out(i) = @in0(i) * data["scale"];'
        return mf.code(x.shape, "float32", [x], cpu_src=source, data={"scale": box.scale}) + 1

    for k in range(12):
        if k >= 6:
            box.scale = 2.0 + k
        x = mf.array([1.0, float(k)])
        np.testing.assert_array_equal(step(x).numpy(), np.array([1.0, k]) * box.scale + 1)


def test_views_and_threads_of_results():
    p = mf.zeros(1000).stop_grad()

    @mf.compile
    def step(x: Any) -> Any:
        p.update(p + x)
        return p.detach()

    views = []
    for k in range(1, 20):
        result = step(mf.ones(1000))
        views.append((k, p.data, result))
        for wanted, view, answer in views[-5:]:
            assert (view == wanted).all()
            assert (answer.numpy() == wanted).all()
    assert step.replayed >= 12


def test_shapes_that_only_values_know_are_not_captured():
    @mf.compile
    def step(x: Any) -> Any:
        source = "int n = 0; for (int i = 0; i < in0_shape0; ++i) if (@in0(i) > 0) @out(n++) = @in0(i); out->set_shape({n});"
        return mf.code([-4], "float32", [x], cpu_src=source)

    for k in range(8):
        x = (
            np.array([1.0, -1.0, float(k), -float(k)], np.float32)
            if k < 4
            else np.array([-1, 2, 3, 4.0], np.float32)
        )
        np.testing.assert_array_equal(step(mf.array(x)).numpy(), x[x > 0])
    assert step.replayed == 0 and step.plain > 0


def test_poolings_that_begin_or_cease_to_tile_compile_nothing_new(monkeypatch: pytest.MonkeyPatch) -> None:
    from metafuse.runtime.kernels import KernelTable

    needed: list[set[object]] = []
    obtain = KernelTable.obtain

    def noted(self: KernelTable, kernels: list[object]) -> list[object]:
        needed[-1].update(kernels)
        return obtain(self, kernels)

    monkeypatch.setattr(KernelTable, "obtain", noted)
    for batch, padding in ((4, 1), (4, 0), (5, 2), (5, 0)):  # all windows cover the image in the first alone
        needed.append(set())
        features = nn.Sequential(
            nn.Conv(1, 8, 3, padding=padding), nn.ReLU(), nn.Pool(2, 2),
            nn.Conv(8, 16, 3, padding=padding), nn.ReLU(), nn.Pool(2, 2),
        )  # fmt: skip
        loss = (features(mf.random((batch, 1, 28, 28))) ** 2).mean()
        mf.optim.SGD(features.parameters(), 0.01, 0.9).step(loss)
        mf.sync([loss, *features.parameters()])
    assert needed[0] and all(kernels == needed[0] for kernels in needed)
