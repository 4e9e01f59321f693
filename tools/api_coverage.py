"""How much of the reference API exists here: names, parameters, and what the tests exercise.

``python tools/api_coverage.py`` prints a line per module of ``tests/api/names.json``: present, missing, share. ``--missing``
lists the missing names, ``--differences`` the present ones that can't be called as the reference API says, ``--tests`` adds
the share that is exercised, ``--module`` chooses modules, ``--package`` looks in another package than ``metafuse``, with the
same layout as the reference API. ``--generate FILE`` writes the table anew from an inventory of the reference API.

Exercised is a name whose operator record carries a NumPy meaning and samples (the conformance kit runs those on
every backend), or one that a test names.
"""

from __future__ import annotations

import argparse
import ast
import importlib
import inspect
import json
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
NAMES = ROOT / "tests" / "api" / "names.json"
TESTS = (ROOT / "tests", *sorted((ROOT / "packages").glob("*/tests")))

#: pattern on ``module:name`` -> why it has no place in a framework with other foundations
SKIPPED = {
    r"(compiler|compile_extern|pyjt_compiler|core_ops_headers|utils\.(gen_pyi|dlink_compiler|asm_tuner|jtune)):": "build system",
    r":(\w*compile_custom_op\w*|python_pass_wrapper|auto_parallel|jt_init_subprocess|set_lock_path|rewrite_op)$": "build system",
    r":(jittor_path|cc_path|cc_type|nvcc_path|nvcc_flags|python_path|cuda_archs|dirty_fix_\w+)$": "build system",
    r"^jittor_utils|utils\.(nvtx|converter_server|local_doc_builder|tracer):|:(print_tree|vtos)$": "its own tools",
    r"(cuda_library_ops|nccl_ops|hccl_ops|mkl_ops|init_cupy|ccl|depthwise_conv|other\.code_softmax):": "vendor library",
    r":\w*(cub_|cuda|cupy|npu|nfef|sfrl|tensorcore)\w*$": "vendor hardware",
    r":(NanoString|NanoVector|RingBuffer|ZipFile|array_|wrap_var_addr|\w*_ptr|reuse_\w+)$": "internals",
    r":(_\w+_dependency|_input|_update|\w*out_hint|check)$": "internals",
    r":(release_from_holders|uncertain_shape|check_cascade_setitem|slice_var_index)$": "internals",
    # an in-place form of what answers several arrays, or none
    r":(argmax|argmin|chunk|kthvalue|nonzero|sort|topk|unbind|unique|tolist|cpu|peek|new\w*)_$": "no in-place meaning",
}

#: modules of the reference API whose names stand elsewhere here, tried in this order; others keep their path
ELSEWHERE = {
    **dict.fromkeys(("ops", "core", "misc", "contrib", "math_util", "mpi_ops"), ("",)),
    "einops.layers.jittor": ("einops.layers.metafuse",),
    "pool": ("nn",), "lr_scheduler": ("lr_scheduler", "optim"), "dataset": ("dataset", "data"),
}  # fmt: skip


@dataclass
class Found:
    """One name of the table: what it is here, or ``None``."""

    module: str
    name: str
    forms: str | None
    value: Any
    present: bool


def short(module: str) -> str:
    """The path below the reference package: ``jittor.misc`` is ``misc``, the package itself is empty."""
    return module.partition(".")[2]


def skip_reason(module: str, name: str) -> str | None:
    """Why a name is left out, if it is."""
    for pattern, reason in SKIPPED.items():
        if re.search(pattern, f"{module}:{name}"):
            return reason
    return None


# -- the table --------------------------------------------------------------------------------------------------
def generate(inventory: Path) -> None:
    """Names with the forms in which they may be called, of an inventory; nothing else of it is kept."""
    table: dict[str, dict[str, str | None]] = {}
    for module, entries in json.loads(inventory.read_text())["modules"].items():
        if entries:
            table[module] = {name: _forms(entry) for name, entry in sorted(entries.items())}
    lines = ["{"]
    for module, names in table.items():
        lines.append(f'"{module}": {{')
        lines += [f"{json.dumps(name)}: {json.dumps(forms)}," for name, forms in names.items()]
        lines[-1] = lines[-1].rstrip(",")
        lines.append("},")
    lines[-1] = "}"
    NAMES.write_text("\n".join([*lines, "}"]) + "\n")


def _forms(entry: Mapping[str, Any]) -> str | None:
    """Parameter lists, several ones separated by a bar; ``None`` for what is not called or not known."""
    found = [o["params"] for o in entry["overloads"]] if "overloads" in entry else [entry.get("params")]
    if entry.get("kind") == "property" or None in found:
        return None
    # a bit mask of dimensions is not for people
    texts = [", ".join(map(_parameter, f)) for f in found if not any("mask" in p["name"] for p in f)]
    return " | ".join(dict.fromkeys(texts))


def _parameter(parameter: Mapping[str, str]) -> str:
    name = parameter["name"]
    return f"{name}={parameter['default']}" if "default" in parameter else name


# -- looking ------------------------------------------------------------------------------------------------------
def hosts(package: str, module: str) -> list[Any]:
    """The objects in which names of ``module`` are looked for."""
    path = short(module)
    if path == "Var":
        return [importlib.import_module(package).Var]
    found = []
    for place in (path, *ELSEWHERE.get(path, ())):
        try:
            found.append(_walk(package, place))
        except (ImportError, AttributeError):
            continue
    return found


