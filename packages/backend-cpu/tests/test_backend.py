"""The backend as a whole: generated kernels through the contract, the disk cache, and the plugin."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

from codegen_kit import Nest
from metafuse.backend.contract import CONTRACT_VERSION, Call, Step
from metafuse.backend.optional import SupportsCodeOp, SupportsHostView, SupportsPrograms
from metafuse.dtypes import float32
from metafuse.kernel.expr import call
from metafuse.runtime.compile_cache import CompileCache
from metafuse_backend_cpu import plugin
from runtime_kit import AXPY, axpy_kernel, wait

pytestmark = pytest.mark.compiler


def exponential(x: np.ndarray, out: np.ndarray) -> Nest:
    nest = Nest(x.shape)
    nest.store(out, (0, 1), call("exp", nest.read(x, 0, 1)))
    return nest


def row_sums(x: np.ndarray, out: np.ndarray) -> Nest:
    nest = Nest(x.shape[:1], x.shape[1:])
    total = nest.reduce("add", call("exp", nest.read(x, 0, 1)))
    nest.store(out, (0,), total, level="outer")
    return nest


def test_generated_kernels_run_as_one_program(backend, table):
    x = np.random.default_rng(0).standard_normal((300, 200)).astype(np.float32)
    powers, sums = np.empty_like(x), np.empty(300, np.float32)
    nests = {"powers_kernel": exponential(x, powers), "sums_kernel": row_sums(x, sums)}
    kernels = {symbol: nest.kernel() for symbol, nest in nests.items()}
    binary = backend.compile([backend.emit(kernel, symbol) for symbol, kernel in kernels.items()])
    loaded = backend.load(binary, kernels)
    slots = {id(array): table.add(array) for array in (x, powers, sums)}
    steps = []
    for symbol, nest in nests.items():
        places = tuple(slots[id(array)] for array in nest.arrays)
        steps.append(Step(kernels[symbol], loaded[symbol], (Call(places, tuple(nest.sizes), (), x.size),)))
    backend.run(backend.prepare(steps, ""), table.handles, [])
    expected = np.exp(x.astype(np.float64))
    np.testing.assert_allclose(table.get(slots[id(powers)]), expected, rtol=2e-6)
    np.testing.assert_allclose(table.get(slots[id(sums)]), expected.sum(1), rtol=2e-6)


def test_results_do_not_depend_on_the_number_of_threads(backend, table, threads):
    x = np.random.default_rng(1).standard_normal((501, 403)).astype(np.float32)
    nest = row_sums(x, np.empty(501, np.float32))
    kernel = nest.kernel()
    loaded = backend.load(backend.compile([backend.emit(kernel, "sums")]), {"sums": kernel})["sums"]
    slots = [table.add(array) for array in nest.arrays]
    step = Step(kernel, loaded, (Call(tuple(slots), tuple(nest.sizes), (), x.size),))
    results = []
    for number in (1, 2, 3):
        threads(number)
        backend.launch(step, table.handles, [])
        results.append(table.get(slots[1]).tobytes())
    assert results[0] == results[1] == results[2]


def test_what_it_is(backend):
    assert isinstance(backend, SupportsPrograms)
    assert isinstance(backend, SupportsHostView)
    assert isinstance(backend, SupportsCodeOp)
    assert (backend.name, backend.code_language) == ("cpu", "cpu")
    machine = backend.capabilities.machine
    assert machine.cores >= 1
    assert machine.vector_bytes in (16, 32, 64)
    assert 4096 <= machine.l1_bytes <= machine.l2_bytes


def test_the_plugin():
    (descriptor,) = plugin.metafuse_backends()
    assert (descriptor.name, descriptor.priority, descriptor.contract_version) == (
        "cpu",
        50,
        CONTRACT_VERSION,
    )
    assert descriptor.probe() is None
    assert descriptor.create().name == "cpu"


def test_number_of_threads_of_the_environment():
    script = "from metafuse_backend_cpu.backend import CpuBackend; print(CpuBackend().threads)"
    environment = {**os.environ, "METAFUSE_NUM_THREADS": "3"}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout == "3\n"


TEXTS = """
import metafuse as mf
from metafuse import nn
mf.set_global_seed(0)
for layer in (nn.Pool(3, 2, 1), nn.ReflectionPad2d(2), nn.Conv(3, 3, 3, 2, 1), nn.Softmax(1)):
    x = mf.ones(4, 3, 9, 9).sync()
    y = layer(x)
    loss = (y * y).sum()
    print(mf.explain([y, loss, mf.grad(loss, x)]))
