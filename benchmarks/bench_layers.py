"""Every layer, forward alone and forward with backward, against PyTorch eager.

    python benchmarks/bench_layers.py [--only NAME[;NAME]] [--quick] [--profile]

A case is a text, such as ``Conv2d(64, 64, 3, padding=1)``, that both frameworks evaluate among their own layers and
functions, and the arrays it is called with. Both sides have the same weights; values and all gradients must agree, else
there is no ratio. No case may be slower than half of PyTorch's speed, and the geometric mean must be at least 1; what is
below 1 is listed at the end, slowest first. Layers that are views on both sides (``Flatten``) are left out. ``--profile``
prints the launches of the chosen cases instead.
"""

from __future__ import annotations

import math
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import harness

OPTIONS = harness.start(
    __doc__ or "",
    runs=5,
    seconds=1.0,
    only={
        "default": "",
        "help": "groups, or cases whose name holds one of these texts, separated by semicolons",
    },
    quick={"action": "store_true", "help": "the first case of each group of layers"},
    profile={"action": "store_true", "help": "time per launch of metafuse"},
)

import numpy as np  # noqa: E402
import torch  # noqa: E402

import metafuse as mf  # noqa: E402

LEAST, MEAN = 0.5, 1.0
RANDOM = np.random.default_rng(0)
OURS = {**vars(mf.nn), "MultiheadAttention": mf.attention.MultiheadAttention}
THEIRS = {**vars(torch.nn.functional), **vars(torch.nn)}


# -- arrays -------------------------------------------------------------------------------------------------------
@dataclass
class Input:
    """An array that a layer is called with; ``gradient``: it is differentiated."""

    make: Callable[[], np.ndarray[Any, Any]]
    gradient: bool = False


def X(*shape: int) -> Input:
    """Normal numbers, differentiated."""
    return Input(lambda: RANDOM.standard_normal(shape).astype(np.float32), True)


def U(*shape: int, low: float = 0.05, high: float = 0.95, gradient: bool = True) -> Input:
    return Input(lambda: RANDOM.uniform(low, high, shape).astype(np.float32), gradient)


def fixed(*shape: int) -> Input:
    """Numbers from 0 to 1 that are not differentiated."""
    return U(*shape, gradient=False)


def below(end: int, *shape: int, first: int = 0) -> Input:
    return Input(lambda: RANDOM.integers(first, end, shape))


def signs(*shape: int) -> Input:
    return Input(lambda: RANDOM.integers(0, 2, shape) * 2 - 1)


def whole(value: int, *shape: int) -> Input:
    return Input(lambda: np.full(shape, value))


def chances(*shape: int) -> Input:
    """Logarithms of probabilities over the last dimension."""

    def make() -> np.ndarray[Any, Any]:
        x = RANDOM.standard_normal(shape)
        return np.asarray(x - np.log(np.exp(x).sum(-1, keepdims=True)), np.float32)

    return Input(make, True)


def places(batch: int, channels: int, height: int, width: int) -> Input:
    """Where the maxima of 2 x 2 windows were."""

    def make() -> np.ndarray[Any, Any]:
        y, x = np.ogrid[:height, :width]
        down, right = RANDOM.integers(0, 2, (2, batch, channels, height, width))
        return np.asarray((2 * y + down) * 2 * width + 2 * x + right)

    return Input(make)


# -- cases --------------------------------------------------------------------------------------------------------
@dataclass
class Case:
    text: str
    inputs: tuple[Input, ...]
    #: results are random: only the share of zeros is compared
    random: bool = False
    name: str = field(init=False)

    def __post_init__(self) -> None:
        self.name = self.text.split(": ", 1)[-1] if self.text.startswith("lambda") else self.text


def cases(inputs: Input | tuple[Input, ...], *texts: str) -> list[Case]:
    """Layers that take equal arrays."""
    several = inputs if isinstance(inputs, tuple) else (inputs,)
    return [Case(text, several) for text in texts]


