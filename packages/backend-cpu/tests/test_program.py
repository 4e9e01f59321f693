"""Launching: single steps, whole programs, division of work over threads, forks."""

from __future__ import annotations

import os
import threading
from itertools import pairwise

import numpy as np
import pytest

from metafuse.backend.contract import Call, Step
from metafuse.dtypes import int64, uint64
from metafuse.errors import ArgumentError, BackendError
from metafuse.kernel.ir import BufferParam, Kernel
from metafuse_backend_cpu import _native
from runtime_kit import AXPY, Table, axpy_kernel, step, wait

SMALL, LARGE = 1000, 300_001
RNG = np.random.default_rng(7)


def values(count: int) -> np.ndarray:
    """Small whole numbers: results are exact, whatever is fused."""
    return RNG.integers(-100, 100, count).astype(np.float32)


@pytest.mark.parametrize("count", [1, 2, 3, SMALL, LARGE])
@pytest.mark.parametrize("number", [1, 2, 3, 7])
def test_a_program_runs_its_steps_in_order(backend, axpy, table, threads, count, number):
    threads(number)
    x = values(count)
    slots = [table.add(x), *(table.add(np.zeros_like(x)) for _ in range(3))]
    steps = [step(axpy, (slots[k], slots[k + 1], count)) for k in range(3)]
    program = backend.prepare(steps, "fi")
    backend.run(program, table.handles, [2.0, 3])
    assert np.array_equal(table.get(slots[3]), ((x * 2 + 3) * 2 + 3) * 2 + 3)
    backend.run(program, table.handles, [0.5, -1])
    assert np.array_equal(table.get(slots[1]), x * np.float32(0.5) - 1)


def test_many_calls_of_different_sizes_are_one_step(backend, axpy, table, threads):
    threads(3)
    counts = [1, 100_000, 5, 70_001, 3, 2, 1, 250_000, 17]
    inputs = [values(count) for count in counts]
    calls = [(table.add(x), table.add(np.zeros_like(x)), x.size) for x in inputs]
    program = backend.prepare([step(axpy, *calls)], "fi")
    assert (program.steps, program.parallel_steps) == (1, 1)
    backend.run(program, table.handles, (3.0, 1))
    for x, (_, out, _) in zip(inputs, calls, strict=True):
        assert np.array_equal(table.get(out), x * 3 + 1)


RECORD = """
extern "C" {
union Scalar { double f; long long i; };
void SYMBOL(void** buffers, const long long* sizes, const Scalar*, long long begin, long long end) {
    long long* out = (long long*)buffers[0];
    for (long long k = begin; k < end; ++k) { out[2 * k] = begin; out[2 * k + 1] = end; }
}
long long SYMBOL_units(const long long* sizes) { return sizes[0]; }
extern const long long SYMBOL_grain;
const long long SYMBOL_grain = GRAIN;
}
"""


@pytest.mark.parametrize("grain", [1, 8, 100, 10_000])
@pytest.mark.parametrize("units", [1, 7, 100, 1001])
@pytest.mark.parametrize("number", [1, 2, 5])
@pytest.mark.parametrize(("elements", "parts"), [(1_000_000, 4), (10_000_000, 8)])
def test_chunks_cover_all_units_once_and_respect_the_grain(
    backend, table, threads, grain, units, number, elements, parts
):
    threads(number)
    kernel = Kernel(1, 0, (BufferParam(int64, True, False),), 1, (), ())
    name = f"record_{grain}"
    binary = backend.compile([RECORD.replace("SYMBOL", name).replace("GRAIN", str(grain))])
    loaded = backend.load(binary, {name: kernel})[name]
    slot = table.add(np.full((units, 2), -1, np.int64))
    backend.launch(Step(kernel, loaded, (Call((slot,), (units,), (), elements),)), table.handles, [])
    ranges = sorted({(int(begin), int(end)) for begin, end in table.get(slot)})
    assert ranges[0][0] == 0
    assert ranges[-1][1] == units
    assert all(left[1] == right[0] for left, right in pairwise(ranges))
    assert all(begin % grain == 0 for begin, _ in ranges)
    assert len(ranges) <= parts * number
    assert (len(ranges) > 1) == (number > 1 and units >= 2 * grain) or units < 2 * grain


