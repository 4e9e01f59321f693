"""What the benchmarks share: equal threads, runs taken in turn, a check of the results, and one kind of table.

Call ``start`` before NumPy, PyTorch or metafuse are imported: it parses the common options and sets the number of
threads of all of them. A ``Table`` takes cases; a case whose two sides compute different things gets no ratio.
"""

from __future__ import annotations

import argparse
import atexit
import gc
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

__all__ = [
    "Options",
    "Sample",
    "Table",
    "agree",
    "interleave",
    "kernels",
    "machine",
    "profile",
    "repeats",
    "start",
]


#: cores used by other programs from which on a measurement is marked
BUSY = 0.2
_clock = [time.perf_counter]
#: seconds in which OpenMP's idle threads stop spinning
PAUSE = 0.02
#: calls after the pause that are not measured
SETTLING = 4
#: seconds after which settling ends anyway
LONG = 0.2
#: seconds until which a run of short calls is filled up
SHORT = 2e-3


@dataclass
class Options:
    """The common command line."""

    threads: int
    runs: int
    seconds: float
    extra: argparse.Namespace


def start(
    description: str, *, runs: int = 15, seconds: float = 6.0, numpy_is_peer: bool = False, **more: Any
) -> Options:
    """Parse the command line and give every framework the same number of threads.

    ``more``: further options by name, as keyword arguments of ``add_argument``. Where NumPy is compared with, variables
    that steer its matrix library are dropped, so that it runs as it comes.
    """
    parser = argparse.ArgumentParser(description=description.split("\n")[0])
    parser.add_argument(
        "--threads", type=int, default=min(2, usable_cores()), help="threads of every framework"
    )
    parser.add_argument("--runs", type=int, default=runs, help="runs of each side, taken in turn")
    parser.add_argument("--seconds", type=float, default=seconds, help="stop a case after this long")
    for name, arguments in more.items():
        parser.add_argument("--" + name.replace("_", "-"), **arguments)
    parser.add_argument(
        "--cpu-time",
        action="store_true",
        help="CPU time instead of passed time: for a look on a busy machine, with --threads 1",
    )
    parser.add_argument(
        "--keep-pages",
        action="store_true",
        help="let malloc keep large blocks, so that the peers' results need no fresh pages (Linux)",
    )
    options = parser.parse_args()
    if options.keep_pages:
        _keep_pages()
        print("(malloc keeps large blocks)\n")
    if options.cpu_time:
        _clock.append(time.process_time)
        print("(CPU time, not passed time)\n")
    atexit.register(_tell_others, _busy())
    for library in ("numpy", "torch", "metafuse"):
        assert library not in sys.modules, f"start() must come before {library} is imported"
    if numpy_is_peer:
        for name in [n for n in os.environ if n.startswith("OPENBLAS_")]:
            del os.environ[name]
    for name in ("METAFUSE_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = str(options.threads)
    try:
        import torch

        torch.set_num_threads(options.threads)
    except ImportError:
        pass  # some benchmarks have no peer
    return Options(options.threads, options.runs, options.seconds, options)


def _keep_pages() -> None:
    """Have the C library serve large blocks from its heap and never give them back.

    By default it maps blocks beyond a threshold (32 MiB at most, found by trial at run time) anew each time, and the
    kernel then clears every page."""
    import ctypes

    libc = ctypes.CDLL(None)
    for parameter, value in ((-4, 0), (-1, 2**31 - 1)):  # M_MMAP_MAX, M_TRIM_THRESHOLD
        libc.mallopt(parameter, value)


def usable_cores() -> int:
    """Cores that this process may run on."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


# -- other programs -------------------------------------------------------------------------------------------------
def _busy() -> tuple[float, float, float] | None:
    """(passed time, seconds that all cores were busy, seconds of them for this process and its children)."""
    try:
        with open("/proc/stat", encoding="ascii") as stream:
            user, nice, system, _, _, irq, soft, *_ = map(int, stream.readline().split()[1:])
    except (OSError, ValueError):
        return None  # not Linux
    mine = os.times()
    ours = mine.user + mine.system + mine.children_user + mine.children_system
    return time.perf_counter(), (user + nice + system + irq + soft) / os.sysconf("SC_CLK_TCK"), ours


def _tell_others(before: tuple[float, float, float] | None) -> None:
    """Print how much of the machine others had; figures from a busy machine must not look like any others."""
    after = _busy()
    if before is None or after is None:
        return
    passed, busy, ours = (b - a for a, b in zip(before, after, strict=True))
    share = max(0.0, busy - ours) / passed
    if share > BUSY:
        print(
            f"\n**Measured on a busy machine: other programs used {share:.1f} cores. These figures are not to be relied on.**"
        )


# -- time ---------------------------------------------------------------------------------------------------------
@dataclass
class Sample:
    """Seconds of each run of one side, in the order they were taken."""

    seconds: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    @property
    def quartiles(self) -> tuple[float, float]:
        if len(self.seconds) < 2:
            return self.seconds[0], self.seconds[0]
        low, _, high = statistics.quantiles(self.seconds, n=4, method="inclusive")
        return low, high

    @property
    def best(self) -> float:
        return min(self.seconds)


def _settle(call: Callable[[], Any], seconds: float) -> None:
    """Let the other side's threads fall asleep, then bring this side into its steady state."""
    if seconds <= 0:
        return
    time.sleep(seconds)
    end = time.perf_counter() + LONG
    for _ in range(SETTLING):
        call()
        if time.perf_counter() > end:
            break


def repeats(call: Callable[[], Any]) -> int:
    """How often a short call fits in a run of a few milliseconds."""
    call()
    begin = time.perf_counter()
    call()
    return max(1, min(20, int(SHORT / max(time.perf_counter() - begin, 1e-6))))


def interleave(
    sides: dict[str, Callable[[], Any]],
    runs: int,
    seconds: float,
    *,
    warm_up: int = 2,
    repeat: int = 1,
    pause: float = PAUSE,
) -> dict[str, Sample]:
    """Run every side in turn, ``runs`` times or until ``seconds`` are over; each run calls the function ``repeat`` times.

    What a call answers is dropped within the measured time, as in a loop that goes on. The order is turned round in
    every other round, so that nobody always profits from a warm cache. Before each run there is a pause, in which the
    other side's worker threads, which watch for work for some milliseconds, fall asleep, and then calls that are not
    measured, until its own threads and caches are in their steady state.
    """
    for _ in range(warm_up):
        for call in sides.values():
            call()
    samples = {name: Sample() for name in sides}
    clock = _clock[-1]
    order = list(sides.items())
    end = time.perf_counter() + seconds
    gc.collect()
    gc.disable()
    try:
        for number in range(runs):
            for name, call in order if number % 2 == 0 else reversed(order):
                _settle(call, pause)
                begin = clock()
                for _ in range(repeat):
                    call()
                samples[name].seconds.append((clock() - begin) / repeat)
            if time.perf_counter() > end and number >= 4:
                break
    finally:
        gc.enable()
    return samples


# -- results ------------------------------------------------------------------------------------------------------
def agree(ours: Any, theirs: Any, relative: float = 1e-4, absolute: float = 1e-5) -> str:
    """Empty if both sides computed the same, else what differs. Takes arrays, or equally long sequences of arrays."""
    import numpy as np

    if isinstance(ours, (list, tuple)):
        if len(ours) != len(theirs):
            return f"{len(ours)} results and {len(theirs)}"
        problems = [agree(a, b, relative, absolute) for a, b in zip(ours, theirs, strict=True)]
        return "; ".join(f"result {k}: {p}" for k, p in enumerate(problems) if p)
    a, b = host(ours), host(theirs)
    if a.shape != b.shape and a.size == b.size:
        a = a.reshape(b.shape)
    if a.shape != b.shape:
        return f"shapes {a.shape} and {b.shape}"
    difference = np.abs(a.astype(np.float64) - b.astype(np.float64))
    allowed = absolute + relative * np.abs(b.astype(np.float64))
    if not np.all(difference <= allowed):
        return f"largest difference {np.max(difference):.3g} at magnitude {np.max(np.abs(b)):.3g}"
    return ""


def host(value: Any) -> Any:
    """Any framework's array as a NumPy array."""
    import numpy as np

    if hasattr(value, "detach") and hasattr(value, "cpu"):  # PyTorch
        return value.detach().cpu().numpy()
    return value.numpy() if hasattr(value, "numpy") else np.asarray(value)


def kernels(call: Callable[[], Any]) -> list[str]:
    """Names of the kernels that metafuse launches for ``call``, in order; must be given something not yet computed."""
    from metafuse.runtime import executor

    executor.last_program.clear()
    call()
    names: list[str] = []
    for step in executor.last_program[0].plan.steps if executor.last_program else ():
        kernel = getattr(step, "kernel", None)
        names.append(kernel.name if kernel is not None else getattr(step, "name", "opaque"))
    return names


def profile(call: Callable[[], Any], *, by_name: bool = False, runs: int = 5, most: int = 1000) -> None:
    """Print what metafuse launches in ``call``, slowest first, each at its best of some runs; ``by_name``: launches of one
    name together."""
    from metafuse.debug import record_launches

    best: dict[Any, tuple[float, ...]] = {}
    call()  # packs what is constant
    for _ in range(runs):
        with record_launches() as launches:
            call()
        now: dict[Any, tuple[float, ...]] = {}
        for number, x in enumerate(launches):
            key = x.name if by_name else (number, x.name)
            before = now.get(key, (0.0, 0.0, 0.0, 0.0))
            now[key] = tuple(a + b for a, b in zip(before, (x.seconds, 1, x.nbytes, x.elements), strict=True))
        best = {key: min(found, best.get(key, found)) for key, found in now.items()}
    total = sum(found[0] for found in best.values())
    print("| launches | times | ms | share | GB/s | GFLOP/s |\n|---|---|---|---|---|---|")
    for key, (seconds, times, nbytes, elements) in sorted(best.items(), key=lambda item: -item[1][0])[:most]:
        name, passed = key if by_name else key[1], max(seconds, 1e-9)
        print(
            f"| {name} | {times:.0f} | {seconds * 1e3:.3f} | {seconds / total:.1%} | {nbytes / passed / 1e9:.1f} "
            f"| {2 * elements / passed / 1e9:.0f} |"
        )
    print(f"\nall launches {total * 1e3:.2f} ms")


class Table:
    """A Markdown table, printed row by row; ``ours`` and ``theirs`` name the sides."""

    def __init__(self, title: str, theirs: str, options: Options, unit: str = "ms") -> None:
        self.options = options
        self.unit = unit
        self.scale = {"s": 1.0, "ms": 1e3, "us": 1e6}[unit]
        self.failed = 0
        shown = "µs" if unit == "us" else unit
        print(
            f"### {title}\n\n{shown} per run: median (quartiles); "
            f"ratio: median over pairs of runs (quartiles), {theirs} / metafuse\n"
        )
        print(f"| case | metafuse | {theirs} | ratio | of best runs | target | kernels |")
        print("|---|---|---|---|---|---|---|", flush=True)

    def row(
        self,
        case: str,
        ours: Callable[[], Any],
        theirs: Callable[[], Any],
        *,
        target: float | None = None,
        problem: str = "",
        names: Sequence[str] | None = None,
        most: int | None = None,
        repeat: int = 1,
    ) -> float:
        """Measure one case; answers the ratio (0 where results disagree). ``problem``: what ``agree`` answered.

        ``names`` are the kernels launched, of which there may be ``most``."""
        shown = "" if names is None else str(len(names))
        if names is not None and most is not None and len(names) > most:
            self.failed += 1
            shown += f", **at most {most}**"
        if problem:
            self.failed += 1
            print(f"| {case} | | | **results differ: {problem}** | | | {shown} |", flush=True)
            return 0.0
        taken = interleave(
            {"ours": ours, "theirs": theirs}, self.options.runs, self.options.seconds, repeat=repeat
        )
        mine, other = taken["ours"], taken["theirs"]
        pairs = Sample([b / a for a, b in zip(mine.seconds, other.seconds, strict=True)])
        low, high = pairs.quartiles
        verdict = ""
        if target is not None:
            met = pairs.median >= target
            self.failed += not met
            verdict = f"{target:g} {'met' if met else '**missed**'}"
        print(
            f"| {case} | {self.time(mine)} | {self.time(other)} | {pairs.median:.2f} ({low:.2f}-{high:.2f}) "
            f"| {other.best / mine.best:.2f} | {verdict} | {shown} |",
            flush=True,
        )
        return pairs.median

    def time(self, sample: Sample) -> str:
        """Median and quartiles in the table's unit."""
        low, high = (x * self.scale for x in sample.quartiles)
        return f"{sample.median * self.scale:.4g} ({low:.4g}-{high:.4g})"


# -- machine ------------------------------------------------------------------------------------------------------
def machine(options: Options) -> str:
    """One line: processor, usable cores, threads, versions."""
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        lines = [
            line.split(":", 1)[1].strip()
            for line in info.read_text().splitlines()
            if line.startswith("model name")
        ]
        model = lines[0] if lines else model
    versions = [f"Python {platform.python_version()}"]
    for name in ("numpy", "torch"):
        try:
            versions.append(f"{name} {__import__(name).__version__}")
        except ImportError:
            pass
    if "metafuse" in sys.modules and sys.modules["metafuse.hot"].compiled is None:
        versions.append("metafuse without its compiled paths")
    return f"{model}, {usable_cores()} cores, {options.threads} threads; {', '.join(versions)}"
