"""Forward passes of well-known networks, against every way of running them with PyTorch.

    python benchmarks/bench_models.py [--models resnet50,vgg16] [--batches 1,8,16] [--peers eager,compile] [--math bfloat16]
    [--plot FILE]

Both sides have the same weights and images; a ratio is printed only where the outputs agree. ``--group all`` adds the
networks that are measured together only. ``--profile`` prints the time of every launch of metafuse instead.
"""

from __future__ import annotations

import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

import harness

FIRST = "alexnet,vgg16,resnet50,wide_resnet50_2,squeezenet1_1"
SECOND = "mobilenet_v2,shufflenet_v2_x1_0,mnasnet1_0,googlenet,inception_v3,resnext101_32x8d,densenet121"
OPTIONS = harness.start(
    __doc__ or "",
    runs=9,
    seconds=25,
    models={"default": "", "help": "networks, separated by commas"},
    group={
        "default": "first",
        "choices": ("first", "second", "all"),
        "help": "which networks, unless --models",
    },
    batches={"default": "1,8,16", "help": "batch sizes"},
    peers={"default": "eager,channels_last,compile", "help": "ways to run PyTorch"},
    math={"default": "float32", "choices": ("float32", "bfloat16"), "help": "of both sides"},
    plain={"action": "store_true", "help": "metafuse without metafuse.compile"},
    plot={"default": "", "help": "write a bar chart to this file (needs matplotlib)"},
    profile={"action": "store_true", "help": "time per launch of metafuse"},
    cold={
        "action": "store_true",
        "help": "seconds of the first forward pass in new processes, without and with a cache",
    },
)

import numpy as np  # noqa: E402
import torch  # noqa: E402
import torch.utils.mkldnn  # noqa: E402

import metafuse as mf  # noqa: E402
import metafuse_models  # noqa: E402
import peers  # noqa: E402
from metafuse.debug import record_launches  # noqa: E402


def chosen() -> list[str]:
    groups = {"first": FIRST, "second": SECOND, "all": f"{FIRST},{SECOND}"}
    return str(OPTIONS.extra.models or groups[OPTIONS.extra.group]).split(",")


def images(name: str, batch: int) -> Any:
    side = 299 if name == "inception_v3" else 224
    return np.random.default_rng(batch).standard_normal((batch, 3, side, side), dtype=np.float32)


def build(name: str) -> tuple[Any, Any]:
    """Our network and PyTorch's with the same weights, for inference; running statistics are away from their start."""
    mf.set_global_seed(1)
    ours = getattr(metafuse_models, name)()
    ours.eval()
    random = np.random.default_rng(0)
    for key, value in ours.state_dict().items():
        if key.endswith("running_mean"):
            value.update(random.uniform(-0.1, 0.1, value.shape).astype(np.float32))
        elif key.endswith("running_var"):
            value.update(random.uniform(0.5, 1.5, value.shape).astype(np.float32))
    theirs = peers.network(name).eval()
    peers.copy_weights(theirs, {k: v.numpy() for k, v in ours.state_dict().items()})
    return ours, theirs


def runner(model: Any, x: Any) -> Callable[[], Any]:
    image = mf.array(x).sync()
    forward = model if OPTIONS.extra.plain else mf.compile(lambda x: model(x))

    def run() -> Any:
        with mf.no_grad(), mf.flag_scope(math=OPTIONS.extra.math):
            return forward(image).sync()

    return run


def matmul_peak(size: int = 2048) -> float:
    """GFLOP/s of the fastest float32 matrix product seen here: PyTorch's, its oneDNN's with packed weights, or ours."""
    a = torch.rand(size, size)
    packed = torch.utils.mkldnn.to_mkldnn(torch.nn.Linear(size, size, bias=False).eval())
    ours, weight = mf.array(a.numpy()).sync(), mf.array(a.numpy()).sync()
    product = mf.compile(lambda x: x @ weight)
    blocked = a.to_mkldnn()
    best = math.inf
    with torch.no_grad(), mf.no_grad():
        for call in (lambda: a @ a, lambda: packed(blocked), lambda: product(ours).sync()):
            for _ in range(12):
                begin = time.perf_counter()
                call()
                best = min(best, time.perf_counter() - begin)
    return 2 * size**3 / best / 1e9


def gigaflops(run: Callable[[], Any]) -> float:
    """Arithmetic of convolutions and products of a run, in 10^9 operations (a multiplication and an addition are two)."""
    run()
    with record_launches() as launches:
        run()
    return sum(2 * x.elements for x in launches if x.name.startswith("library ")) / 1e9


#: what a new process does: seconds from the network's creation to the first result
FIRST_PASS = """
import sys, time
import numpy as np
import metafuse as mf, metafuse_models
x = np.zeros((int(sys.argv[2]), 3, 224, 224), np.float32)
begin = time.perf_counter()
model = getattr(metafuse_models, sys.argv[1])()
model.eval()
with mf.no_grad():
    model(mf.array(x)).sync()
print(time.perf_counter() - begin)
"""