def test_small_steps_stay_on_the_calling_thread(backend, axpy, table, threads):
    threads(4)
    x = values(SMALL)
    slots = table.add(x), table.add(x)
    program = backend.prepare([step(axpy, (*slots, SMALL))] * 5, "fi")
    assert program.parallel_steps == 0


def test_a_prepared_program_follows_the_number_of_threads(backend, axpy, table, threads):
    x = values(LARGE)
    slots = table.add(x), table.add(np.zeros_like(x))
    program = backend.prepare([step(axpy, (*slots, LARGE))], "fi")
    for number in (1, 2, 1):
        threads(number)
        assert program.parallel_steps == (number > 1)
        backend.run(program, table.handles, [2.0, 0])
        assert np.array_equal(table.get(slots[1]), x * 2)
    with pytest.raises(ArgumentError):
        backend.set_threads(0)


def test_launch_does_what_run_does(backend, axpy, table):
    x = values(LARGE)
    slots = table.add(x), table.add(np.zeros_like(x))
    backend.launch(
        step(axpy, (*slots, LARGE)), table.handles, [2, np.int64(5)]
    )  # an int where a float is meant
    backend.synchronize()
    assert np.array_equal(table.get(slots[1]), x * 2 + 5)


def test_empty_programs_and_empty_calls(backend, axpy, table):
    backend.run(backend.prepare([], ""), [], [])
    slot = table.add(values(4))
    backend.run(backend.prepare([step(axpy, (slot, slot, 0))], "fi"), table.handles, [1.0, 1])
    assert np.array_equal(table.get(slot), table.arrays[slot])


def test_integer_scalars_keep_their_bits(backend, table):
    source = """
    extern "C" {
    union Scalar { double f; long long i; };
    void keep(void** b, const long long*, const Scalar* s, long long, long long) { ((long long*)b[0])[0] = s[0].i; }
    long long keep_units(const long long*) { return 1; }
    }"""
    kernel = Kernel(0, 0, (BufferParam(uint64, True, False),), 0, (uint64,), ())
    loaded = backend.load(backend.compile([source]), {"keep": kernel})["keep"]
    assert loaded.grain == 1
    slot = table.add(np.zeros(1, np.uint64))
    for value in (0, 2**63 + 5, 2**64 - 1, True):
        backend.launch(Step(kernel, loaded, (Call((slot,), (), (0,), 1),)), table.handles, [value])
        assert table.get(slot)[0] == value


# -- what is wrong is said ------------------------------------------------------------------------------------------
def test_wrong_calls(backend, axpy, table):
    kernel, loaded = axpy
    slot = table.add(values(4))
    for call, words in [
        (Call((0,), (4,), (0, 1), 4), "takes 2 buffers: 1 given"),
        (Call((0, 0), (), (0, 1), 4), "takes 1 sizes: 0 given"),
        (Call((0, 0), (4,), (0,), 4), "takes 2 scalars: 1 given"),
        (Call((0, 0), (4,), (0, 2), 4), "position 2"),
        (Call((0, 0), (4,), (0, -1), 4), "position -1"),
        (Call((0, 0), (4,), (1, 0), 4), "kind 'f'"),
        (Call((0, -1), (4,), (0, 1), 4), "negative slot: -1"),
    ]:
        with pytest.raises(ArgumentError, match=words):
            backend.prepare([Step(kernel, loaded, (call,))], "fi")
    with pytest.raises(ArgumentError, match="'x'"):
        backend.prepare([], "x")
    program = backend.prepare([step(axpy, (slot, 5, 4))], "fi")
    with pytest.raises(ArgumentError, match="uses 6 handles: 1 given"):
        backend.run(program, table.handles, [1.0, 1])
    with pytest.raises(ArgumentError, match="takes 2 scalars: 1 given"):
        backend.run(program, table.handles * 6, [1.0])
    with pytest.raises(TypeError):
        backend.run(program, table.handles * 6, ["one", 1])
    with pytest.raises(TypeError):
        backend.run(program, table.handles * 6, [1.0, 1.5])
    with pytest.raises(TypeError):
        backend.run(program, 5, [1.0, 1])


