"""How long ``import metafuse`` takes beyond ``import numpy``, in fresh processes.

``python benchmarks/bench_import.py [repetitions]`` prints a Markdown table and answers exit code 1 where the target
is missed. The two imports take turns, so that a machine that gets slower meanwhile hurts both alike.
"""

from __future__ import annotations

import statistics
import subprocess
import sys

TARGET = 0.15
CODE = "import time; start = time.perf_counter(); import {module}; print(time.perf_counter() - start)"


def seconds(module: str) -> float:
    done = subprocess.run(
        [sys.executable, "-c", CODE.format(module=module)], capture_output=True, text=True, check=True
    )
    return float(done.stdout)


def main() -> int:
    repetitions = int(sys.argv[1]) if len(sys.argv) > 1 else 15
    times: dict[str, list[float]] = {"numpy": [], "metafuse": []}
    for module in times:  # fills the disk cache and writes byte code
        seconds(module)
    for _ in range(repetitions):
        for module, measured in times.items():
            measured.append(seconds(module))
    print(f"Python {sys.version.split()[0]}, {repetitions} fresh processes each, seconds\n")
    print("| import | median | min | max |\n|---|---|---|---|")
    for module, measured in times.items():
        print(f"| {module} | {statistics.median(measured):.3f} | {min(measured):.3f} | {max(measured):.3f} |")
    beyond = statistics.median(times["metafuse"]) - statistics.median(times["numpy"])
    print(f"| metafuse beyond numpy | {beyond:.3f} | | |\n\ntarget: at most {TARGET} s beyond numpy")
    return int(beyond > TARGET)


if __name__ == "__main__":
    sys.exit(main())
