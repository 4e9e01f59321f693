"""Defects of the reference framework that its users met: each is right here.

Comparisons with PyTorch stand in ``tests/parity``.
"""

from __future__ import annotations

import contextlib
import inspect
import itertools
import os
import signal
import subprocess
import sys

import numpy as np
import pytest

import metafuse as mf
from metafuse import nn
from metafuse.config import flag_scope
from metafuse.errors import ArgumentError, MetafuseError
from metafuse.plugins.registry import registry
from metafuse.runtime.kernels import statistics

BACKENDS = [
    s.descriptor.name for s in registry().backends() if s.usable and s.descriptor.name in ("cpu", "reference")
]


def run(code: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **environment}, capture_output=True, text=True, check=False,
        timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


# -- numbers ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("backend", BACKENDS)
def test_the_mean_of_many_ones_is_one(backend):
    with flag_scope(backend=backend):
        x = mf.ones(1, 3, 321, 481)
        assert x.mean().item() == 1.0
        assert x.sum().item() == 463_203.0
        assert mf.array(np.ones(463_203, np.float16)).mean().item() == 1.0


@pytest.mark.parametrize("backend", BACKENDS)
def test_sums_of_ten_million_numbers_are_accurate(backend):
    values = np.random.default_rng(3).uniform(0, 1, 10_000_000).astype(np.float32)
    exact = values.astype(np.float64).sum()
    with flag_scope(backend=backend):
        x = mf.array(values)
        assert abs(x.sum().item() - exact) <= 1e-6 * exact
        assert abs(x.mean().item() - exact / len(values)) <= 1e-6


def test_the_gradient_of_a_remainder_has_the_upstream_gradient_on_both_sides():
    y, z = mf.array([7.5]), mf.array([3.0])
    by_y, by_z = mf.grad((y % z) * 3, [y, z])
    assert (by_y.item(), by_z.item()) == (3.0, -6.0)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_random_numbers_have_the_dtype_that_was_asked_for(dtype):
    made = [
        mf.random([5], dtype), mf.random([5], dtype, "normal"), mf.rand(5, dtype=dtype), mf.randn(5, dtype=dtype),
        mf.uniform(0.0, 1.0, [5], dtype), mf.normal(0.0, 1.0, [5], dtype), mf.init.gauss([5], dtype),
        mf.init.uniform([5], dtype), mf.rand_like(mf.zeros(5, dtype=dtype)),
    ]  # fmt: skip
    for x in made:
        assert x.dtype == dtype
        assert x.numpy().shape == (5,)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "uint32", "uint64"])
def test_unsigned_integers_stay_unsigned(dtype):
    top = int(mf.iinfo(dtype).max)
    x = mf.array(np.array([top - 55, 1], dtype), dtype)
    total = x + mf.array(np.array([50, 2], dtype), dtype)
    assert total.dtype == dtype
    assert total.tolist() == [top - 5, 3]


# -- layers ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("mode", ["nearest", "bilinear"])
@pytest.mark.parametrize("align_corners", [False, True])
def test_upsampling_takes_a_factor_per_dimension(mode, align_corners):
    x = mf.array(np.arange(12.0).reshape(1, 1, 3, 4))
    y = nn.Upsample(scale_factor=(2, 3), mode=mode, align_corners=align_corners)(x)
    assert y.shape == (1, 1, 6, 12)
    expected = nn.interpolate(x, size=(6, 12), mode=mode, align_corners=align_corners)
    np.testing.assert_allclose(y.numpy(), expected.numpy(), rtol=1e-6)
    if mode == "bilinear":  # the corners are met only where they are asked for
        other = nn.Upsample(scale_factor=(2, 3), mode=mode, align_corners=not align_corners)(x)
        assert abs(other.numpy() - y.numpy()).max() > 0.01


