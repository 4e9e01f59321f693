"""How many kernels, launches, plans and compilations programs take. Counts, never times."""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence

import numpy as np
import pytest

import metafuse as mf
from metafuse.backend.contract import Loaded
from metafuse.config import flag_scope
from metafuse.graph.node import Node
from metafuse.kernel.ir import Kernel
from metafuse.plugins.registry import registry
from metafuse.runtime import executor
from metafuse.runtime.buffer import live_bytes
from metafuse.runtime.kernels import KernelTable, statistics

RANDOM = np.random.default_rng(0)


@pytest.fixture(scope="module", autouse=True)
def null_backend():
    """Counts are the same everywhere; the null backend compiles nothing, so that this takes no time."""
    mf.sync_all()
    with flag_scope(backend="null"):
        yield
        mf.sync_all()


def values(*shape: int) -> mf.Var:
    return mf.array(RANDOM.standard_normal(shape).astype(np.float32))


def launches(call: Callable[[], object]) -> list[str]:
    """Names of the kernels that ``call`` launches, as one program."""
    mf.sync_all()  # parameters that nobody has read yet are not the operator's
    before = statistics.programs
    kept = call()
    assert statistics.programs == before + 1, "more than one program"
    del kept
    return [step.kernel.name for step in executor.last_program[0].plan.steps]


def both_ways(operator: Callable[..., mf.Var], *parameters: mf.Var) -> tuple[list[str], list[str]]:
    """Launches of an operator, and of the gradients of its result for a given upstream gradient."""
    for p in parameters:
        p.start_grad()
    made: list[mf.Var] = []
    forward = launches(lambda: made.append(operator(*parameters).sync()))
    (result,) = made
    upstream = values(*result.shape)
    backward = launches(lambda: mf.sync(mf.grad(result * upstream, list(parameters))))
    return forward, backward


# -- fusion -------------------------------------------------------------------------------------------------------
def test_a_chain_of_twenty_operators_is_one_kernel() -> None:
    x = values(1000)

    def chain() -> mf.Var:
        y = x
        for _ in range(5):
            y = ((y * 0.5).exp() + x).tanh()
        return y.sync()

    assert len(launches(chain)) == 1


def test_softmax_takes_one_kernel_each_way() -> None:
    forward, backward = both_ways(lambda x: mf.nn.softmax(x, dim=1), values(64, 100))
    assert len(forward) == 1 and len(backward) == 1


def test_layer_norm_takes_at_most_two_kernels_each_way() -> None:
    layer = mf.nn.LayerNorm(100)

    def run(x: mf.Var, weight: mf.Var, bias: mf.Var) -> mf.Var:
        layer.weight, layer.bias = weight, bias
        return layer(x)

    forward, backward = both_ways(run, values(64, 100), values(100), values(100))
    assert len(forward) == 1 and len(backward) <= 2


def test_batch_norm_takes_at_most_two_kernels_each_way() -> None:
    layer = mf.nn.BatchNorm(8)
    layer.train()

    def run(x: mf.Var, weight: mf.Var, bias: mf.Var) -> mf.Var:
        layer.weight, layer.bias = weight, bias
        return layer(x)

    forward, backward = both_ways(run, values(4, 8, 10, 10), values(8), values(8))
    assert len(forward) <= 2 and len(backward) <= 2


def test_cross_entropy_takes_at_most_two_kernels_each_way() -> None:
    target = mf.array(RANDOM.integers(0, 100, 64).astype(np.int32))
    forward, backward = both_ways(lambda x: mf.nn.cross_entropy_loss(x, target), values(64, 100))
    assert len(forward) <= 2 and len(backward) <= 2


def test_the_update_of_sixty_tensors_is_one_launch() -> None:
    parameters = [values(*s).start_grad() for s in [(64, 3, 3, 3), (64,), (10, 64), (10,)] * 15]
    gradients = [values(*p.shape) for p in parameters]
    optimizer = mf.optim.SGD(parameters, 0.01, 0.9, 1e-4)

    def step() -> None:
        optimizer.param_groups[0]["grads"] = list(gradients)
        optimizer.step()

    step()
    assert len(launches(step)) == 1
    assert len(executor.last_program[0].plan.steps[0].calls) == 60


# -- caches -------------------------------------------------------------------------------------------------------
def network(batch: int, stride: int, padding: int) -> mf.Var:
    x, weight = values(batch, 3, 16, 16), values(4, 3, 3, 3).start_grad()
    y = mf.nn.conv2d(x, weight, stride=stride, padding=padding).relu()
    loss = mf.nn.pool(y, 2, "maximum").mean()
    (gradient,) = mf.grad(loss, [weight])
    mf.sync([loss, gradient])
    return gradient


def test_sizes_strides_and_paddings_compile_nothing_new() -> None:
    network(4, 2, 1)
    before = statistics.compilations + statistics.disk_hits
    network(7, 2, 1)  # batch size
    network(4, 3, 1)  # stride
    network(4, 2, 3)  # padding
    network(4, 2, 2)  # the windows of the pooling leave a rest of the image from here on
    network(5, 2, 2)
    network(4, 2, 1)
    assert statistics.compilations + statistics.disk_hits == before


def test_another_value_outside_compiles_nothing_new() -> None:
    x = values(2, 3, 5, 5).start_grad()

    def padded(value: float) -> None:
        y = mf.nn.pad(x, (1, 2), value=value) + x.reindex([2, 3, 5, 8], ["i0", "i1", "i2", "i3-1"], value)
        (gradient,) = mf.grad((y * y).sum(), [x])
        mf.sync([y, gradient])

    padded(1.5)
    labels = mf.arange(12).reshape(3, 4).sync()
    mf.nn.pad(labels, (1, 1), value=3).sync()
    before = statistics.compilations + statistics.disk_hits
    padded(2.5)
    padded(-7)
    mf.nn.pad(labels, (1, 1), value=-100).sync()
    assert statistics.compilations + statistics.disk_hits == before


