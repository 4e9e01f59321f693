"""Write the inventory of PyTorch's public names that the converter's table is about; needs torch and torchvision.

``python tools/torch_names.py`` writes ``packages/converter/src/metafuse_converter/_torch_names.json``: module -> name ->
parameters as text (``null``: not called, or not known). Names and parameters, nothing else. The converter needs no torch.
"""

from __future__ import annotations

import importlib
import inspect
import json
import re
from pathlib import Path
from typing import Any

FILE = Path(__file__).resolve().parent.parent / "packages/converter/src/metafuse_converter/_torch_names.json"

MODULES = (
    "torch", "torch.Tensor", "torch.nn", "torch.nn.Module", "torch.nn.functional", "torch.nn.init", "torch.nn.utils",
    "torch.nn.utils.rnn", "torch.nn.parallel", "torch.optim", "torch.optim.lr_scheduler", "torch.utils.data",
    "torch.utils.data.distributed", "torch.utils.checkpoint", "torch.linalg", "torch.fft", "torch.special",
    "torch.autograd", "torch.autograd.functional", "torch.autograd.function", "torch.amp", "torch.cuda", "torch.cuda.amp",
    "torch.distributed", "torch.multiprocessing", "torch.backends.cudnn", "torch.distributions", "torch.jit", "torch.random",
    "torchvision.transforms", "torchvision.transforms.functional", "torchvision.datasets", "torchvision.models",
    "torchvision.ops",
    "torchvision.utils",
)  # fmt: skip

#: names that no script is written with: kernels of vendors, quantised and symbolic numbers, copies for compilers,
#: types of TorchScript
LEFT_OUT = re.compile(
    r"_copy$|^(sym_|quantize|fbgemm|cudnn_|miopen|mkldnn|fake_quant|q_|int_repr|native_|batch_norm_|_)|_inverse$|^(sparse_resize|to_mkldnn)"
    r"|(Type|Storage|Weights|QuantizedModel)$|^(bits|float[48]_|q?u?int\d+x\d+$|u?int[1-7]$|q(u)?int)"
)
#: modules whose ``dir`` also holds what they import
OWN_ONLY = {
    "torch.optim.lr_scheduler",
    "torch.nn.functional",
    "torch.nn.init",
    "torch.nn.utils.rnn",
    "torch.utils.checkpoint",
}


def schemas() -> dict[str, list[Any]]:
    """The overloads of native functions, by name."""
    import torch

    found: dict[str, list[Any]] = {}
    for schema in torch._C._jit_get_all_schemas():
        namespace, name = schema.name.split("::")
        if namespace == "aten":
            found.setdefault(name, []).append(schema)
    return found


def native(overloads: list[Any], method: bool) -> str | None:
    """The parameters of the overload with the most of them that scripts call."""
    best: list[Any] = []
    for schema in overloads:
        arguments = [a for a in schema.arguments if a.name not in ("layout", "pin_memory", "memory_format")]
        texts = [str(a.type) for a in arguments]
        if "out" in schema.overload_name or any("Dimname" in t for t in texts) or not texts:
            continue
        if any(a.is_out for a in arguments) or texts[0] in (
            "str",
            "List[str]",
            "List[t]",
            "List[int]",
            "List[float]",
            "List[bool]",
        ):
            if "SymInt" not in str(schema.arguments[0]) and texts[0] != "List[int]":
                continue
        if method and arguments[0].name != "self":
            continue
        if len(arguments) > len(best):
            best = arguments
    if not best:
        return None
    parts, star = [], False
    for k, argument in enumerate(best[1:] if method else best):
        if argument.kwarg_only and not star:
            star = True
            parts.append("*")
        name = "input" if argument.name == "self" and k == 0 and not method else argument.name
        parts.append(name + (f"={argument.default_value!r}" if argument.has_default_value() else ""))
    return ", ".join(parts)


def python(value: Any, bound: bool) -> str | None:
    """The parameters of a function or class that Python knows."""
    try:
        parameters = list(inspect.signature(value).parameters.values())
    except (TypeError, ValueError):
        return None
    parts, star = [], False
    for p in parameters[1:] if bound else parameters:
        if p.kind is p.KEYWORD_ONLY and not star:
            star = True
            parts.append("*")
        if p.kind is p.VAR_POSITIONAL:
            star = True
            parts.append(f"*{p.name}")
        elif p.kind is p.VAR_KEYWORD:
            parts.append(f"**{p.name}")
        else:
            parts.append(p.name + ("" if p.default is p.empty else f"={default(p.default)}"))
    return ", ".join(parts)


def default(value: Any) -> str:
    """A default as text without addresses."""
    text = repr(value)
    return text if len(text) < 30 and "<" not in text else "..."


def names(module: str, host: Any, known: dict[str, list[Any]]) -> dict[str, str | None]:
    """The public names of one module."""
    listed = getattr(host, "__all__", None) if module in OWN_ONLY or module == "torch.utils.data" else None
    found: dict[str, str | None] = {}
    prefix = {"torch.linalg": "linalg_", "torch.fft": "fft_", "torch.special": "special_"}.get(module, "")
    for name in sorted(listed or dir(host)):
        value = getattr(host, name, None)
        if LEFT_OUT.search(name) or inspect.ismodule(value) or value is None:
            continue
        home = getattr(value, "__module__", None) or "torch"
        if not home.startswith(module.split(".")[0]) or (
            listed is None and home.startswith(("typing", "collections"))
        ):
            continue
        if (
            module == "torch"
            and name[:1].isupper()
            and not name.endswith("Tensor")
            and name not in ("Size", "Generator")
        ):
            continue  # classes of its compiler and its tests
        inherited = module == "torch.nn.Module"
        if not callable(value):
            found[name] = None
            continue
        text = python(value, inherited) if module != "torch.Tensor" else None
        if text is None or "*args" in text or text.startswith("*"):
            text = native(known.get(prefix + name, []), module == "torch.Tensor") or text
        if text is None and module == "torch.Tensor":
            text = python(value, True)
        found[name] = text
    return found


def inventory() -> dict[str, dict[str, str | None]]:
    """Every module."""
    known = schemas()
    found = {}
    for module in MODULES:
        parent, _, last = module.rpartition(".")
        host = getattr(importlib.import_module(parent), last) if last in ("Tensor", "Module") else None
        found[module] = names(module, host or importlib.import_module(module), known)
    return found


def main() -> None:
    """Write the file."""
    lines = ["{"]
    for module, entries in inventory().items():
        lines.append(f'"{module}": {{')
        lines += [f"{json.dumps(name)}: {json.dumps(text)}," for name, text in entries.items()]
        lines[-1] = lines[-1].rstrip(",")
        lines.append("},")
    lines[-1] = "}"
    FILE.write_text("\n".join([*lines, "}"]) + "\n", encoding="utf-8")
    print(f"wrote {FILE.name}")


if __name__ == "__main__":
    main()