@pytest.mark.parametrize("dim", [0, 1, 2, 3, -1, -2, None])
@pytest.mark.parametrize("keepdim", [False, True])
def test_the_median_is_right_along_every_dimension(dim, keepdim):
    x = np.random.default_rng(1).permutation(2 * 3 * 5 * 4).reshape(2, 3, 5, 4).astype(np.float32)
    if dim is None:
        assert mf.median(mf.array(x)).item() == np.sort(x.ravel())[(x.size - 1) // 2]
        return
    expected = np.take(np.sort(x, dim), [(x.shape[dim] - 1) // 2], dim)
    found = mf.median(mf.array(x), dim, keepdim).numpy()
    np.testing.assert_array_equal(found, expected if keepdim else expected.squeeze(dim))


def test_parameters_of_another_shape_are_refused_and_change_nothing():
    layer = nn.Linear(3, 2)
    before = layer.state_dict("numpy")
    wrong = {"weight": np.zeros((2, 4), np.float32), "bias": np.ones(2, np.float32)}
    for load in (layer.load_parameters, layer.load_state_dict):
        with pytest.raises(ArgumentError, match=r"weight.*\(2, 3\).*\(2, 4\)|weight.*\(2, 4\).*\(2, 3\)"):
            load(wrong)
    for name, value in layer.state_dict("numpy").items():
        np.testing.assert_array_equal(value, before[name])


WINDOWS = [
    (nn.Conv1d, (2, 3), 3), (nn.Conv, (2, 3), 4), (nn.Conv3d, (2, 3), 5), (nn.ConvTranspose, (2, 3), 4),
    (nn.Pool, (), 4), (nn.MaxPool2d, (), 4), (nn.AvgPool2d, (), 4), (nn.Pool3d, (), 5),
]  # fmt: skip
ILLEGAL = [("kernel_size", 0), ("kernel_size", -1), ("stride", -1), ("stride", 0), ("padding", -1), ("kernel_size", 2.5),
           ("kernel_size", "3"), ("padding", (1, -1)), ("dilation", 0), ("dilation", -2)]  # fmt: skip


@pytest.mark.parametrize(
    ("layer", "channels", "ndim"), WINDOWS, ids=lambda value: getattr(value, "__name__", "")
)
def test_illegal_windows_never_reach_a_compiler(layer, channels, ndim):
    known = set(inspect.signature(layer).parameters)
    compiled = statistics.compilations
    for (name, value), extent in itertools.product(ILLEGAL, (1, 8)):
        if name in known:
            options = {"kernel_size": 3, name: value}
            with pytest.raises(MetafuseError, match=rf"\[\w+\] .*{name}"):
                layer(*channels, **options)(mf.ones([1, 2] + [extent] * (ndim - 2)))
    assert statistics.compilations == compiled


# -- indexing --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("place", [3, -3, 10**6, -(10**6)])
def test_an_extra_that_is_read_outside_counts_as_overflow(backend, place):
    x, table = mf.array([1.0, 2.0, 3.0]), mf.array([2, 1, 0])
    with flag_scope(backend=backend):
        found = x.reindex([3], [f"@e0(i0+{place})"], -1.0, [], [table])
        np.testing.assert_array_equal(found.numpy(), [-1] * 3)
        partly = x.reindex([3], ["@e0(i0-1)"], -1.0, [], [table])
        np.testing.assert_array_equal(partly.numpy(), [-1, 3, 2])
        condition = x.reindex([3], ["i0"], -1.0, ["@e0(i0-1) > 1"], [table])
        np.testing.assert_array_equal(condition.numpy()[1:], [-1, 3])
        summed = mf.ones(3).reindex_reduce("add", [3], ["@e0(i0-1)"], [], [table])
        np.testing.assert_array_equal(summed.numpy(), [0, 1, 1])


def test_assignment_through_a_chain_of_indices_changes_the_array():
    x, y = mf.zeros(3, 4), np.zeros((3, 4), np.float32)
    for a in (x, y):
        a[1][2] = 5
        a[0][1:3] += 2
        a[2][...][0] = 7
    np.testing.assert_array_equal(x.numpy(), y)


# -- data ------------------------------------------------------------------------------------------------------------
class Squares(mf.data.Dataset):
    def __init__(self, count, **options):
        super().__init__(**options)
        self.set_attrs(total_len=count)

    def __getitem__(self, k):
        return np.float32(k * k)


def test_an_incomplete_batch_is_kept_unless_told_otherwise_as_the_documentation_says():
    assert [len(batch) for batch in Squares(10, batch_size=4)] == [4, 4, 2]
    assert [len(batch) for batch in Squares(10, batch_size=4, drop_last=True)] == [4, 4]
    text = inspect.getdoc(mf.data.Dataset)
    assert "drop_last" in text
    default = inspect.signature(mf.data.Dataset).parameters["drop_last"].default
    assert default is False
    assert "drop_last: True" not in text.replace("default True", "True")


def test_the_length_counts_batches_and_total_len_counts_items():
    data = Squares(10, batch_size=4)
    assert (len(data), data.total_len, data.item_count()) == (3, 10, 10)
    assert sum(len(batch) for batch in data) == 10
    data.set_attrs(batch_size=10)
    assert (len(data), data.total_len) == (1, 10)

    class Unfinished(mf.data.Dataset):
        def __getitem__(self, k):
            return k

    for question in (len, lambda d: d.item_count(), lambda d: next(iter(d))):
        with pytest.raises(ArgumentError, match="total_len"):
            question(Unfinished())


# -- several processes -----------------------------------------------------------------------------------------------
def test_integers_of_64_bits_are_summed_exactly_over_ranks():
    def rank_main(rank):
        x = mf.array(np.array([2**53 + 1, -1]), "int64")
        return x.mpi_all_reduce().tolist()

    assert mf.dist.loopback.run(3, rank_main) == [[3 * 2**53 + 3, -3]] * 3


@pytest.mark.parametrize("root", [0, 1, 2])
def test_the_root_of_a_broadcast_is_respected(root):
    def rank_main(rank):
        x = mf.array([float(rank)])
        mf.mpi.var_broadcast(x, root)
        whole = np.array([rank], np.int64)
        mf.mpi.broadcast(whole, root)
        return x.item(), int(whole[0]), mf.array([float(rank)]).mpi_broadcast(root).item()

    assert mf.dist.loopback.run(3, rank_main) == [(root, root, root)] * 3


def test_many_ranks_of_one_host_have_places_of_their_own():
    assert mf.dist.loopback.run(40, lambda rank: mf.dist.local_rank()) == list(range(40))


# -- errors and processes --------------------------------------------------------------------------------------------
@pytest.mark.parametrize("backend", BACKENDS)
def test_an_error_at_run_time_names_the_line_that_recorded_it_on_every_python(backend):
    with flag_scope(backend=backend):
        y = mf.linalg.inv(mf.zeros(2, 2)) * 2
        line = inspect.currentframe().f_lineno - 1
        with pytest.raises(MetafuseError, match=f"test_reference_defects.py:{line}"):
            y.numpy()


def test_a_gradient_that_is_cut_off_is_reported_by_name_and_line():
    weight = mf.ones(2).name("layer.weight")
    cut = (weight * 2).detach()
    with pytest.warns(UserWarning, match=r"layer\.weight.*test_reference_defects\.py"):
        mf.grad(cut.sum() + mf.ones(1), weight)


def test_import_takes_no_lock_needs_no_network_and_leaves_signals_alone(tmp_path):
    code = """
import signal, socket, sys
numbers = [getattr(signal, n) for n in ("SIGCHLD", "SIGINT", "SIGSEGV", "SIGTERM") if hasattr(signal, n)]
before = [signal.getsignal(n) for n in numbers]
def audit(event, arguments):
    if event.startswith(("socket.", "fcntl.", "subprocess.")):
        raise RuntimeError(event)
sys.addaudithook(audit)
import metafuse as mf
import metafuse.nn
assert before == [signal.getsignal(n) for n in numbers]
mf.flags.backend = "reference"
assert (mf.ones(3) * 2).sum().item() == 6
assert before == [signal.getsignal(n) for n in numbers]
"""
    run(code, METAFUSE_CACHE_DIR=str(tmp_path))


@pytest.mark.skipif(not hasattr(signal, "SIGCHLD"), reason="there are no child signals")
def test_a_child_that_dies_does_not_take_its_parent_along():
    code = """
import os, subprocess, sys
import metafuse as mf
mf.flags.backend = "reference"
x = mf.ones(3).sync()
assert subprocess.run([sys.executable, "-c", "import os; os.abort()"], stderr=subprocess.DEVNULL).returncode < 0
assert subprocess.run([sys.executable, "-c", "raise SystemExit(3)"]).returncode == 3
print((x * 2).sum().item())
"""
    assert run(code).strip() == "6.0"


@pytest.mark.compiler
def test_compiling_in_one_process_does_not_wait_for_another(tmp_path):
    """A process that holds a lock on every file of the cache does not stop another one with other kernels."""
    fcntl = pytest.importorskip("fcntl")
    pytest.importorskip("metafuse_backend_cpu")

    def compute(operator: str) -> str:
        code = f"import metafuse as mf; print((mf.ones(3) * 2).{operator}().sum().item() > 0)"
        return run(code, METAFUSE_CACHE_DIR=str(tmp_path), METAFUSE_BACKEND="cpu").strip()

    assert compute("exp") == "True"
    with contextlib.ExitStack() as stack:
        files = [stack.enter_context(path.open("r+b")) for path in tmp_path.rglob("*") if path.is_file()]
        assert files
        for file in files:
            fcntl.flock(file, fcntl.LOCK_EX)
            fcntl.lockf(file, fcntl.LOCK_EX)
        assert compute("log1p") == "True"
