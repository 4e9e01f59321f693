"""Library calls among kernels: programs, constant steps, numbers of threads, several callers at once, forks."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from dataclasses import replace

import numpy as np
import pytest

from library_kit import Case, cases, convolution, laid_out, matmul, reach, strided, with_posts
from metafuse.backend.contract import Call, Step, host_bytes
from metafuse.backend.library import LibraryCall, PostOp
from metafuse.errors import ArgumentError, BackendError
from metafuse_backend_cpu import _native
from metafuse_backend_cpu.library import loading
from runtime_kit import wait

pytestmark = pytest.mark.skipif(loading.onednn() is None, reason=str(loading.absence()))

ONES = ((1, 1), (1, 1))
CONVOLUTION = convolution("convolution", (4, 32, 28, 28), (32, 32, 3, 3), padding=ONES, constant=True)
#: its threads wait for one another inside
WEIGHT = convolution("convolution_weight", (4, 32, 28, 28), (32, 32, 3, 3), padding=ONES)
PRODUCT = matmul(laid_out((200, 300)), laid_out((300, 100)), constant=True)


@pytest.fixture
def case(backend):
    yield from cases(backend)


def axpy_step(axpy, source: int, target: int, count: int) -> Step:
    kernel, loaded = axpy
    return Step(kernel, loaded, (Call((source, target), (count,), (0, 1), count),))


def test_kernels_and_library_calls_run_in_order(backend, axpy, case, threads):
    threads(2)
    made = case(CONVOLUTION)
    image, result = reach(CONVOLUTION.first), reach(CONVOLUTION.result)
    handles = [*made.handles, backend.alloc(image * 4), backend.alloc(result * 4)]
    steps = [
        axpy_step(axpy, 0, len(handles) - 2, image),
        replace(made.call, slots=(len(handles) - 2, 1, 2)),
        axpy_step(axpy, 2, len(handles) - 1, result),
    ]
    program = backend.prepare(steps, "fi")
    assert program.steps == 3
    for factor in (1.0, -2.0):
        backend.run(program, handles, (factor, 1))
        got = np.empty(result, np.float32)
        backend.copy_out(host_bytes(got), handles[-1])
        former, made.buffers[0] = made.buffers[0], made.buffers[0] * factor + 1
        wanted = made.expected() * factor + 1
        made.buffers[0] = former
        assert np.abs(strided(got, CONVOLUTION.result) - wanted).max() < 1e-3
    for handle in handles[-2:]:
        backend.free(handle)


def test_constant_steps_run_only_where_something_changed(backend, axpy, table, threads):
    threads(2)
    x = np.arange(100_000, dtype=np.float32)
    slots = [table.add(x), table.add(np.zeros_like(x)), table.add(np.zeros_like(x))]
    steps = [axpy_step(axpy, slots[0], slots[1], x.size), axpy_step(axpy, slots[1], slots[2], x.size)]
    program = backend.prepare(steps, "fi", constant={0})
    backend.run(program, table.handles, (2.0, 0))
    assert np.array_equal(table.get(slots[2]), x * 4)
    backend.run(program, table.handles, (3.0, 0), False)  # the first step keeps what it made by 2
    assert np.array_equal(table.get(slots[2]), x * 6)
    backend.run(program, table.handles, (3.0, 0), True)
    assert np.array_equal(table.get(slots[2]), x * 9)


def test_a_constant_library_call_runs_only_where_something_changed(backend, case):
    made = case(PRODUCT)
    program = backend.prepare([made.call], "", constant=[0])
    backend.run(program, made.handles, (), True)
    first = made.result().copy()
    made.buffers[0] *= 2
    made.upload(0)
    backend.run(program, made.handles, (), False)
    assert np.array_equal(made.result(), first)
    backend.run(program, made.handles, (), True)
    assert np.allclose(made.result(), first * 2)


@pytest.mark.parametrize("op", [CONVOLUTION, WEIGHT, PRODUCT], ids=lambda op: op.kind)
def test_calls_follow_the_number_of_threads(backend, case, threads, op):
    threads(2)
    made = case(op)
    made.check()
    for number in (1, 3, 2, 5, 1):
        threads(number)
        made.check(changed=False)  # another number of threads may want another packed form
        made.check(changed=False)


@pytest.mark.parametrize("op", [CONVOLUTION, WEIGHT, PRODUCT], ids=lambda op: op.kind)
def test_results_are_the_same_every_time(case, threads, op):
    threads(2)
    made = case(op)
    first = made.run().copy()
    for _ in range(50):
        assert np.array_equal(made.run(changed=False), first)


def together(count: int, body) -> None:
    """Runs body(number) on so many threads; raises what one of them raised."""
    failures: list[BaseException] = []

    def guarded(number: int) -> None:
        try:
            body(number)
        except BaseException as error:
            failures.append(error)

    runners = [threading.Thread(target=guarded, args=(number,)) for number in range(count)]
    for runner in runners:
        runner.start()
    for runner in runners:
        runner.join()
    if failures:
        raise failures[0]


def test_several_callers_at_once(case, threads):
    threads(2)
    cases = [case(op, seed) for seed, op in enumerate((CONVOLUTION, WEIGHT, PRODUCT, WEIGHT))]
    wanted = [made.run().copy() for made in cases]

    def body(number: int) -> None:
        for _ in range(40):
            assert np.array_equal(cases[number].run(changed=False), wanted[number])

    together(len(cases), body)


def test_one_program_by_several_callers_at_once(backend, case, threads):
    threads(2)
    one = case(CONVOLUTION)
    program = backend.prepare([one.call], "")
    wanted = one.run().copy()
    tables = []
    for _ in range(3):
        other = Case(backend, CONVOLUTION)
        tables.append(other)

    def body(number: int) -> None:
        for _ in range(20):
            backend.run(program, tables[number].handles, (), False)
            assert np.array_equal(tables[number].result(), wanted)

    try:
        together(3, body)
    finally:
        for other in tables:
            other.free()


def test_threads_that_change_while_others_compute(backend, case, threads):
    made = case(WEIGHT)
    wanted = made.expected()
    stop = threading.Event()

    def change() -> None:
        number = 0
        while not stop.wait(0.0002):
            number += 1
            threads(1 + number % 4)

    changer = threading.Thread(target=change)
    changer.start()
    try:
        for _ in range(100):
            assert np.abs(made.run() - wanted).max() < 1e-2
    finally:
        stop.set()
        changer.join()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.parametrize("op", [CONVOLUTION, WEIGHT], ids=lambda op: op.kind)
def test_a_forked_process_computes_alone(backend, case, threads, op):
    threads(2)
    made = case(op)
    made.check()
    child = os.fork()
    if child == 0:
        try:
            made.check(changed=False)
            os._exit(0 if backend.threads == 1 else 3)
        except BaseException:
            os._exit(2)
    assert wait(child, 30) == 0
    made.check(changed=False)


def test_slots_and_handles_are_checked(backend, case):
    made = case(PRODUCT)
    with pytest.raises(ArgumentError, match="takes 3 buffers"):
        backend.prepare([replace(made.call, slots=(0, 1))], "")
    with pytest.raises(ArgumentError, match="negative slot"):
        backend.prepare([replace(made.call, slots=(0, -1, 2))], "")
    program = backend.prepare([made.call], "")
    with pytest.raises(ArgumentError, match="handles"):
        backend.run(program, made.handles[:2], ())
    with pytest.raises(BackendError):
        backend.run(program, [*made.handles[:2], 64, *made.handles[3:]], ())
    other = LibraryCall(PRODUCT, replace(made.plan, loaded=object()), made.call.slots, made.call.scratch)
    with pytest.raises(ValueError, match="PyCapsule"):
        backend.prepare([other], "")


def test_a_call_without_its_scratch_memory_finds_its_own(backend, case):
    op = with_posts(replace(CONVOLUTION, constant=False), (PostOp("relu"), None))
    made = case(op)
    assert made.plan.scratch_bytes > 0
    backend.run(backend.prepare([replace(made.call, scratch=-1)], ""), made.handles, ())
    assert np.abs(made.result() - made.expected()).max() < 1e-3


def test_packed_memory_belongs_to_the_pool_and_is_given_back(backend, case):
    made = case(PRODUCT)
    before = _native.memory_stats()["bytes_in_use"]
    made.run()
    assert _native.memory_stats()["bytes_in_use"] >= before + made.plan.kept_bytes
    made.plan = None
    assert _native.memory_stats()["bytes_in_use"] == before


ALONE = """
import numpy as np
from library_kit import Case
from test_library_programs import CONVOLUTION, WEIGHT
from metafuse_backend_cpu.backend import CpuBackend
from metafuse_backend_cpu.library import loading
backend = CpuBackend()
for number in (2, 1, 3):
    backend.set_threads(number)
    for op in (CONVOLUTION, WEIGHT):
        made = Case(backend, op)
        made.check()
        made.free()
