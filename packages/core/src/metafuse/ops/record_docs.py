"""What the docstrings of operators say alike: from the record, so that nobody writes it hundreds of times.

What it is: text about shapes, element types, errors and the source of the definition, for those parts that a docstring does not
have, and examples of element-wise operators and in-place variants.
What it is not: what an operator means; its own docstring says that.
Who calls it: ``registry``, when a record is entered; ``elementwise``.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .operator_record import Operator, Sample, Tensor

__all__ = ["complete", "complete_layer", "elementwise_example", "in_place_example"]

#: kinds of element types in samples, as they are read
_KINDS = {
    "float": "float",
    "any": "any type",
    "int": "integer",
    "number": "number",
    "integral": "integer or bool",
}

#: where the meaning of a category's operators comes from, unless a record says otherwise
_SOURCES = dict.fromkeys(
    ("reduce", "shape", "creation", "conversion", "indexing", "sort", "element-wise"), "NumPy"
)


def complete(record: Operator) -> None:
    """Add to the docstring of a record's function what it does not say: what it takes, errors, and the source."""
    function = record.function
    text = function.__doc__
    if not text:
        return
    margin = "" if "\nErrors:" in text or "\nExample:" in text else "    "
    added = ""
    if record.samples and "Takes:" not in text:
        calls = dict.fromkeys(_call(record.name, s) for s in record.samples[:3])
        added += f"\n\n{margin}Takes:\n{margin}    for example ``{'``, ``'.join(calls)}``."
    elif not any(word in text for word in ("Args:", "Returns:")) and hasattr(function, "__code__"):
        code = inspect.unwrap(function).__code__
        names = code.co_varnames[: code.co_argcount + bool(code.co_flags & 4)]
        added += f"\n\n{margin}Args:\n{margin}    {', '.join(names)}: as described above."
    if "Errors:" not in text:
        added += (
            f"\n\n{margin}Errors:\n{margin}    DTypeError: an argument is no array, or of an element type without this operation."
            f"\n{margin}    ShapeError, ArgumentError: shapes or values that do not fit."
        )
    if "Source:" not in text:
        added += f"\n\n{margin}Source: {record.source or _SOURCES.get(record.category, 'the reference API')}."
    if added:
        function.__doc__ = f"{text.rstrip()}{added}\n{margin}"


def complete_layer(kind: type) -> None:
    """Add to the docstring of a layer what all layers raise, unless it speaks of errors itself."""
    text = kind.__doc__
    if text and "Errors:" not in text and "__doc__" in vars(kind):
        kind.__doc__ = (
            f"{text.rstrip()}\n\n    Errors:\n        ArgumentError: an argument out of range, when the layer is made.\n"
            "        ShapeError, DTypeError: an input that does not fit, when it is called.\n    "
        )


def _call(name: str, sample: Sample) -> str:
    """A legal call, with element types and shapes in the place of arrays."""
    given = [_shown(a) for a in sample.args] + [f"{k}={_shown(v)}" for k, v in sample.kwargs.items()]
    return f"{name}({', '.join(given)})"


def _shown(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"{_KINDS.get(value.dtype, value.dtype)}{list(value.shape)}"
    if isinstance(value, (tuple, list)):
        inside = ", ".join(map(_shown, value))
        return f"[{inside}]" if isinstance(value, list) else f"({inside})"
    return repr(value)


# -- examples ------------------------------------------------------------------------------------------------------
#: variants whose records have no legal call that begins with an array: the Var, and the other arguments
_IN_PLACE = {
    "cast_": ("mf.ones(2)", '"int32"'), "astype_": ("mf.ones(2)", '"int32"'), "reindex_": ("mf.ones(2)", '[3], ["i0"]'),
    "reindex_reduce_": ("mf.ones(3)", '"add", [1], ["0"]'), "stack_": ("mf.ones(2, 3)", ""),
}  # fmt: skip


def in_place_example(name: str, record: Operator) -> str:
    """An example of a variant, of one of the record's legal calls; nothing where it has none."""
    if name in _IN_PLACE:
        given, rest = _IN_PLACE[name]
        return f"\nExample:\n    >>> import metafuse as mf\n    >>> x = {given}\n    >>> x.{name}({rest}) is x\n    True\n"
    arguments = record.samples[0] if record.samples else None
    if record.arity:
        literals = [_array(t.dtype, (2,)) for t in record.domain]
        keywords: dict[str, Any] = {}
    elif arguments is not None and isinstance(arguments.args[0], Tensor):
        literals, keywords = [_literal(a) for a in arguments.args], arguments.kwargs
    else:
        return ""
    rest = ", ".join([*literals[1:], *(f"{k}={_literal(v)}" for k, v in keywords.items())])
    return f"\nExample:\n    >>> import metafuse as mf\n    >>> x = {literals[0]}\n    >>> x.{name}({rest}) is x\n    True\n"


def _array(kind: str, shape: tuple[int, ...]) -> str:
    dtype = {"int": "int32", "integral": "int32", "bool": "bool"}.get(kind, kind)
    return (
        f"mf.ones({list(shape)})"
        if kind in ("float", "any", "number", "float32")
        else f"mf.zeros({list(shape)}, {dtype!r})"
    )


def _literal(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"mf.eye({value.shape[-1]})" if value.dominant else _array(value.dtype, value.shape)
    if isinstance(value, (tuple, list)):
        inside = ", ".join(map(_literal, value))
        return f"[{inside}]" if isinstance(value, list) else f"({inside}{',' * (len(value) == 1)})"
    if isinstance(value, slice):
        return f"slice({value.start}, {value.stop}, {value.step})"
    return "..." if value is ... else repr(value)


def elementwise_example(name: str, numpy: Callable[..., Any], domain: Sequence[Tensor]) -> str:
    """An example with values from the domain; the answer is NumPy's where the meaning is one of its functions."""
    values = [_values(t, k) for k, t in enumerate(domain)]
    call = f"mf.{name}({', '.join(f'mf.array({v})' for v in values)})"
    if not isinstance(numpy, np.ufunc):
        return f"Example:\n    >>> import metafuse as mf\n    >>> {call}.shape\n    (2,)\n"
    answer = numpy(*(np.array(v, np.float64) if type(v[0]) is float else np.array(v) for v in values))
    shown = answer.tolist()
    if answer.dtype.kind == "f":
        return (
            f"Example:\n    >>> import metafuse as mf\n    >>> [round(v, 3) for v in {call}.tolist()]\n"
            f"    {[round(v, 3) for v in shown]}\n"
        )
    return f"Example:\n    >>> import metafuse as mf\n    >>> {call}.tolist()\n    {shown}\n"


def _values(tensor: Tensor, number: int) -> list[Any]:
    """Two numbers that the domain allows, others for each argument."""
    if tensor.dtype == "bool":
        return [True, number == 0]
    if tensor.dtype in ("int", "integral"):
        return [int(tensor.low) + 2 + number, int(tensor.high) - 1]
    width = tensor.high - tensor.low
    return [
        round(tensor.low + width * (0.3 + 0.1 * number), 2),
        round(tensor.low + width * (0.9 - 0.2 * number), 2),
    ]