"""


def test_every_process_writes_the_same_text():
    """Compiled code is found on disk by the text, so nothing in it may follow the order of a set."""
    texts = set()
    for seed in "0123":
        done = subprocess.run(
            [sys.executable, "-c", TEXTS],
            env={**os.environ, "PYTHONHASHSEED": seed, "METAFUSE_BACKEND": "cpu"},
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        texts.add(done.stdout)
    assert len(texts) == 1


WARM = """
import sys, time
from pathlib import Path
from metafuse.runtime.compile_cache import CompileCache
from metafuse_backend_cpu.backend import CpuBackend
from runtime_kit import AXPY, axpy_kernel
backend = CpuBackend()
start = time.perf_counter()
binary = CompileCache().lookup(backend.fingerprint(), AXPY.replace("SYMBOL", "warm"))
assert binary is not None
backend.load(binary, {"warm": axpy_kernel()})
print(time.perf_counter() - start)
"""


@pytest.mark.serial
def test_a_warm_process_loads_a_kernel_within_5_ms(backend, tmp_path):
    from metafuse.config import flags

    source = AXPY.replace("SYMBOL", "warm")
    CompileCache().store(backend.fingerprint(), [source], backend.compile([source]))
    environment = {
        **os.environ,
        "METAFUSE_CACHE_DIR": flags.cache_dir,
        "PYTHONPATH": os.pathsep.join(
            [str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])]
        ),
    }
    seconds = []
    for _ in range(4):
        done = subprocess.run(
            [sys.executable, "-c", WARM], env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        seconds.append(float(done.stdout))
    assert min(seconds) < 0.005, seconds


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_snippets_with_openmp_after_fork(backend, table):
    source = textwrap.dedent(
        """
        double sum = 0;
        #pragma omp parallel for reduction(+ : sum)
        for (int i = 0; i < in0_shape0; ++i) sum += @in0(i);
        @out(0) = sum;
        """
    )
    text = backend.emit_code("sum", "", source, [(float32, 1)], [(float32, 1)])
    loaded = backend.load(backend.compile([text]), {"sum": None})["sum"]
    x, out = table.add(np.ones(1000, np.float32)), table.add(np.zeros(1, np.float32))
    arguments = ([(table.handles[x], (1000,))], [(table.handles[out], (1,))], {})
    backend.launch_code(loaded, *arguments)
    assert table.get(out)[0] == 1000
    child = os.fork()
    if child == 0:
        try:
            backend.host_view(table.handles[out], 4)[:] = 0
            backend.launch_code(loaded, *arguments)
            os._exit(0 if table.get(out)[0] == 1000 else 1)
        finally:
            os._exit(2)
    assert wait(child, 20) == 0


def test_a_keyboard_interrupt_arrives_after_the_program(backend, axpy, table):
    script = textwrap.dedent(
        """
        import os, signal, sys, threading, time
        import numpy as np
        from metafuse.backend.contract import Call, Step
        from metafuse_backend_cpu.backend import CpuBackend
        from runtime_kit import AXPY, Table, axpy_kernel, step
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background starts with it ignored
        backend = CpuBackend()
        loaded = backend.load(backend.compile([AXPY.replace("SYMBOL", "endless")]), {"endless": axpy_kernel()})["endless"]
        table = Table(backend)
        x = table.add(np.zeros(1 << 20, np.float32))
        program = backend.prepare([step((axpy_kernel(), loaded), (x, x, 1 << 20))] * 500, "fi")
        threading.Timer(0.02, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
        try:
            for _ in range(1000):
                backend.run(program, table.handles, [1.0, 1])
            print("never interrupted")
        except KeyboardInterrupt:
            value = table.get(x)
            print(float(value[0]) % 500 == 0 and (value == value[0]).all())
        """
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False
    )
    assert done.stdout == "True\n", done.stderr


@pytest.mark.serial
def test_kernels_leave_the_interpreter_lock(backend, axpy, table):
    """Another Python thread goes on while a program runs."""
    import threading
    import time

    kernel, loaded = axpy
    slot = table.add(np.zeros(1 << 20, np.float32))
    program = backend.prepare(
        [Step(kernel, loaded, (Call((slot, slot), (1 << 20,), (0, 1), 1 << 20),))] * 1000, "fi"
    )
    ticks: list[float] = []
    done = threading.Event()

    def tick() -> None:
        while not done.is_set():
            ticks.append(time.perf_counter())
            time.sleep(0.001)

    watcher = threading.Thread(target=tick)
    watcher.start()
    start = time.perf_counter()
    backend.run(program, table.handles, [1.0, 0])
    end = time.perf_counter()
    done.set()
    watcher.join()
    assert sum(start < moment < end for moment in ticks) >= 3
    assert axpy_kernel() == kernel