def _walk(package: str, place: str) -> Any:
    value: Any = importlib.import_module(package)
    path = package
    for part in filter(None, place.split(".")):
        path = f"{path}.{part}"
        value = getattr(value, part) if hasattr(value, part) else importlib.import_module(path)
    return value


def look(package: str, chosen: Iterable[str] = ()) -> Iterator[Found]:
    """Every name of the table that is not skipped."""
    table = json.loads(NAMES.read_text())
    for module, names in table.items():
        if chosen and module not in chosen and short(module) not in chosen:
            continue
        places = hosts(package, module)
        for name, forms in names.items():
            if skip_reason(module, name):
                continue
            place = next((p for p in places if _has(p, name)), None)
            value = inspect.getattr_static(place, name, None) if inspect.isclass(place) else _get(place, name)
            yield Found(module, name, forms, value, place is not None)


def _has(place: Any, name: str) -> bool:
    if name.startswith("__") and inspect.isclass(place):
        return any(name in vars(c) for c in place.__mro__)
    return hasattr(place, name)


def _get(place: Any, name: str) -> Any:
    return getattr(place, name) if place is not None else None


# -- comparing parameters ----------------------------------------------------------------------------------------
def difference(found: Found) -> str | None:
    """Why some call that the reference API allows is not allowed here, or means something else; ``None`` if none is known."""
    if not found.present or not found.forms or not callable(found.value):
        return None
    try:
        own = inspect.signature(found.value)
    except (TypeError, ValueError):
        return None
    here = list(own.parameters.values())
    for form in found.forms.split(" | "):
        wanted = _parsed(form)
        problem = _unlike(wanted, here)
        if (
            problem and short(found.module) == "Var"
        ):  # nobody names the array itself, and some forms leave it out
            problem = _unlike(wanted, here[1:]) and _unlike(wanted[1:], here[1:])
        if problem:
            return f"({form}): {problem}"
    return None


def _unlike(form: list[tuple[str, str | None]], own: list[inspect.Parameter]) -> str:
    gathers = {p.kind for p in own}
    for position, (name, default) in enumerate(form):
        if name.startswith("*"):
            return ""
        here = next((p for p in own if p.name == name), None)
        if here is None:
            if inspect.Parameter.VAR_KEYWORD in gathers or inspect.Parameter.VAR_POSITIONAL in gathers:
                return ""
            return f"no parameter {name}"
        if own.index(here) != position and here.kind is not inspect.Parameter.KEYWORD_ONLY:
            return f"{name} stands at {own.index(here)}"
        if default is not None and here.default is inspect.Parameter.empty:
            return f"{name} has no default"
        if default is not None and _plain(default) != _plain(here.default):
            return f"{name} defaults to {here.default!r}"
    return ""


def _parsed(form: str) -> list[tuple[str, str | None]]:
    found = []
    for part in re.split(r", (?![^(\[]*[)\]])", form):
        name, _, default = part.partition("=")
        if name:
            found.append((name, default or None))
    return found


def _plain(value: Any) -> str:
    """One spelling for values that mean the same: ``'int32'`` and the type, ``()``, ``[]`` and ``None``."""
    text = str(value).strip("'\"")
    if text in ("()", "[]", "None", ""):
        return ""
    try:
        return str(float(text))
    except ValueError:
        return text.removeprefix("metafuse.")


# -- tests ---------------------------------------------------------------------------------------------------------
def named_in_tests() -> set[str]:
    """Every attribute that a test file reads, and every name that it imports."""
    found: set[str] = set()
    for path in (p for folder in TESTS for p in folder.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute):
                found.add(node.attr)
            elif isinstance(node, ast.ImportFrom):
                found |= {alias.name for alias in node.names}
    return found


def with_oracle() -> set[str]:
    """Names whose record the conformance kit runs."""
    from metafuse.ops.registry import all_operators

    found: set[str] = set()
    for record in all_operators():
        if record.numpy is not None and (record.samples or record.arity):
            found |= {record.name, *record.methods, *(f"{m}_" for m in record.methods)}
    return found


# -- printing ------------------------------------------------------------------------------------------------------
def report(options: argparse.Namespace) -> None:
    """The table per module and what else was asked for."""
    entries = list(look(options.package, options.module))
    exercised = named_in_tests() | with_oracle() if options.tests else set()
    print(f"{'module':34}{'present':>9}{'missing':>9}{'share':>8}" + f"{'exercised':>11}" * options.tests)
    modules = dict.fromkeys(e.module for e in entries)
    for module in [*modules, "all"]:
        own = [e for e in entries if module in (e.module, "all")]
        have = [e for e in own if e.present]
        line = f"{module:34}{len(have):9}{len(own) - len(have):9}{len(have) / len(own):8.0%}"
        if options.tests:
            line += f"{sum(e.name in exercised for e in have) / len(own):11.0%}"
        print(line)
        if options.missing and module != "all" and len(have) < len(own):
            print("    " + " ".join(e.name for e in own if not e.present))
    if options.differences:
        told = {f"{e.name}{problem}": e.module for e in reversed(entries) if (problem := difference(e))}
        print(*sorted(f"{module}.{problem}" for problem, module in told.items()), sep="\n")


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--generate", type=Path, metavar="FILE", help="write the table from an inventory")
    parser.add_argument("--package", default="metafuse", help="the package to look in")
    parser.add_argument("--module", action="append", default=[], help="only this module of the reference API")
    for flag in ("missing", "differences", "tests"):
        parser.add_argument(f"--{flag}", action="store_true")
    options = parser.parse_args()
    if options.generate:
        generate(options.generate)
    else:
        report(options)
    return 0


if __name__ == "__main__":
    sys.exit(main())
