"""The table of the reference API: every name of every module, how each is called, and which of them are not offered.

What it is: ``_names.json`` (names and parameters, nothing else), and the rules about it.
What it is not: what stands behind a name (``_follow``).
Who calls it: ``_follow``, and the tools that report coverage.
"""

from __future__ import annotations

import json
import re
from functools import lru_cache
from pathlib import Path

__all__ = ["FILE", "OBJECTS", "Form", "forms", "module_names", "names", "reason", "short"]

FILE = Path(__file__).with_name("_names.json")

#: entries of the table that are no modules: a class, and the object that holds the settings
OBJECTS = ("jittor.Var", "jittor.flags")

#: pattern on ``module:name`` -> why it has no place in a framework with other foundations
NOT_OFFERED = {
    r"^jittor(\.core|\.misc)?:(\w*compile_custom_op\w*|python_pass_wrapper|auto_parallel|jt_init_subprocess|set_lock_path|dirty_fix_\w+)$":
        "belongs to the way the reference is built; write operators with `code`, `numpy_code` or `Function`",
    r"^jittor_utils:(?!home$|LOG$)|^jittor_utils\.(auto_diff|config|lock|ring_buffer):|_pytorch:(?!(load|save)_pytorch$)":
        "a tool of the reference's own development",
    r"utils\.(nvtx|converter_server):|mpi_ops:mpi_test$|vcompiler:(dfs\w*|CachedGraph)$|:(print_tree|vtos|print_help)$|clean_cache:(callback|rmtree)$":
        "a tool of the reference's own development",
    r"^jittor\.(nccl_ops|mkl_ops):": "belongs to one vendor's library, which backends choose by themselves",
    r":\w*(cub_|cuda|cupy|npu|nfef|sfrl|tensorcore)\w*$": "belongs to one vendor's hardware",
    r":(get_max_memory_treemap|dump_trace_data)$": "`metafuse.debug` shows where memory is and what ran",
    r":(tape|tape_together)$": "an internal of the reference on which its `Function` is built; write a `Function`",
    r":(RingBuffer|ZipFile|array_|wrap_var_addr|\w*_ptr|reuse_\w+|_\w+_dependency|_input|_update|\w*out_hint|share_with)$|Var:flags$|dataset:Worker$":
        "an internal of the reference",
    r"^jittor\.ccl:": "is defined by what one vendor's hardware does; label components with SciPy's ndimage in `numpy_code`",
    r"^jittor\.contrib:(check|slice_var_index)$|:(release_from_holders|uncertain_shape|check_cascade_setitem)$":
        "an internal of the reference",
    # an in-place form of what answers several arrays, or none
    r":(argmax|argmin|chunk|kthvalue|nonzero|sort|topk|unbind|unique|tolist|cpu|peek|new\w*)_$":
        "has no meaning: its answer can't be stored in the Var",
}  # fmt: skip

#: one way to call something: pairs of a parameter's name and its default as text, ``None`` where there is none
Form = list[tuple[str, str | None]]


@lru_cache(maxsize=None)
def names() -> dict[str, dict[str, str | None]]:
    """module -> name -> the parameter lists with which it may be called, separated by bars; ``None`` if it is not called."""
    found: dict[str, dict[str, str | None]] = json.loads(FILE.read_text(encoding="utf-8"))
    return found


@lru_cache(maxsize=None)
def module_names() -> frozenset[str]:
    """Every module that may be imported, packages included."""
    found = {name for name in names() if name not in OBJECTS}
    return frozenset(
        ".".join(parts[:k]) for parts in (name.split(".") for name in found) for k in range(1, len(parts) + 1)
    )


def short(module: str) -> str:
    """The path below the reference package: ``jittor.misc`` is ``misc``, the package itself is empty."""
    return module.partition(".")[2]


def reason(module: str, name: str) -> str | None:
    """Why a name of the table is not offered, if it is not there."""
    for pattern, why in NOT_OFFERED.items():
        if re.search(pattern, f"{module}:{name}"):
            return why
    return None


def forms(module: str, name: str) -> list[Form]:
    """The ways to call ``module.name``; none where it is not called or unknown."""
    text = names().get(module, {}).get(name)
    return [_form(part) for part in text.split(" | ")] if text else []


def _form(text: str) -> Form:
    """A parameter list, split at commas that stand in no brackets."""
    found: Form = []
    for part in re.split(r", (?![^(\[]*[)\]])", text):
        name, equals, default = part.partition("=")
        if name:
            found.append((name, default if equals else None))
    return found