def cold(name: str, batch: int, times: int = 3) -> None:
    """Print a row: the first forward pass with an empty cache of kernels, and in processes that find one."""
    fresh, cached = [], []
    for _ in range(times):
        with tempfile.TemporaryDirectory() as folder:
            environment = dict(os.environ, METAFUSE_CACHE_DIR=folder)
            for taken in (fresh, cached):
                command = [sys.executable, "-c", FIRST_PASS, name, str(batch)]
                done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
                taken.append(float(done.stdout.split()[-1]))
    low, high = harness.Sample(fresh), harness.Sample(cached)
    print(
        f"| {name} | {batch} | {low.median:.2f} ({low.best:.2f}) | {high.median:.2f} ({high.best:.2f}) |",
        flush=True,
    )


def mean(values: list[float]) -> float:
    """Geometric mean."""
    return math.exp(sum(map(math.log, values)) / len(values)) if values else 0.0


def measure(
    name: str, batch: int, model: tuple[Any, Any], ways: list[str], peak: float
) -> dict[str, float] | None:
    """Print a row; ratios by peer, or ``None`` where outputs differ. ``peak``: GFLOP/s of a matrix product."""
    ours, theirs = model
    x = images(name, batch)
    run = runner(ours, x)
    first = time.perf_counter()
    answer = run().numpy()
    first = time.perf_counter() - first
    sides: dict[str, Callable[[], Any]] = {"ours": run}
    low = OPTIONS.extra.math == "bfloat16"
    scale = float(np.abs(answer).max())
    for way in ways:
        call = peers.inference(way, theirs, torch.from_numpy(x))
        if low:
            plain = call
            call = lambda plain=plain: _autocast(plain)
        tolerance = 0.1 if low else 1e-3
        problem = harness.agree(answer, call().float(), tolerance, tolerance * scale)
        if problem:
            print(f"| {name} | {batch} | **results differ from {way}: {problem}** |")
            return None
        sides[way] = call
    taken = harness.interleave(sides, OPTIONS.runs, OPTIONS.seconds)
    mine = taken.pop("ours")
    ratios = {way: s.median / mine.median for way, s in taken.items()}
    low_q, high_q = (q * 1e3 for q in mine.quartiles)
    cells = " | ".join(f"{s.median * 1e3:.4g} ({ratios[w]:.2f})" for w, s in taken.items())
    best = min(ratios.values(), default=0.0)
    share = gigaflops(run) / mine.median / peak
    print(
        f"| {name} | {batch} | {mine.median * 1e3:.4g} ({low_q:.4g}-{high_q:.4g}) | {cells} | {best:.2f} | {share:.2f} "
        f"| {first:.2f} s |",
        flush=True,
    )
    return ratios


def _autocast(call: Callable[[], torch.Tensor]) -> torch.Tensor:
    with torch.autocast("cpu", torch.bfloat16):
        return call()


def draw(path: str, rows: dict[str, dict[str, float]]) -> None:
    """Ratios by network and batch size as bars."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(10, 0.35 * len(rows) + 1.5))
    ways = list(next(iter(rows.values())))
    for k, way in enumerate(ways):
        places = [n + 0.8 * k / len(ways) for n in range(len(rows))]
        axes.barh(places, [r[way] for r in rows.values()], 0.8 / len(ways), label=f"PyTorch {way}")
    axes.axvline(1.0, color="black", linewidth=0.8)
    axes.set_yticks(range(len(rows)), list(rows))
    axes.set_xlabel("times as fast as the peer")
    axes.legend()
    figure.tight_layout()
    figure.savefig(path)


def main() -> int:
    ways = [w for w in OPTIONS.extra.peers.split(",") if w]
    batches = [int(b) for b in OPTIONS.extra.batches.split(",")]
    peak = matmul_peak()
    print(f"{harness.machine(OPTIONS)}; {OPTIONS.extra.math}; float32 matmul peak {peak:.0f} GFLOP/s\n")
    if OPTIONS.extra.profile:
        for name in chosen():
            for batch in batches:
                print(f"\n### {name}, batch {batch}\n")
                harness.profile(runner(build(name)[0], images(name, batch)))
        return 0
    if OPTIONS.extra.cold:
        print("| network | batch | empty cache, s: median (best) | new process, s |\n|---|---|---|---|")
        for name in chosen():
            for batch in batches:
                cold(name, batch)
        return 0
    print("### Forward passes\n\nms per run: median (quartiles); in brackets after a peer: its time / ours\n")
    head = [
        "network",
        "batch",
        "metafuse",
        *(f"PyTorch {w}" for w in ways),
        "best peer / ours",
        "share of peak",
        "first run",
    ]
    print(f"| {' | '.join(head)} |\n|{'---|' * len(head)}", flush=True)
    rows: dict[str, dict[str, float]] = {}
    failed = 0
    for name in chosen():
        model = build(name)
        for batch in batches:
            found = measure(name, batch, model, ways, peak)
            failed += found is None
            if found:
                rows[f"{name} {batch}"] = found
    for group, text in (("first", FIRST), ("second", SECOND)):
        mine = [r for key, r in rows.items() if key.split()[0] in text.split(",")]
        if mine:
            parts = [f"{mean([r[w] for r in mine]):.2f} {w}" for w in ways]
            print(f"\ngeometric mean of the {group} group: {', '.join(parts)}, "
                  f"{mean([min(r.values()) for r in mine]):.2f} best peer")  # fmt: skip
    if OPTIONS.extra.plot and rows:
        draw(OPTIONS.extra.plot, rows)
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
