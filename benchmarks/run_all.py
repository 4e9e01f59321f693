"""Run every benchmark and write their tables to ``docs/benchmarks.md``.

    python benchmarks/run_all.py [--only NAME ...] [--threads N] [--print]

Each script runs in a process of its own, one after another, on a machine that should do nothing else. ``--only`` measures
some again and keeps what the page says about the others. Exit code 1 if a benchmark failed or missed a target; the page
is written all the same.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import time
from pathlib import Path

import harness

HERE = Path(__file__).parent
PAGE = HERE.parent / "docs" / "benchmarks.md"
#: in the order of the page; what the scripts are called with, once per command
RUNS: dict[str, tuple[str, ...]] = {
    "bench_models": (
        "--batches 1,8,16 --runs 5 --seconds 5 --peers eager,compile",
        "--group second --batches 1,16 --runs 4 --seconds 4 --peers eager,compile",
    ),
    "bench_training": ("--runs 5 --seconds 10 --cases mnist,transformer,resnet18,resnet50",),
    "bench_small_net": ("",),
    "bench_library": ("--runs 10 --seconds 4",),
    "bench_by_hand": ("",),
    "bench_allreduce": ("",),
    "bench_data_parallel": ("--turns 2 --steps 4",),
    "bench_elementwise": ("",),
    "bench_reduce": ("--runs 61 --seconds 8",),
    "bench_norms": ("--runs 41 --seconds 5",),
    "bench_layers": ("",),
    "bench_operators": ("",),
    "bench_optimizer": ("",),
    "bench_knn": ("",),
    "bench_dispatch": ("",),
    "bench_compile": ("",),
    "bench_import": ("",),
    "bench_longrun": ("",),
}
#: these say themselves how many threads or processes they take
NO_THREADS = ("bench_allreduce", "bench_data_parallel", "bench_import")
HEAD = """# Benchmarks

Written by `benchmarks/run_all.py`; [benchmarks/README.md](../benchmarks/README.md) says what each script does and how it is
measured. Ratios above 1 mean that metafuse is faster. Targets are the project's own; a missed one is marked.
"""


def title(name: str) -> str:
    """The first line of a script's docstring."""
    text = (HERE / f"{name}.py").read_text(encoding="utf-8")
    return text.split('"""')[1].split("\n")[0].rstrip(".")


def sections(page: str) -> dict[str, str]:
    """What the page says now, by script."""
    parts = re.split(r"^<!-- (bench_\w+) -->\n", page, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def command(name: str, arguments: str) -> str:
    """What one types to measure this again."""
    return f"python benchmarks/{name}.py {arguments}".rstrip()


def run(name: str, threads: int) -> tuple[str, int]:
    """The section of one script and its exit code, the worst where it runs several times."""
    text, worst = f"## {title(name)}\n\n", 0
    for arguments in RUNS[name]:
        words = [sys.executable, str(HERE / f"{name}.py"), *arguments.split()]
        words += [] if name in NO_THREADS else ["--threads", str(threads)]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        body = done.stdout.strip()
        if done.returncode and not body:
            body = "**failed:** " + (done.stderr.strip().splitlines() or ["no message"])[-1]
        text += f"`{command(name, arguments)}`\n\n{body}\n\n"
        worst = max(worst, abs(done.returncode))
    return text, worst


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--only", nargs="+", default=[], help="scripts to run, such as bench_norms")
    parser.add_argument("--threads", type=int, default=min(2, harness.usable_cores()))
    parser.add_argument("--print", action="store_true", help="print the page instead of writing it")
    options = parser.parse_args()
    unknown = [name for name in options.only if name not in RUNS]
    if unknown:
        parser.error(f"no benchmark {', '.join(unknown)}; there are {', '.join(RUNS)}")
    found = sections(PAGE.read_text(encoding="utf-8")) if PAGE.exists() and options.only else {}
    failed = 0
    for name in options.only or RUNS:
        begin = time.perf_counter()
        found[name], code = run(name, options.threads)
        failed += code != 0
        print(
            f"{name}: {time.perf_counter() - begin:.0f} s{'' if code == 0 else ', MISSED'}",
            file=sys.stderr,
            flush=True,
        )
    page = HEAD + "\n" + "".join(f"<!-- {name} -->\n{found[name]}" for name in RUNS if name in found)
    page = page.rstrip("\n") + "\n"
    if options.print:
        print(page)
    else:
        PAGE.write_text(page, encoding="utf-8")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
