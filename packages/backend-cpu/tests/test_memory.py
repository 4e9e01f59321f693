"""The memory pool: alignment, reuse, limits, and what it says to wrong handles."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

import numpy as np
import pytest

from metafuse.backend.contract import host_bytes
from metafuse.errors import ArgumentError, BackendError, OutOfMemory
from metafuse_backend_cpu import _native, machine

LARGE = 2 << 20


@pytest.fixture(autouse=True)
def empty_cache():
    _native.trim()


@pytest.mark.parametrize("size", [1, 7, 64, 65, 1000, 4097, 1 << 20, LARGE - 1, LARGE, LARGE + 1, 9_999_999])
def test_blocks_are_aligned_and_writable(backend, size):
    handle = backend.alloc(size)
    assert handle % 64 == 0
    view = backend.host_view(handle, size)
    view[:] = 255
    assert view.flags.writeable
    assert int(view.sum(dtype=np.int64)) == 255 * size
    backend.free(handle)


def test_large_blocks_begin_at_different_places_of_a_page(backend):
    handles = [backend.alloc(size) for size in (LARGE, LARGE, 8 * LARGE, 100_000, 100_000)]
    assert len({handle % 4096 for handle in handles}) == len(handles)
    for handle in handles:
        backend.free(handle)


def test_blocks_do_not_overlap(backend):
    handles = [backend.alloc(size) for size in (100, 100, 5000, LARGE, LARGE) for _ in range(3)]
    for number, handle in enumerate(handles):
        backend.host_view(handle, 100)[:] = number
    assert all((backend.host_view(handle, 100) == number).all() for number, handle in enumerate(handles))
    for handle in handles:
        backend.free(handle)


def test_memory_is_reused_between_steps(backend):
    def one_step():
        handles = [backend.alloc(size) for size in (100, 3000, 3000, 5 * LARGE)]
        for handle in handles:
            backend.free(handle)
        return sorted(handles)

    first = one_step()
    before = backend.memory_stats()["system_allocations"]
    assert one_step() == first
    assert backend.memory_stats()["system_allocations"] == before


def test_statistics(backend):
    before = backend.memory_stats()
    handle = backend.alloc(LARGE)
    now = backend.memory_stats()
    assert now["bytes_in_use"] == before["bytes_in_use"] + LARGE
    assert now["blocks"] == before["blocks"] + 1
    assert now["bytes_peak"] >= now["bytes_in_use"]
    backend.free(handle)
    assert backend.memory_stats()["bytes_cached"] == LARGE
    assert backend.trim() == LARGE
    assert backend.memory_stats()["bytes_cached"] == 0


def test_changing_sizes_do_not_pile_up(backend):
    for size in range(1, 200):
        backend.free(backend.alloc(size * LARGE // 2))
    stats = backend.memory_stats()
    assert stats["bytes_cached"] < 100 * LARGE + stats["bytes_peak"]


def test_a_free_block_that_is_somewhat_larger_serves(backend):
    handle = backend.alloc(10 * LARGE)
    backend.free(handle)
    again = backend.alloc(9 * LARGE)
    assert again == handle
    assert backend.memory_stats()["bytes_cached"] == 0
    backend.free(again)


@pytest.mark.parametrize("handle", [0, 1, 64, -1, 2**63, 2**70, None, "block", 1.5])
def test_wrong_handles(backend, handle):
    for call in (
        lambda: backend.free(handle),
        lambda: backend.copy_in(handle, memoryview(b"abc")),
        lambda: backend.copy_out(memoryview(bytearray(3)), handle),
        lambda: backend.host_view(handle, 1),
    ):
        with pytest.raises(BackendError, match="handle"):
            call()


def test_double_free(backend):
    handle = backend.alloc(100)
    backend.free(handle)
    with pytest.raises(BackendError, match="already free"):
        backend.free(handle)


def test_inside_of_a_block_is_no_handle(backend):
    handle = backend.alloc(1000)
    with pytest.raises(BackendError, match="unknown handle"):
        backend.free(handle + 64)
    backend.free(handle)


def test_copies_beyond_the_end(backend):
    handle = backend.alloc(64)
    with pytest.raises(BackendError, match="65 bytes do not fit"):
        backend.copy_in(handle, memoryview(bytes(65)))
    with pytest.raises(BackendError, match="do not fit"):
        backend.copy_out(memoryview(bytearray(1000)), handle)
    with pytest.raises(BackendError, match="do not fit"):
        backend.host_view(handle, 100)
    backend.free(handle)


def test_read_only_targets_are_refused(backend):
    handle = backend.alloc(64)
    with pytest.raises(BufferError):
        backend.copy_out(memoryview(bytes(8)), handle)
    backend.free(handle)


@pytest.mark.parametrize("count", [1, 1000, 30_000, 3_000_001])
def test_copies(backend, count):
    values = np.random.default_rng(0).integers(0, 2**31, count)
    handle = backend.alloc(values.nbytes)
    backend.copy_in(handle, host_bytes(values))
    assert (backend.host_view(handle, values.nbytes).view(values.dtype) == values).all()
    back = np.zeros_like(values)
    backend.copy_out(host_bytes(back), handle)
    assert (back == values).all()
    backend.free(handle)


def test_no_memory(backend):
    with pytest.raises(OutOfMemory, match=r"1125899906842624 bytes .* in use"):
        backend.alloc(1 << 50)
    with pytest.raises(MemoryError):
        backend.alloc((1 << 63) - 1)
    with pytest.raises(ArgumentError, match="-5"):
        backend.alloc(-5)


def test_limit(backend):
    former = backend.memory_stats()["bytes_limit"]
    used = backend.memory_stats()["bytes_in_use"]
    try:
        _native.set_memory_limit(used + 4 * LARGE)
        first = backend.alloc(3 * LARGE)
        with pytest.raises(OutOfMemory, match="METAFUSE_CPU_MEMORY_LIMIT"):
            backend.alloc(2 * LARGE)
        backend.free(first)
        second = backend.alloc(4 * LARGE)  # the cached block has to make room
        assert backend.memory_stats()["bytes_cached"] == 0
        backend.free(second)
        _native.set_memory_limit(used + LARGE)
        assert backend.memory_stats()["bytes_cached"] <= LARGE
    finally:
        _native.set_memory_limit(former)


@pytest.mark.parametrize(
    ("text", "size"),
    [("3000000", 3000000), ("4G", 4 << 30), ("512m", 512 << 20), ("1.5KiB", 1536), ("2 TB", 2 << 40)],
)
def test_limit_of_the_environment(monkeypatch, text, size):
    monkeypatch.setenv("METAFUSE_CPU_MEMORY_LIMIT", text)
    assert machine.memory_limit() == size


def test_limit_that_is_no_size(monkeypatch):
    monkeypatch.setenv("METAFUSE_CPU_MEMORY_LIMIT", "plenty")
    with pytest.raises(ArgumentError, match="'plenty'"):
        machine.memory_limit()


def test_default_limit_is_what_the_machine_has(monkeypatch):
    monkeypatch.delenv("METAFUSE_CPU_MEMORY_LIMIT", raising=False)
    assert 0 < machine.memory_limit() <= os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def test_threads_share_the_pool(backend):
    failures: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for turn in range(200):
                handle = backend.alloc(100 + turn)
                view = backend.host_view(handle, 100 + turn)
                view[:] = number
                assert (view == number).all()
                backend.free(handle)
        except BaseException as error:
            failures.append(error)

    workers = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert failures == []


def test_blocks_held_when_the_interpreter_ends():
    script = (
        "from metafuse_backend_cpu import _native; h = [_native.alloc(n) for n in (10, 5000000)];"
        "import atexit; atexit.register(lambda: _native.free(h[1])); print(len(h))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "2\n"), done.stderr


def test_out_of_memory_says_who_holds_what() -> None:
    import metafuse as mf

    with mf.flag_scope(backend="cpu"):
        held = mf.ones((300, 1000)).name("the weights").sync()
        with pytest.raises(
            mf.errors.OutOfMemory, match=r"bytes were asked for.*1\.1 MiB of the weights at .*test_memory"
        ):
            mf.ones((2**20, 2**20, 16)).sync()
        assert held.sum().item() == 300_000