IMAGE = X(16, 64, 56, 56)
GROUPS: dict[str, list[Case]] = {
    "convolution": [
        *cases(X(32, 128, 256), "Conv1d(128, 128, 3, padding=1)"),
        *cases(X(16, 64, 56, 56), "Conv2d(64, 64, 3, padding=1)", "Conv2d(64, 256, 1)", "Conv2d(64, 128, 3, 2, 1)"),
        *cases(X(16, 128, 28, 28), "Conv2d(128, 128, 3, padding=2, dilation=2)", "Conv2d(128, 128, 3, padding=1, groups=32)",
               "Conv2d(128, 128, 3, padding=1, groups=128)"),
        *cases(X(4, 32, 16, 28, 28), "Conv3d(32, 32, 3, padding=1)"),
        *cases(X(16, 128, 128), "ConvTranspose1d(128, 64, 4, 2, 1)"),
        *cases(X(16, 128, 28, 28), "ConvTranspose2d(128, 64, 4, 2, 1)", "ConvTranspose2d(128, 64, 3, 2, 1, 1)"),
        *cases(X(4, 32, 8, 14, 14), "ConvTranspose3d(32, 32, 4, 2, 1)"),
    ],
    "pooling": [
        *cases(X(32, 64, 1024), "MaxPool1d(3, 2, 1)", "AvgPool1d(3, 2, 1)", "AdaptiveAvgPool1d(100)", "AdaptiveMaxPool1d(100)"),
        *cases(IMAGE, "MaxPool2d(2)", "MaxPool2d(3, 2, 1)", "AvgPool2d(2)", "AvgPool2d(3, 2, 1)", "AdaptiveAvgPool2d(7)",
               "AdaptiveAvgPool2d(1)", "AdaptiveAvgPool2d((6, 5))", "AdaptiveMaxPool2d(7)", "AdaptiveMaxPool2d((6, 5))"),
        *cases(X(4, 32, 16, 56, 56), "MaxPool3d(2)", "AvgPool3d(2)", "AdaptiveAvgPool3d((4, 7, 7))",
               "AdaptiveMaxPool3d((4, 7, 7))"),
        *cases((X(16, 64, 28, 28), places(16, 64, 28, 28)), "MaxUnpool2d(2)"),
    ],
    "normalisation": [
        *cases(X(32, 128, 1024), "BatchNorm1d(128)"),
        *cases(IMAGE, "BatchNorm2d(64)", "InstanceNorm2d(64, affine=True)", "GroupNorm(32, 64)"),
        *cases(X(4, 32, 16, 28, 28), "BatchNorm3d(32)"),
        *cases(X(32, 128, 512), "LayerNorm(512)"),
    ],
    "recurrent": [
        *cases(X(32, 32, 256), "RNN(256, 256)", "LSTM(256, 256)", "GRU(256, 256)", "LSTM(256, 128, 2, bidirectional=True)"),
        *cases((X(128, 256), X(128, 256)), "RNNCell(256, 256)", "GRUCell(256, 256)"),
        *cases((X(128, 256), X(128, 256), X(128, 256)), "lambda layer=LSTMCell(256, 256): lambda x, h, c: layer(x, (h, c))"),
    ],
    "dense": [
        *cases(X(256, 1024), "Linear(1024, 1024)"),
        *cases(X(32, 128, 512), "Linear(512, 512)"),
        *cases((X(128, 64), X(128, 96)), "Bilinear(64, 96, 64)"),
        *cases(below(10000, 32, 128), "Embedding(10000, 256)"),
        *cases(X(8, 128, 512), "lambda layer=MultiheadAttention(512, 8, batch_first=True): lambda x: layer(x, x, x)",
               "lambda layer=MultiheadAttention(512, 8, batch_first=True): lambda x: layer(x, x, x, need_weights=False)"),
        *cases((X(8, 8, 256, 64),) * 3, "lambda: lambda q, k, v: scaled_dot_product_attention(q, k, v)",
               "lambda: lambda q, k, v: scaled_dot_product_attention(q, k, v, is_causal=True)"),
    ],
    "resizing": [
        *cases(X(16, 64, 28, 28), "Upsample(scale_factor=2)", "Upsample(scale_factor=2, mode='bilinear')",
               "UpsamplingBilinear2d(scale_factor=2)",
               *(f"lambda: lambda x: interpolate(x, (41, 50), mode={m!r})" for m in ("nearest", "bilinear", "bicubic", "area")),
               "lambda: lambda x: interpolate(x, (56, 56), mode='bicubic')"),
        *cases(X(16, 64, 512), "lambda: lambda x: interpolate(x, 1000, mode='linear')"),
        *cases(X(2, 32, 8, 28, 28), "lambda: lambda x: interpolate(x, (16, 56, 56), mode='trilinear')"),
        *cases((X(16, 32, 56, 56), U(16, 56, 56, 2, low=-1.1, high=1.1)),
               *(f"lambda: lambda x, g: grid_sample(x, g, {m!r}, {p!r}, False)" for m, p in (
                   ("bilinear", "zeros"), ("bilinear", "border"), ("bilinear", "reflection"), ("nearest", "zeros")))),
        *cases((X(2, 16, 16, 28, 28), U(2, 16, 28, 28, 3, low=-1.1, high=1.1)),
               "lambda: lambda x, g: grid_sample(x, g, 'bilinear', 'zeros', False)"),
        *cases(X(32, 2, 3), "lambda: lambda t: affine_grid(t, (32, 3, 128, 128), False)"),
    ],
    "reshaping": [
        *cases(IMAGE, "ZeroPad2d(2)", "ConstantPad2d(2, 1.5)", "ReflectionPad2d(2)", "ReplicationPad2d(2)", "PixelShuffle(2)",
               "PixelUnshuffle(2)", "ChannelShuffle(4)"),
        *cases(X(32, 64, 1024), "ReflectionPad1d(3)", "ReplicationPad1d(3)"),
        *cases(X(4, 32, 16, 56, 56), "ConstantPad3d(1, 0.0)", "ReplicationPad3d(1)"),
        *cases(X(16, 64, 28, 28), "Unfold(3, 1, 1)"),
        *cases(X(16, 64 * 9, 28 * 28), "Fold((28, 28), 3, 1, 1)"),
    ],
    "activation": [
        *cases(IMAGE, "ReLU()", "ReLU6()", "LeakyReLU(0.1)", "PReLU(64)", "ELU()", "SELU()", "CELU(0.7)", "GELU()", "SiLU()",
               "Mish()", "Sigmoid()", "Tanh()", "Softplus()", "Softsign()", "Tanhshrink()", "Softshrink(0.3)", "Hardshrink(0.3)",
               "Hardtanh()", "Hardsigmoid()", "Hardswish()", "Threshold(0.2, -3)", "LogSigmoid()", "GLU(1)", "Softmax(1)",
               "LogSoftmax(1)"),
        *cases(X(2048, 1000), "Softmax(-1)", "LogSoftmax(-1)"),
        Case("Dropout(0.5)", (IMAGE,), random=True),
    ],
    "loss": [
        *cases((X(256, 4096), fixed(256, 4096)), "MSELoss()", "L1Loss()", "SmoothL1Loss()", "HuberLoss()", "BCEWithLogitsLoss()"),
        *cases((U(256, 4096), fixed(256, 4096)), "BCELoss()"),
        *cases((X(512, 1000), below(1000, 512)), "CrossEntropyLoss()"),
        *cases((X(8, 21, 64, 64), below(21, 8, 64, 64)), "CrossEntropyLoss()"),
        *cases((chances(4096, 1000), below(1000, 4096)), "NLLLoss()"),
        *cases((chances(512, 1000), fixed(512, 1000)), "KLDivLoss(reduction='batchmean')"),
        # PyTorch's gradient is right for inputs that come from log_softmax only
        *cases((X(100, 32, 64), below(64, 32, 20, first=1), whole(100, 32), whole(20, 32)),
               "lambda: lambda x, t, steps, labels: ctc_loss(log_softmax(x, 2), t, steps, labels)"),
        *cases((X(4096, 256), X(4096, 256)), "CosineSimilarity()", "PairwiseDistance()"),
        *cases((X(4096, 256), X(4096, 256), signs(4096)), "CosineEmbeddingLoss()"),
        *cases((X(4096, 256), X(4096, 256), X(4096, 256)), "TripletMarginLoss()"),
        *cases((X(2**18), X(2**18), signs(2**18)), "MarginRankingLoss()"),
        *cases((X(2**18), signs(2**18)), "HingeEmbeddingLoss()"),
    ],
}  # fmt: skip


