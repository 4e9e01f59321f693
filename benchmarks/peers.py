"""PyTorch's side of the model benchmarks: torchvision's networks with our weights, eager and compiled.

What it is: ``network`` and the ways in which people run PyTorch on a CPU.
What it is not: a benchmark. Who calls it: ``bench_models``, ``bench_training``.
"""

from __future__ import annotations

import importlib.util
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

__all__ = ["WAYS", "copy_weights", "digits", "example", "inference", "network", "torchvision_models"]


def example() -> Any:
    """The module of ``examples/mnist``, for its network."""
    path = Path(__file__).parent.parent / "examples" / "mnist" / "train.py"
    spec = importlib.util.spec_from_file_location("mnist_example", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def digits() -> torch.nn.Module:
    """The network of ``examples/mnist``."""
    return torch.nn.Sequential(
        torch.nn.Conv2d(1, 32, 3, 1), torch.nn.ReLU(), torch.nn.Conv2d(32, 64, 3, 1), torch.nn.BatchNorm2d(64),
        torch.nn.ReLU(), torch.nn.MaxPool2d(2, 2), torch.nn.Flatten(), torch.nn.Linear(64 * 12 * 12, 256),
        torch.nn.ReLU(), torch.nn.Linear(256, 10),
    )  # fmt: skip


def torchvision_models() -> Any:
    """``torchvision.models``. Where torchvision's compiled operators do not fit the installed PyTorch (another build of the same
    version), they are declared by name only: classification networks call none of them."""
    try:
        import torchvision
    except RuntimeError:
        spec = importlib.util.find_spec("torchvision")
        assert spec is not None and spec.origin is not None
        text = (Path(spec.origin).parent / "_meta_registrations.py").read_text()
        torchvision_models.library = library = torch.library.Library("torchvision", "DEF")  # type: ignore[attr-defined]
        for name in sorted(set(re.findall(r'register_(?:fake\("torchvision::|meta\(")(\w+)"', text))):
            library.define(f"{name}(Tensor x) -> Tensor")
        import torchvision
    return torchvision.models


def network(name: str, **options: Any) -> torch.nn.Module:
    """A torchvision network with random weights."""
    if name in ("googlenet", "inception_v3"):
        options = {"init_weights": False, **options}
    model: torch.nn.Module = getattr(torchvision_models(), name)(**options)
    return model


def copy_weights(model: torch.nn.Module, arrays: Mapping[str, Any]) -> None:
    """Give ``model`` the arrays of the same names; every one of its own must be among them."""
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if not name.endswith("num_batches_tracked"):
                tensor.copy_(torch.from_numpy(arrays[name]).reshape(tensor.shape))


def _eager(model: torch.nn.Module, x: torch.Tensor) -> Callable[[], torch.Tensor]:
    return lambda: model(x)


def _channels_last(model: torch.nn.Module, x: torch.Tensor) -> Callable[[], torch.Tensor]:
    import copy

    model = copy.deepcopy(model).to(memory_format=torch.channels_last)
    x = x.to(memory_format=torch.channels_last)
    return lambda: model(x)


def _compiled(model: torch.nn.Module, x: torch.Tensor) -> Callable[[], torch.Tensor]:
    import torch._inductor.config as inductor

    inductor.freezing = True
    torch._dynamo.reset()
    compiled = torch.compile(model, dynamic=False)
    return lambda: compiled(x)


#: how people run PyTorch on a CPU
WAYS: dict[str, Callable[[torch.nn.Module, torch.Tensor], Callable[[], torch.Tensor]]] = {
    "eager": _eager,
    "channels_last": _channels_last,
    "compile": _compiled,
}


def inference(way: str, model: torch.nn.Module, x: torch.Tensor) -> Callable[[], torch.Tensor]:
    """A call that runs ``model`` on ``x`` in one of ``WAYS``, without gradients."""
    call = WAYS[way](model, x)

    def run() -> torch.Tensor:
        with torch.no_grad():
            return call()

    return run