print(loading.describe())
"""


def alone(text: str, **environment: str) -> str:
    """What a fresh interpreter prints."""
    folder = os.path.dirname(__file__)
    done = subprocess.run(
        [sys.executable, "-c", text],
        env={
            **os.environ,
            **environment,
            "PYTHONPATH": os.pathsep.join([folder, os.environ.get("PYTHONPATH", "")]),
        },
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_its_threads_are_ours():
    assert "on the same threads" in alone(ALONE)
    counting = ALONE + "import os; print('threads', len(os.listdir('/proc/self/task')))"
    assert int(alone(counting, OPENBLAS_NUM_THREADS="1").split()[-1]) == 3  # and no more than were asked for


def test_openmp_serves_where_it_is_asked_for():
    assert "on OpenMP threads" in alone(ALONE, METAFUSE_ONEDNN="openmp")


def test_without_onednn_everything_is_refused():
    text = """
from test_library_programs import CONVOLUTION
from metafuse_backend_cpu.backend import CpuBackend
from metafuse_backend_cpu.library import loading
backend = CpuBackend()
assert not backend.takes(CONVOLUTION)
assert backend.library_plan(CONVOLUTION) is None
print(loading.describe())
"""
    assert "switched off" in alone(text, METAFUSE_ONEDNN="0")


def test_nothing_is_loaded_before_it_is_asked_for():
    text = """
import sys
from metafuse_backend_cpu.backend import CpuBackend
CpuBackend()
assert "metafuse_backend_cpu._onednn" not in sys.modules
assert "libdnnl" not in open("/proc/self/maps").read()
print("clean")
"""
    assert "clean" in alone(text)
