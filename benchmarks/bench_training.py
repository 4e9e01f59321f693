"""Training steps (forward, backward, SGD with momentum) of networks that people train, against PyTorch eager and compiled.

    python benchmarks/bench_training.py [--cases resnet18,resnet50,mnist,transformer] [--peers eager,compile] [--profile]
    [--plain]

Both sides start from the same weights; losses of the first steps must agree. metafuse runs with ``metafuse.compile``;
``--plain`` runs the loop as it is written. Peak memory is what the step adds to the process, measured in processes of their own.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable
from typing import Any

import harness

OPTIONS = harness.start(
    __doc__ or "",
    runs=9,
    seconds=60,
    cases={"default": "mnist,transformer,resnet18,resnet50", "help": "what to train, separated by commas"},
    peers={"default": "eager,compile", "help": "ways to run PyTorch"},
    batch_size={"type": int, "default": 0, "help": "images per step; 0: 64 for digits, 8 sequences, else 16"},
    plain={"action": "store_true", "help": "metafuse without metafuse.compile"},
    profile={"action": "store_true", "help": "time per launch of metafuse"},
    memory={"default": "", "help": "print the peak memory of one side (metafuse or eager) and stop"},
)

import numpy as np  # noqa: E402
import torch  # noqa: E402

import metafuse as mf  # noqa: E402
import peers  # noqa: E402
from metafuse import nn  # noqa: E402

WIDTH, HEADS, LENGTH, LAYERS = 256, 8, 128, 6


class EncoderLayer(nn.Module):
    """A transformer's encoder layer, normalised after each part, with GELU (Vaswani et al. 2017)."""

    def __init__(self) -> None:
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH)
        self.out = nn.Linear(WIDTH, WIDTH)
        self.up = nn.Linear(WIDTH, 4 * WIDTH)
        self.down = nn.Linear(4 * WIDTH, WIDTH)
        self.norm1 = nn.LayerNorm(WIDTH)
        self.norm2 = nn.LayerNorm(WIDTH)

    def execute(self, x: Any) -> Any:
        batch = x.shape[0]
        parts = self.qkv(x).reshape([batch, LENGTH, 3, HEADS, WIDTH // HEADS])
        q, k, v = (parts[:, :, i].transpose(0, 2, 1, 3) for i in range(3))
        weights = nn.softmax(q @ k.transpose(0, 1, 3, 2) * (WIDTH // HEADS) ** -0.5, dim=-1)
        mixed = (weights @ v).transpose(0, 2, 1, 3).reshape([batch, LENGTH, WIDTH])
        x = self.norm1(x + self.out(mixed))
        return self.norm2(x + self.down(nn.gelu(self.up(x))))


class Encoder(nn.Module):
    """Six layers and a linear head on the mean over the sequence."""

    def __init__(self) -> None:
        self.layers = nn.Sequential(*(EncoderLayer() for _ in range(LAYERS)))
        self.head = nn.Linear(WIDTH, 10)

    def execute(self, x: Any) -> Any:
        return self.head(self.layers(x).mean(1))


class TorchEncoder(torch.nn.Module):
    """The same from PyTorch's own layers."""

    def __init__(self) -> None:
        super().__init__()
        layer = torch.nn.TransformerEncoderLayer(
            WIDTH, HEADS, 4 * WIDTH, dropout=0.0, activation="gelu", batch_first=True
        )
        self.layers = torch.nn.TransformerEncoder(layer, LAYERS, enable_nested_tensor=False)
        self.head = torch.nn.Linear(WIDTH, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.layers(x).mean(1))  # type: ignore[no-any-return]


def transformer() -> tuple[Any, Any]:
    ours, theirs = Encoder(), TorchEncoder()
    names = {
        "self_attn.in_proj_": "qkv.",
        "self_attn.out_proj.": "out.",
        "linear1.": "up.",
        "linear2.": "down.",
    }
    own = ours.state_dict()
    for key, value in theirs.state_dict().items():
        key = key.replace("layers.layers.", "layers.")
        for old, new in names.items():
            key = key.replace(old, new)
        own[key].update(value.numpy()).start_grad()
    return ours, theirs


def digits() -> tuple[Any, Any]:
    ours, theirs = peers.example().Model(), peers.digits()
    trained = [p for p in ours.parameters() if p.requires_grad]
    for mine, other in zip(trained, theirs.parameters(), strict=True):
        mine.update(other.detach().numpy().reshape(mine.shape)).start_grad()
    return ours, theirs


def torchvision(name: str) -> tuple[Any, Any]:
    import metafuse_models

    ours = getattr(metafuse_models, name)()
    theirs = peers.network(name)
    peers.copy_weights(theirs, {k: v.numpy() for k, v in ours.state_dict().items()})
    return ours, theirs


def data(case: str) -> tuple[Any, Any]:
    random = np.random.default_rng(0)
    batch = OPTIONS.extra.batch_size or {"mnist": 64, "transformer": 8}.get(case, 16)
    shape = {"mnist": (1, 28, 28), "transformer": (LENGTH, WIDTH)}.get(case, (3, 224, 224))
    classes = 10 if case in ("mnist", "transformer") else 1000
    images = random.standard_normal((batch, *shape), dtype=np.float32)
    return images, random.integers(0, classes, batch).astype(np.int32)


def build(case: str) -> tuple[Any, Any]:
    mf.set_global_seed(1)
    torch.manual_seed(1)
    ours, theirs = {"mnist": digits, "transformer": transformer}.get(case, lambda: torchvision(case))()
    ours.train()
    theirs.train()
    return ours, theirs


def our_step(model: Any, images: Any, labels: Any) -> Callable[[], float]:
    optimizer = nn.SGD(model.parameters(), 0.01, 0.9, 1e-4)

    def step(x: Any, y: Any) -> Any:
        loss = nn.cross_entropy_loss(model(x), y)
        optimizer.step(loss)
        return loss

    run = step if OPTIONS.extra.plain else mf.compile(step)
    return lambda: float(run(mf.array(images), mf.array(labels)).item())


def torch_step(way: str, model: Any, images: Any, labels: Any) -> Callable[[], float]:
    import copy

    model = copy.deepcopy(model)
    optimizer = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9, weight_decay=1e-4)
    x, y = torch.from_numpy(images), torch.from_numpy(labels.astype(np.int64))
    if way == "channels_last":
        model, x = model.to(memory_format=torch.channels_last), x.to(memory_format=torch.channels_last)
    forward = model
    if way == "compile":
        torch._dynamo.reset()
        forward = torch.compile(model, dynamic=False)

    def step() -> float:
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(forward(x), y)
        loss.backward()
        optimizer.step()
        return float(loss.detach())

    return step


def peak(side: str, case: str) -> None:
    """MiB that three steps add to the peak of this process."""
    import resource

    ours, theirs = build(case)
    images, labels = data(case)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    step = our_step(ours, images, labels) if side == "metafuse" else torch_step(side, theirs, images, labels)
    for _ in range(3):
        step()
    print(f"{case}: {side} {(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024:.0f} MiB")


def main() -> int:
    cases = OPTIONS.extra.cases.split(",")
    if OPTIONS.extra.memory:
        for case in cases:
            peak(OPTIONS.extra.memory, case)
        return 0
    print(f"{harness.machine(OPTIONS)}; float32\n")
    if OPTIONS.extra.profile:
        OPTIONS.extra.plain = True
        for case in cases:
            print(f"\n### {case}\n")
            harness.profile(our_step(build(case)[0], *data(case)), by_name=True, runs=3)
        return 0
    ways = [w for w in OPTIONS.extra.peers.split(",") if w]
    print(
        "### Training steps\n\nms per step: median (quartiles); in brackets after a peer: its time / ours\n"
    )
    head = ["case", "metafuse", *(f"PyTorch {w}" for w in ways), "first step"]
    print(f"| {' | '.join(head)} |\n|{'---|' * len(head)}", flush=True)
    failed = 0
    for case in cases:
        failed += not row(case, ways)
    return int(failed > 0)


def row(case: str, ways: list[str]) -> bool:
    ours, theirs = build(case)
    images, labels = data(case)
    sides = {way: torch_step(way, theirs, images, labels) for way in ways}
    sides["ours"] = our_step(ours, images, labels)
    begin = time.perf_counter()
    losses = {"ours": [sides["ours"]()]}
    first = time.perf_counter() - begin
    losses["ours"] += [sides["ours"](), sides["ours"]()]
    for way in ways:
        losses[way] = [sides[way]() for _ in range(3)]
        if not all(
            math.isclose(a, b, rel_tol=2e-2, abs_tol=1e-3)
            for a, b in zip(losses["ours"], losses[way], strict=True)
        ):
            print(f"| {case} | **losses differ: {losses['ours']} and {losses[way]} ({way})** |")
            return False
    taken = harness.interleave(sides, OPTIONS.runs, OPTIONS.seconds)
    mine = taken.pop("ours")
    low, high = (q * 1e3 for q in mine.quartiles)
    cells = " | ".join(f"{s.median * 1e3:.4g} ({s.median / mine.median:.2f})" for s in taken.values())
    print(
        f"| {case} | {mine.median * 1e3:.4g} ({low:.4g}-{high:.4g}) | {cells} | {first:.2f} s |", flush=True
    )
    return True


if __name__ == "__main__":
    sys.exit(main())
