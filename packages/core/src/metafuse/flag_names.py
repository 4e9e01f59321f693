"""Flags of the reference API beside the settings of ``config``: what each of them does here.

What it is: one table. A flag either acts on something that exists here under another name, or has no effect, and says so once
when it is set to anything but its default.
What it is not: settings of metafuse; a program written for metafuse needs none of these.
Who calls it: ``config``, when a flag is asked for that it does not know. ``docs/flags.md`` is generated from it too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from .errors import ArgumentError, brief

__all__ = ["FLAGS", "Flag", "find"]


@dataclass(frozen=True)
class Flag:
    """One row. ``read`` and ``write`` where it acts on something else; otherwise its value is merely kept.

    ``used``: whether somebody reads what is kept."""

    name: str
    default: Any
    doc: str
    read: Callable[[], Any] | None = None
    write: Callable[[Any], None] | None = None
    used: bool = False

    @property
    def works(self) -> bool:
        """Whether setting it changes anything."""
        return self.write is not None or self.used

    @property
    def effect(self) -> str:
        """What it does, in a sentence."""
        return self.doc if self.works or self.read is not None else f"No effect: {self.doc}"

    def value(self) -> Any:
        """The value now."""
        return self.read() if self.read is not None else _values.get(self.name, self.default)

    def checked(self, value: Any) -> Any:
        """``value`` as it is kept; ``ArgumentError`` for another kind of value than the default."""
        kind = type(self.default)
        if kind is int and hasattr(value, "__index__"):
            return int(value)
        if kind is dict and isinstance(value, Mapping):
            return dict(value)
        if kind is list and isinstance(value, (list, tuple)):
            return list(value)
        if kind is str and isinstance(value, str):
            return value
        raise ArgumentError(f"[flags] {self.name} can't be {brief(value)}; legal: {_KINDS[kind]}")

    def set(self, value: Any, told: bool = True) -> None:
        """Give it a value; without an effect, the user is ``told``."""
        value = self.checked(value)
        if self.write is not None:
            self.write(value)
            return
        if told and not self.works and value != self.default:
            from .config import notice

            notice(f"flags.{self.name} has no effect here: {self.doc}")
        if self.read is None:
            _values[self.name] = value


_KINDS = {int: "an integer", str: "text", dict: "a dict", list: "a list"}
_values: dict[str, Any] = {}
#: levels of the reference API's log at which ``debug`` becomes 1, 2, ...
_LEVELS = (1, 10, 100, 1000)


def _read_no_grad() -> int:
    from .graph.node import state

    return int(not state.grad_enabled)


def _write_no_grad(value: int) -> None:
    from .graph.node import state

    state.grad_enabled = not value


def _read_log_level() -> int:
    from .config import flags

    return (0, *_LEVELS, _LEVELS[-1])[flags.debug]


def _write_log_level(value: int) -> None:
    from .config import flags

    flags.debug = sum(value >= level for level in _LEVELS)


def _read_cache_path() -> str:
    from .config import cache_directory

    return str(cache_directory())


def _write_cache_path(value: str) -> None:
    from .config import flags

    flags.cache_dir = value


def _read_profiling() -> int:
    from . import profiler

    return int(profiler.running())


def _write_profiling(value: int) -> None:
    from . import profiler

    if value:
        profiler.start(FLAGS["profiler_warmup"].value(), FLAGS["profiler_rerun"].value())
    else:
        profiler.stop()


def _read_programs() -> int:
    from .runtime.kernels import statistics

    return statistics.programs


def _none(default: Any, doc: str, *names: str) -> list[Flag]:
    return [Flag(name, default, doc) for name in names]


_COMPILER = "the compiler is `METAFUSE_CXX`, else `CXX`, else the first of g++, clang++ and c++"
_DEBUGGER = "errors are Python exceptions; no debugger is started"
_MEMORY = "a backend's pool needs no choice of allocators; `debug.display_memory_info()` shows it"
_SEARCH = "kernels are chosen by a model of the machine, not by trying them out"
_TRACE = "the line that recorded an operation is always known; see `explain`"

#: name -> row, for every flag of the reference API that is neither in ``config.SETTINGS`` nor one of its ``ALIASES``
FLAGS: dict[str, Flag] = {
    row.name: row
    for row in (
        Flag("no_grad", 0, "1 records no gradient paths, like `no_grad()`.", _read_no_grad, _write_no_grad),
        Flag(
            "log_v", 0, "Sets `debug`: 1 from level 1, 2 from 10, 3 from 100, 4 from 1000.", _read_log_level, _write_log_level,
        ),
        Flag("log_file", "", "What `debug` and notices tell is appended to this file instead of stderr.", used=True),
        Flag("cache_path", "", "The folder of compiled kernels; sets `cache_dir`.", _read_cache_path, _write_cache_path),
        Flag("profiler_enable", 0, "1 calls `profiler.start()`, 0 `profiler.stop()`.", _read_profiling, _write_profiling),
        Flag("profiler_warmup", 0, "Runs of every kernel before those that `profiler_enable = 1` counts.", used=True),
        Flag("profiler_rerun", 0, "Further runs of every kernel that `profiler_enable = 1` counts.", used=True),
        Flag("profiler_record_shape", 0, "1: the profiler counts a kernel for each of its extents apart.", used=True),
        Flag(
            "compile_options", {},
            "Entries `\"FLAGS: -I... -l...\": 1` are given to the compiler of snippets (`code`); others have no effect.",
            used=True,
        ),
        Flag("exec_called", 0, "How many programs have run; can't be set.", _read_programs),
        *_none("", _COMPILER, "cc_path", "cc_type", "cc_flags"),
        *_none("", "there is nothing to be told about other programs", "jittor_path", "python_path"),
        *_none("", "CUDA sources are compiled by a library, not by nvcc", "nvcc_path", "nvcc_flags"),
        *_none([], "a CUDA backend compiles for the device that is there", "cuda_archs"),
        *_none(-1, "a backend has one device; choose with the environment variable of its vendor", "device_id"),
        *_none(0, "`math` chooses how products are rounded", "use_tensorcore"),
        *_none(1, "reading a value waits for it", "sync_run"),
        *_none(1, "what has a library's form is given to it in any case; `library = 0` prevents that", "rewrite_op"),
        *_none(0, "indexes are as wide as sizes need", "try_use_32bit_index"),
        *_none(0, "`lazy_execution = 0` runs operators one by one", "no_fuse"),
        *_none(0, "operators run in the order that their inputs allow", "node_order"),
        *_none(0, "the API has one set of conventions", "th_mode"),
        *_none(0, "there is no global lock", "disable_lock"),
        *_none(0, "the peak is always known; see `display_memory_info()`", "profile_memory_enable"),
        *_none(16, "new kernels of a program are compiled in parallel anyway", "use_parallel_op_compiler"),
        *_none(0, "`METAFUSE_DEBUG=3` shows the passes; none can be left out", "gopt_disable"),
        *_none("", "`METAFUSE_DEBUG=3` shows the passes; none can be left out", "exclude_pass"),
        *_none("", "`METAFUSE_DEBUG=4` shows the source of kernels", "log_op_hash"),
        *_none(0, "kernels use the threads that `num_threads` says", "use_threading"),
        *_none(4, "`num_threads` says how many threads kernels use", "nthread"),
        *_none(0, "times of library calls have rows of their own", "profiler_hide_relay"),
        *_none(0, "rows show what a kernel moves per second", "profiler_record_peek"),
        *_none(1, _MEMORY, "use_cuda_host_allocator", "use_sfrl_allocator", "use_temp_allocator"),
        *_none(0, _MEMORY, "use_nfef_allocator", "use_stat_allocator", "use_cuda_managed_allocator"),
        *_none(
            0, _MEMORY, "stat_allocator_total_alloc_call", "stat_allocator_total_alloc_byte",
            "stat_allocator_total_free_call", "stat_allocator_total_free_byte",
        ),
        *_none(5242880, _MEMORY, "sfrl_large_block_size_device"),
        *_none(-1, "nothing is moved to disk; `METAFUSE_CPU_MEMORY_LIMIT` is a limit", "cpu_mem_limit", "device_mem_limit"),
        *_none(0, _SEARCH, "jit_search_kernel"),
        *_none(2, _SEARCH, "jit_search_warmup"),
        *_none(10, _SEARCH, "jit_search_rerun"),
        *_none(3, _SEARCH, "para_opt_level"),
        *_none(32768, "the sizes of caches are asked of the machine", "l1_cache_size"),
        *_none(0, "arrays from NumPy are copied", "reuse_array"),
        *_none(0, _TRACE, "trace_py_var", "trace_var_data"),
        *_none(10, _TRACE, "trace_depth"),
        *_none(0, _TRACE, "has_pybt"),
        *_none(1, "lines are written as they come", "log_sync"),
        *_none("", "`debug` has one level for all", "log_vprefix"),
        *_none("", _DEBUGGER, "gdb_path", "addr2line_path", "extra_gdb_cmd"),
        *_none(0, _DEBUGGER, "gdb_attach"),
    )
}  # fmt: skip


def find(name: str) -> Flag | None:
    """The row of a flag, or ``None``."""
    return FLAGS.get(name)