# -- one case -----------------------------------------------------------------------------------------------------
def first(answer: Any) -> Any:
    """The first of several results."""
    return answer[0] if isinstance(answer, (tuple, list)) else answer


def build(text: str, names: dict[str, Any]) -> tuple[Any, Any]:
    """What a text means in one framework: something to call, and the module that holds its parameters, if any."""
    made = eval(text, names)
    if not text.startswith("lambda"):
        return made, made
    module = made.__defaults__[0] if made.__defaults__ else None
    return made(), module


class Sides:
    """Both frameworks' calls of one case."""

    def __init__(self, case: Case) -> None:
        ours, our_module = build(case.text, OURS)
        theirs, their_module = build(case.text, THEIRS)
        if our_module is not None and hasattr(our_module, "train"):
            our_module.train()
        with torch.no_grad():
            names = [n for n, _ in their_module.named_parameters()] if their_module is not None else []
            if names:
                state = {n: v.numpy() for n, v in their_module.state_dict().items() if v.ndim}
                our_module.load_state_dict(state)
        arrays = [x.make() for x in case.inputs]
        self.mine = [mf.array(a).sync() for a in arrays]
        self.other = [torch.from_numpy(a) for a in arrays]
        chosen = [k for k, x in enumerate(case.inputs) if x.gradient]
        own = dict(our_module.named_parameters()) if names else {}
        self.leaves = [self.mine[k].start_grad() for k in chosen] + [own[n] for n in names]
        weights = dict(their_module.named_parameters()) if names else {}
        self.their_leaves = [self.other[k].requires_grad_() for k in chosen] + [weights[n] for n in names]
        self.ours, self.theirs = ours, theirs
        expected = first(theirs(*self.other))
        self.single = expected.ndim == 0
        upstream = RANDOM.standard_normal(tuple(expected.shape)).astype(np.float32)
        self.up, self.their_up = mf.array(upstream).sync(), torch.from_numpy(upstream)

    def forward(self) -> Any:
        with mf.no_grad():
            return first(self.ours(*self.mine)).sync()

    def their_forward(self) -> Any:
        with torch.no_grad():
            return first(self.theirs(*self.other))

    def both(self) -> list[Any]:
        """The result and all gradients."""
        y = first(self.ours(*self.mine))
        found = [y, *mf.grad(y if self.single else y * self.up, self.leaves)]
        mf.sync(found)
        return found

    def their_both(self) -> list[Any]:
        y = first(self.theirs(*self.other))
        return [y, *torch.autograd.grad(y, self.their_leaves, None if self.single else self.their_up)]


