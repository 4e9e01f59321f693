"""The table of loaded kernels: what is compiled together, and how often modules are compiled, read and loaded."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from metafuse import config
from metafuse.dtypes import float32
from metafuse.kernel.expr import axis, call, const, load
from metafuse.kernel.ir import BufferParam, Kernel, Stage
from metafuse.runtime.compile_cache import CompileCache
from metafuse.runtime.kernels import KernelTable, _batches, statistics
from metafuse.runtime.variants import VARIANT_LIMIT


class Recorder:
    """The code half of a backend, which keeps what it was asked for. Modules load only on the system that built them."""

    def __init__(self, jobs: int = 2, system: str = "this") -> None:
        self.capabilities = SimpleNamespace(compile_jobs=jobs)
        self.system = system
        self.compiled: list[int] = []
        self.loads: list[int] = []

    def fingerprint(self) -> str:
        return "recorder"

    def emit(self, kernel: Kernel, symbol: str) -> str:
        return f"<{symbol}>"

    def compile(self, sources: Sequence[str]) -> bytes:
        self.compiled.append(len(sources))
        return f"{self.system} {''.join(sources)}".encode()

    def load(self, binary: bytes, kernels: Mapping[str, Any]) -> dict[str, str]:
        if not binary.startswith(self.system.encode()):
            raise OSError("needs another system library")
        self.loads.append(len(kernels))
        assert all(f"<{symbol}>".encode() in binary for symbol in kernels)
        return {symbol: f"loaded {symbol}" for symbol in kernels}


def make_kernels(count: int) -> list[Kernel]:
    """Different kernels: ``out[i] = x[i] + k``."""
    params = (BufferParam(float32), BufferParam(float32, writes=True, reads=False))
    sums = [call("add", load(0, float32, axis(0)), const(float(k), float32)) for k in range(count)]
    stages = [Stage("store", "inner", value, 0, buffer=1, offset=axis(0)) for value in sums]
    return [Kernel(1, 0, params, 1, (), (stage,)) for stage in stages]


Process = Callable[[Recorder], KernelTable]


@pytest.fixture
def process(tmp_path) -> Process:
    """process(backend): the table of a new process that shares the disk with those before."""

    def start(backend: Recorder) -> KernelTable:
        table = KernelTable(backend)  # type: ignore[arg-type]
        table._cache = CompileCache(tmp_path / "cache")
        return table

    return start


def test_new_kernels_are_compiled_in_batches_and_once(process):
    backend, kernels = Recorder(jobs=2), make_kernels(5)
    table = process(backend)
    loaded = table.obtain([*kernels, kernels[0]])
    assert loaded[0] == loaded[5] != loaded[1]
    assert sorted(backend.compiled) == sorted(backend.loads) == [2, 3]
    assert table.obtain(kernels) == loaded[:5]
    assert len(backend.compiled) == len(backend.loads) == 2


def test_kernels_that_differ_in_numbers_alone_are_told_once(process, monkeypatch):
    seen: list[str] = []
    monkeypatch.setattr(config, "notice", seen.append)
    table = process(Recorder())
    kernels = make_kernels(VARIANT_LIMIT + 4)
    for kernel in kernels[: VARIANT_LIMIT - 1]:
        table.obtain([kernel])
    assert seen == []
    for kernel in kernels[VARIANT_LIMIT - 1 :]:
        table.obtain([kernel])
    assert len(seen) == 1 and "16 kernels" in seen[0] and "12.0, 13.0, 14.0, 15.0" in seen[0]
    for k in range(VARIANT_LIMIT):
        table.obtain_source(f"code_{k}", f"<code_{k}> a1 = {k}.5 * 3;")
    assert len(seen) == 2 and "'code'" in seen[1] and "14.5, 15.5)" in seen[1] and "data=" in seen[1]


def test_kernels_of_other_structure_are_not_counted_together(process, monkeypatch):
    monkeypatch.setattr(config, "notice", pytest.fail)
    table = process(Recorder())
    for k in range(2 * VARIANT_LIMIT):
        table.obtain_source(f"code_{k}", f"<code_{k}> name{k} = 3;")


def test_another_process_reads_and_loads_every_module_once(process, monkeypatch):
    kernels = make_kernels(9)
    first = process(Recorder()).obtain(kernels)
    backend = Recorder()
    table = process(backend)
    folders: list[str] = []
    read = table.cache._read
    monkeypatch.setattr(table.cache, "_read", lambda *place: (folders.append(place[0]), read(*place))[1])
    before = statistics.disk_hits
    assert table.obtain(kernels) == first
    assert statistics.disk_hits - before == 9
    assert backend.compiled == []
    assert sorted(backend.loads) == [4, 5]
    assert (folders.count("keys"), folders.count("modules")) == (9, 2)


def test_only_what_is_missing_is_compiled(process):
    kernels = make_kernels(6)
    process(Recorder(jobs=1)).obtain(kernels[:4])
    backend = Recorder(jobs=8)
    assert len(set(process(backend).obtain(kernels))) == 6
    assert (backend.compiled, backend.loads) == ([1, 1], [4, 1, 1])


def test_a_module_that_does_not_load_any_more_is_built_again(process):
    kernels = make_kernels(3)
    process(Recorder(jobs=1, system="older")).obtain(kernels)
    backend = Recorder(jobs=1)
    process(backend).obtain(kernels)
    assert (backend.compiled, backend.loads) == ([3], [3])
    again = Recorder(jobs=1)
    process(again).obtain(kernels)
    assert (again.compiled, again.loads) == ([], [3])


def test_batches_take_about_as_long_as_each_other():
    lengths = {"a": 100, "b": 40, "c": 35, "d": 30, "e": 3}
    assert _batches(lengths, 2) == [["a", "e"], ["b", "c", "d"]]
    assert _batches(lengths, 1) == [list("abcde")]
    assert _batches(lengths, 9) == [["a"], ["b"], ["c"], ["d"], ["e"]]
    assert _batches({"only": 5}, 0) == [["only"]]