def kernels_of(call: Callable[..., None], *arguments: object) -> set[Kernel]:
    """All kernels that programs need which are planned meanwhile."""
    found: set[Kernel] = set()
    obtain = KernelTable.obtain

    def noted(self: KernelTable, kernels: Sequence[Kernel]) -> list[Loaded]:
        found.update(kernels)
        return obtain(self, kernels)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(KernelTable, "obtain", noted)
        call(*arguments)
        mf.sync_all()
    return found


def pooled(op: str, size: int, kernel: int, stride: int, padding: int, last: bool) -> None:
    """Pooling and its gradient, of a row-major image or of one between convolutions, which lies channels last."""
    x, weight = values(2, 6, size, size).start_grad(), values(6, 6, 1, 1)
    y = mf.nn.pool(mf.nn.conv2d(x, weight) if last else x, kernel, op, padding, stride)
    y = mf.nn.conv2d(y, weight) if last else y
    mf.sync([y, *mf.grad((y * y).sum(), [x])])
    with mf.no_grad():
        mf.nn.pool(x, kernel, op, padding, stride).sync()


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("kernel, stride", [(2, 2), (3, 2), (3, 3)])
@pytest.mark.parametrize("op", ["maximum", "mean"])
def test_pooling_that_tiles_and_pooling_that_does_not_have_the_same_kernels(
    op: str, kernel: int, stride: int, last: bool
) -> None:
    sizes_and_paddings = [(12, 0), (13, 0), (12, 1), (13, 1)]  # tiles, a rest, windows that stick out, both
    several = [kernels_of(pooled, op, n, kernel, stride, p, last) for n, p in sizes_and_paddings]
    assert several[0] and all(found == several[0] for found in several)


def digits(batch: int, padding: int) -> None:
    """A step of training of a network of convolutions and poolings."""
    model = mf.nn.Sequential(
        mf.nn.Conv(1, 8, 3, padding=padding), mf.nn.ReLU(), mf.nn.Pool(2, 2),
        mf.nn.Conv(8, 16, 3, padding=padding), mf.nn.ReLU(), mf.nn.Pool(2, 2), mf.nn.Flatten(),
    )  # fmt: skip
    loss = (model(values(batch, 1, 28, 28)) ** 2).mean()
    mf.optim.SGD(model.parameters(), 0.01, 0.9).step(loss)
    mf.sync([loss, *model.parameters()])


def test_a_network_whose_poolings_begin_or_cease_to_tile_compiles_nothing_new() -> None:
    several = [kernels_of(digits, batch, p) for batch, p in ((4, 3), (4, 2), (5, 2), (5, 4))]
    assert several[0] and all(found == several[0] for found in several)


class Net(mf.nn.Module):
    def __init__(self) -> None:
        self.conv = mf.nn.Conv(1, 4, 3)
        self.norm = mf.nn.BatchNorm(4)
        self.fc = mf.nn.Linear(4 * 6 * 6, 10)

    def execute(self, x: mf.Var) -> mf.Var:
        return self.fc(mf.nn.relu(self.norm(self.conv(x))).reshape(x.shape[0], -1))


def trainer() -> Callable[[], None]:
    """A step of training on a small network."""
    net = Net()
    net.train()
    optimizer = mf.optim.SGD(net.parameters(), 0.01, 0.9, 1e-4)
    images = RANDOM.standard_normal((8, 1, 8, 8)).astype(np.float32)
    labels = RANDOM.integers(0, 10, 8).astype(np.int32)

    def step() -> None:
        optimizer.step(mf.nn.cross_entropy_loss(net(mf.array(images)), mf.array(labels)))

    return step


def test_the_second_step_of_training_plans_nothing() -> None:
    step = trainer()
    step()
    step()  # the first one made the optimizer's state
    plans, programs = statistics.plans, statistics.programs
    for _ in range(5):
        step()
    assert statistics.plans == plans
    assert statistics.programs == programs + 5


def live() -> tuple[int, int, int]:
    """Nodes, buffers and bytes that exist."""
    gc.collect()
    nodes = sum(type(x) is Node for x in gc.get_objects())
    return nodes, live_bytes.count, live_bytes.now


def test_training_holds_a_constant_number_of_nodes_and_buffers() -> None:
    step = trainer()
    for _ in range(3):
        step()
    before = live()
    for _ in range(300):
        step()
    assert live() == before


# -- long graphs --------------------------------------------------------------------------------------------------
@pytest.mark.slow
@pytest.mark.parametrize("name", ["null", "reference", "cpu"])
def test_a_chain_of_100000_nodes_runs(name: str) -> None:
    if name not in {status.descriptor.name for status in registry().backends() if status.usable}:
        pytest.skip(f"no backend {name} here")
    with flag_scope(backend=name):
        x = mf.array([0.0, 1.0])
        y = x
        for _ in range(100_000):
            y = y + 1.0
        result = y.numpy()
        if name != "null":
            assert result.tolist() == [100_000.0, 100_001.0]


def test_the_gradient_of_a_long_chain_runs() -> None:
    with flag_scope(backend="reference"):
        x = mf.array([1.0]).start_grad()
        y = x
        for _ in range(5_000):
            y = y * 1.0
        assert mf.grad(y, x).numpy().tolist() == [1.0]