@pytest.mark.parametrize("wrong", [0, 64, None, "free"])
def test_wrong_handles_do_not_crash(backend, axpy, table, wrong):
    slot = table.add(values(4))
    program = backend.prepare([step(axpy, (slot, 1, 4))], "fi")
    if wrong == "free":
        wrong = backend.alloc(16)
        backend.free(wrong)
    with pytest.raises(BackendError, match="unknown handle"):
        backend.run(program, [*table.handles, wrong], [1.0, 1])
    backend.run(
        program, [*table.handles, table.handles[0], None], [1.0, 1]
    )  # a slot that no step uses may hold anything


# -- loading --------------------------------------------------------------------------------------------------------
def test_modules_are_loaded_once_and_stay_apart(backend, table):
    texts = [AXPY.replace("SYMBOL", "same").replace("scalars[0].f", f"scalars[0].f * {k}") for k in (1, 10)]
    kernel = axpy_kernel()
    binaries = [backend.compile([text]) for text in texts]
    loaded = [backend.load(binary, {"same": kernel})["same"] for binary in binaries]
    loaded.append(backend.load(binaries[0], {"same": kernel})["same"])
    x = values(10)
    slots = table.add(x), table.add(x)
    for one, factor in zip(loaded, (1, 10, 1), strict=True):
        backend.launch(Step(kernel, one, (Call(slots, (10,), (0, 1), 10),)), table.handles, [2.0, 0])
        assert np.array_equal(table.get(slots[1]), x * np.float32(2 * factor))


def test_hundreds_of_modules_leave_no_descriptors(backend):
    kernel = axpy_kernel()
    binary = backend.compile([AXPY.replace("SYMBOL", "many")])
    before = len(os.listdir("/proc/self/fd"))
    for number in range(300):
        _native.Module(binary + number.to_bytes(2, "little")).kernel("many", 2, 1, "fi")
    assert len(os.listdir("/proc/self/fd")) == before
    assert backend.load(binary, {"many": kernel})


def test_loading_through_a_file(backend, tmp_path, monkeypatch):
    binary = backend.compile([AXPY.replace("SYMBOL", "filed")])
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    assert _native.Module(binary, in_memory=False).kernel("filed", 2, 1, "fi").grain == 2
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setenv("TMPDIR", str(tmp_path / "missing"))
    assert _native.Module(binary, in_memory=False).kernel("filed", 2, 1, "fi").units([5]) == 5


def test_what_is_no_module(backend, axpy):
    kernel, _ = axpy
    binary = backend.compile([AXPY.replace("SYMBOL", "whole")])
    for bad in (b"", b"text", bytes(5000), binary[:100], binary[:5000], binary[:-1]):
        with pytest.raises(BackendError, match=r"\[load\]"):
            backend.load(bad, {"whole": kernel})
    with pytest.raises(BackendError, match="no kernel other"):
        backend.load(binary, {"other": kernel})
    with pytest.raises(BackendError, match="no snippet 'whole'"):
        backend.load(binary, {"whole": None})


# -- threads and processes --------------------------------------------------------------------------------------------
def test_one_program_in_several_threads(backend, axpy, threads):
    threads(2)
    program = backend.prepare([step(axpy, (0, 1, 50_000)), step(axpy, (1, 2, 50_000))], "fi")
    failures: list[BaseException] = []

    def work(number: int) -> None:
        own = Table(backend)
        try:
            x = np.full(50_000, number, np.float32)
            for _ in range(3):
                own.add(x)
            for turn in range(30):
                backend.run(program, own.handles, [float(turn), number])
                assert np.array_equal(own.get(2), (x * turn + number) * turn + number)
        except BaseException as error:
            failures.append(error)
        finally:
            own.free()

    workers = [threading.Thread(target=work, args=(number,)) for number in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert failures == []


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_after_fork(backend, axpy, table, threads):
    threads(2)
    x = values(LARGE)
    slots = table.add(x), table.add(np.zeros_like(x))
    program = backend.prepare([step(axpy, (*slots, LARGE))], "fi")
    backend.run(program, table.handles, [2.0, 1])
    child = os.fork()
    if child == 0:
        try:
            backend.run(program, table.handles, [3.0, 1])
            right = np.array_equal(table.get(slots[1]), x * 3 + 1) and backend.threads == 1
            os._exit(0 if right else 1)
        finally:
            os._exit(2)
    assert wait(child, 20) == 0
    assert backend.threads == 2
    assert np.array_equal(table.get(slots[1]), x * 2 + 1)