def compared(ours: list[Any], theirs: list[Any], random: bool) -> str:
    """What differs; sums over many elements are compared on the scale of the largest."""
    if random:
        shares = [[np.mean(harness.host(v) == 0)[None] for v in side] for side in (ours, theirs)]
        return harness.agree(*shares, 0.0, 0.01)
    for k, (a, b) in enumerate(zip(ours, theirs, strict=True)):
        largest = float(np.abs(harness.host(b)).max(initial=0.0))
        problem = harness.agree(a, b, 1e-3, 1e-4 * max(largest, 1e-3))
        if problem:
            return f"{'value' if k == 0 else f'gradient {k}'}: {problem}"
    return ""


def measure(table: harness.Table, case: Case, ratios: dict[str, float]) -> None:
    """The rows of one case."""
    sides = Sides(case)
    shape = "x".join(map(str, sides.mine[0].shape))
    for way, mine, other in (
        ("forward", sides.forward, sides.their_forward),
        ("and backward", sides.both, sides.their_both),
    ):
        ours, theirs = mine(), other()
        several = [ours] if way == "forward" else ours
        problem = compared(several, [theirs] if way == "forward" else list(theirs), case.random)
        del ours, theirs, several
        names = harness.kernels(mine)
        name = f"{case.name}, {shape}, {way}"
        ratios[name] = table.row(
            name, mine, other, target=LEAST, problem=problem, names=names, repeat=harness.repeats(other)
        )


def profile(case: Case) -> None:
    """Print the launches of one case."""
    sides = Sides(case)
    for way, call in (("forward", sides.forward), ("and backward", sides.both)):
        print(f"\n{case.name}, {way}\n")
        harness.profile(call, most=25)


def chosen() -> list[Case]:
    """What the command line asks for."""
    wanted = [n for n in OPTIONS.extra.only.split(";") if n]
    return [
        case
        for group, several in GROUPS.items()
        for case in (several[:1] if OPTIONS.extra.quick else several)
        if not wanted or group in wanted or any(n in case.name for n in wanted)
    ]


def main() -> int:
    warnings.simplefilter("ignore")  # PyTorch's advice
    if OPTIONS.extra.profile:
        for case in chosen():
            profile(case)
        return 0
    print(f"{harness.machine(OPTIONS)}; float32\n")
    table = harness.Table("Layers", "PyTorch", OPTIONS)
    ratios: dict[str, float] = {}
    for case in chosen():
        measure(table, case, ratios)
    slow = sorted((r, name) for name, r in ratios.items() if r < 1)
    if slow:
        print(f"\n{len(slow)} of {len(ratios)} below 1, slowest first:\n")
        print("\n".join(f"* {r:.2f} {name}" for r, name in slow))
    known = [r for r in ratios.values() if r > 0]
    mean = math.exp(sum(map(math.log, known)) / len(known)) if known else 0.0
    print(
        f"\ngeometric mean of {len(known)} ratios: {mean:.2f}, target {MEAN:g} {'met' if mean >= MEAN else '**missed**'}"
    )
    return int(table.failed > 0 or mean < MEAN)


if __name__ == "__main__":
    sys.exit(main())
