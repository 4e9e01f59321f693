"""Level "memory": buffers keep what is put into them, and the contract's small promises hold.

What it is: calls of the backend's own methods, without operators.
What it is not: computing.
Who calls it: ``suite``.
"""

from __future__ import annotations

import numpy as np

from ...backend.contract import CONTRACT_VERSION, AbstractBackend, host_bytes
from ...dtypes import DTYPES
from ...kernel.expr import INTRINSICS
from ...runtime.buffer import Buffer
from ..errors import ConformanceError
from ..kit import Kit, level

__all__ = [
    "test_buffers_are_independent", "test_capabilities_are_declared", "test_memory_roundtrip",
    "test_partial_copies", "test_reused_memory_is_not_shared",
]  # fmt: skip

SIZES = (1, 2, 3, 7, 63, 64, 65, 255, 1000, 4095, 4096, 4097, 100_003, 1 << 20)


def _bytes(size: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, size).astype(np.uint8)


def _out(backend: AbstractBackend, handle: object, size: int) -> np.ndarray:
    target = np.full(size + 8, 0xA5, np.uint8)
    backend.synchronize()
    backend.copy_out(host_bytes(target)[:size], handle)
    if (target[size:] != 0xA5).any():
        raise ConformanceError(f"[copy_out] {size} bytes on {backend.name}: it wrote beyond the target")
    return target[:size]


def _same(backend: AbstractBackend, what: str, size: int, got: np.ndarray, expected: np.ndarray) -> None:
    if not np.array_equal(got, expected):
        wrong = np.flatnonzero(got != expected)
        raise ConformanceError(
            f"[{what}] {size} bytes on {backend.name}: {wrong.size} bytes differ, first at {int(wrong[0])}: got "
            f"{int(got[wrong[0]])}, expected {int(expected[wrong[0]])}"
        )


@level("memory")
def test_capabilities_are_declared(conformance: Kit) -> None:
    """Names the framework knows, float32 and int32 at least, sensible numbers, a text as fingerprint."""
    backend = conformance.backend
    known = backend.capabilities
    for what, found, legal in (
        ("dtypes", known.dtypes, DTYPES),
        ("intrinsics", known.intrinsics, INTRINSICS),
    ):
        unknown = sorted(set(found) - set(legal))
        if unknown:
            raise ConformanceError(f"[capabilities] {what} on {backend.name}: unknown {', '.join(unknown)}")
    missing = {"float32", "int32", "int64", "bool"} - set(known.dtypes)
    if missing:
        raise ConformanceError(
            f"[capabilities] dtypes on {backend.name}: {', '.join(sorted(missing))} are required"
        )
    numbers = (known.max_buffers, known.compile_jobs, known.machine.cores, known.machine.vector_bytes)
    if min(numbers) < 1:
        raise ConformanceError(f"[capabilities] numbers on {backend.name} must be at least 1, got {numbers}")
    print_ = backend.fingerprint()
    if not isinstance(print_, str) or not print_ or print_ != backend.fingerprint():
        raise ConformanceError(
            f"[fingerprint] on {backend.name} must be one text that does not change, got {print_!r}"
        )
    assert CONTRACT_VERSION >= 1


@level("memory")
def test_memory_roundtrip(conformance: Kit) -> None:
    """What is copied in comes out, twice over, for odd sizes too."""
    backend = conformance.backend
    for size in SIZES:
        buffer = Buffer(backend, size)
        for attempt in range(3):
            data = _bytes(size, size + attempt)
            backend.copy_in(buffer.handle, host_bytes(data))
            _same(backend, "copy_in, copy_out", size, _out(backend, buffer.handle, size), data)
        # the host's array is not part of the buffer
        data[:] = 0
        _same(
            backend, "copy_in keeps a copy", size, _out(backend, buffer.handle, size), _bytes(size, size + 2)
        )


@level("memory")
def test_partial_copies(conformance: Kit) -> None:
    """Copies shorter than the buffer touch its start only; copies of nothing do nothing."""
    backend = conformance.backend
    buffer = Buffer(backend, 1000)
    data = _bytes(1000, 1)
    backend.copy_in(buffer.handle, host_bytes(data))
    backend.copy_in(buffer.handle, host_bytes(np.zeros(0, np.uint8)))
    _same(backend, "copy_in of 0 bytes", 1000, _out(backend, buffer.handle, 1000), data)
    backend.copy_in(buffer.handle, host_bytes(_bytes(10, 2)))
    data[:10] = _bytes(10, 2)
    _same(backend, "copy_in of 10 bytes", 1000, _out(backend, buffer.handle, 1000), data)
    _same(backend, "copy_out of 17 bytes", 17, _out(backend, buffer.handle, 17), data[:17])
    _out(backend, buffer.handle, 0)


@level("memory")
def test_buffers_are_independent(conformance: Kit) -> None:
    """Many live buffers, each with its own bytes."""
    backend = conformance.backend
    live = []
    for number, size in enumerate(SIZES[:-1] * 3):
        buffer = Buffer(backend, size)
        backend.copy_in(buffer.handle, host_bytes(_bytes(size, number)))
        live.append((number, size, buffer))
    for number, size, buffer in live:
        _same(backend, "independent buffers", size, _out(backend, buffer.handle, size), _bytes(size, number))


@level("memory")
def test_reused_memory_is_not_shared(conformance: Kit) -> None:
    """Memory that was freed may come back, but not twice, and not while it is held."""
    backend = conformance.backend
    kept = Buffer(backend, 4096)
    data = _bytes(4096, 5)
    backend.copy_in(kept.handle, host_bytes(data))
    for attempt in range(8):
        pair = [Buffer(backend, 4096 if attempt % 2 else 5000) for _ in range(3)]
        for number, buffer in enumerate(pair):
            backend.copy_in(buffer.handle, host_bytes(_bytes(4096, 10 * attempt + number)))
        for number, buffer in enumerate(pair):
            expected = _bytes(4096, 10 * attempt + number)
            _same(backend, "freed and allocated again", 4096, _out(backend, buffer.handle, 4096), expected)
        del pair, buffer
    _same(backend, "held while others come and go", 4096, _out(backend, kept.handle, 4096), data)
