"""Inline C++ as an operator.

What it is: ``code``: checks its arguments, records an opaque node, and takes gradients from the user's gradient sources.
What it is not: the snippet language or its compilation, which belong to a backend that inherits ``SupportsCodeOp``.
Who calls it: users.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from ..backend.contract import AbstractBackend
from ..backend.optional import SupportsCodeOp
from ..dtypes import DType, as_dtype, float64
from ..errors import ArgumentError, BackendError, DTypeError, ShapeError
from ..graph.node import Node, Spec, signature, spec_of
from ..runtime.buffer import Buffer
from ..runtime.kernels import KernelTable
from ..var import Var, record, wrap
from .meta import check_var, identity

__all__ = ["code"]


@dataclass(frozen=True)
class CodeSource:
    """The attribute of a code node: the snippet, and everything else that decides what is compiled."""

    header: str
    source: str
    gradients: tuple[str, ...]
    gradient_header: str
    data: tuple[str, ...]
    aliases: tuple[tuple[str, str], ...]

    def run(
        self,
        backend: AbstractBackend,
        kernels: KernelTable,
        inputs: list[tuple[Buffer, Spec]],
        output: tuple[Buffer, Spec],
        scalars: tuple[Any, ...],
    ) -> None:
        """Compile if new, and run."""
        if not isinstance(backend, SupportsCodeOp):
            raise BackendError(
                f"[code] backend '{backend.name}' can't run C++ snippets; install metafuse-backend-cpu and a C++ compiler"
            )
        ins = [(spec.dtype, len(spec.shape)) for _, spec in inputs]
        outs = [(output[1].dtype, len(output[1].shape))]
        key = (self, *ins, *outs)
        loaded = kernels.snippets.get(key)
        if loaded is None:  # expanding the macros of a long snippet takes longer than running a short one
            digest = hashlib.sha256(repr((self, ins, outs)).encode()).hexdigest()[:16]
            symbol = f"code_{digest}"
            text = backend.emit_code(symbol, self.header, self.source, ins, outs, dict(self.aliases))
            loaded = kernels.snippets[key] = kernels.obtain_source(symbol, text)
        shapes = backend.launch_code(
            loaded,
            [(b.handle, s.shape) for b, s in inputs],
            [(output[0].handle, output[1].shape)],
            dict(zip(self.data, map(float, scalars), strict=True)),
        )
        if tuple(shapes[0]) != output[1].shape:
            raise ShapeError(
                f"[code] the snippet set shape {list(shapes[0])}, declared was {list(output[1].shape)}; give the first "
                "extent as a negative upper bound if it is dynamic"
            )


def code(
    shape: Any,
    dtype: Any,
    inputs: Sequence[Any] = (),
    cpu_src: str = "",
    cpu_grad_src: Sequence[str] = (),
    cpu_header: str = "",
    cpu_grad_header: str = "",
    cuda_src: str = "",
    cuda_grad_src: Sequence[str] = (),
    cuda_header: str = "",
    data: dict[str, float] | None = None,
) -> Var:
    """An operator written in C++.

    Args:
        shape, dtype: of the result.
        inputs: Vars; in the source they are ``in0``, ``in1``, ...
        cpu_src: statements. ``@in0(i, j)`` and ``@out(i, j)`` are elements, ``in0_shape0`` extents, ``in0_p`` pointers,
            ``in0_type`` element types. OpenMP pragmas work.
        cpu_grad_src: one source per input that computes its gradient as ``out``; it may read all inputs, ``dout`` (the
            upstream gradient) and ``pout`` (the result). An empty string means no gradient for that input.
        cpu_header: text before the function: ``#include`` s, helper functions.
        data: numbers read as ``data["name"]``; they are run-time arguments.
        cuda_src, cuda_grad_src, cuda_header: the same for a CUDA backend.

    Returns:
        Var of ``shape`` and ``dtype``; what the source does not write is undefined.

    Errors:
        DTypeError, ShapeError, ArgumentError when called; CompileError with the compiler's message and the lines of the
        source when it runs.

    Example:
        >>> import metafuse as mf
        >>> mf.code([3], "float32", [mf.array([1.0, 2.0, 3.0])],
        ...         cpu_src="for (int i = 0; i < in0_shape0; i++) @out(i) = @in0(i) * 2;").numpy()
        array([2., 4., 6.], dtype=float32)
    """
    extents = _shape(shape)
    if isinstance(inputs, Var) or not isinstance(inputs, Sequence):
        raise DTypeError(f"[code] inputs must be a list of Vars, got {type(inputs).__name__}")
    given = [check_var("code", f"inputs[{k}]", x) for k, x in enumerate(inputs)]
    texts = {"cpu_src": cpu_src, "cpu_header": cpu_header, "cpu_grad_header": cpu_grad_header}
    for name, text in texts.items():
        if not isinstance(text, str):
            raise DTypeError(f"[code] {name} must be a string, got {type(text).__name__}")
    if not cpu_src.strip():
        raise ArgumentError("[code] cpu_src is empty; give the statements that compute out")
    gradients = tuple(cpu_grad_src)
    if gradients and len(gradients) != len(given):
        raise ArgumentError(
            f"[code] cpu_grad_src needs one source per input ({len(given)}), got {len(gradients)}"
        )
    numbers = _data(data)
    dynamic = bool(extents) and extents[0] < 0
    shown = (-extents[0], *extents[1:]) if dynamic else extents
    attrs = CodeSource(cpu_header, cpu_src, gradients, cpu_grad_header or cpu_header, tuple(numbers), ())
    spec = spec_of(shown, as_dtype(dtype))
    if dynamic:
        return _dynamic(attrs, given, spec, numbers)
    nodes = tuple(x._node for x in given)
    rule = _gradient if any(t.strip() for t in gradients) else None
    sig = signature("opaque", "code", attrs, tuple(n.spec for n in nodes), spec, None, _kinds(numbers), rule)
    return record(sig, nodes, tuple(numbers.values()))


def _shape(shape: Any) -> tuple[int, ...]:
    several = shape if isinstance(shape, (tuple, list)) else (shape,)
    extents = tuple(int(n) for n in several)
    if not extents or any(n < 0 for n in extents[1:]):
        raise ShapeError(
            f"[code] only the first extent may be negative (a dynamic upper bound), got {list(extents)}"
        )
    return extents


def _kinds(data: Collection[str]) -> tuple[DType, ...]:
    """Run-time numbers of a snippet are doubles."""
    return (float64,) * len(data)


def _data(data: dict[str, float] | None) -> dict[str, float]:
    numbers = dict(data or {})
    for name, value in numbers.items():
        if not isinstance(name, str) or isinstance(value, bool) or not isinstance(value, (int, float)):
            raise DTypeError(f"[code] data must map names to numbers, got {name!r}: {value!r}")
    return numbers


def _dynamic(attrs: CodeSource, inputs: list[Var], spec: Spec, numbers: dict[str, float]) -> Var:
    """The first extent is known only afterwards, so this runs now."""
    from ..runtime import executor
    from .creation import array

    for x in inputs:
        x.sync()
    dev = executor.device()
    if not isinstance(dev.backend, SupportsCodeOp):
        raise BackendError(
            f"[code] backend '{dev.backend.name}' can't run C++ snippets; install metafuse-backend-cpu"
        )
    ins = [(x.dtype, x.ndim) for x in inputs]
    digest = hashlib.sha256(repr((attrs, ins, spec.dtype, len(spec.shape))).encode()).hexdigest()[:16]
    text = dev.backend.emit_code(
        f"code_{digest}", attrs.header, attrs.source, ins, [(spec.dtype, len(spec.shape))]
    )
    output = Buffer(dev.backend, max(spec.nbytes, 1))
    handles = []
    for x in inputs:
        assert x._node.buffer is not None
        handles.append((x._node.buffer.handle, tuple(x.shape)))
    (shape,) = dev.backend.launch_code(
        dev.kernels.obtain_source(f"code_{digest}", text), handles, [(output.handle, spec.shape)], numbers
    )
    from ..graph.node import leaf

    whole = wrap(leaf(spec_of(tuple(shape), spec.dtype), output, False))
    return array(whole.numpy(), spec.dtype)


def _gradient(node: Node, upstream: Var) -> list[Var | None]:
    attrs: CodeSource = node.sig.attrs
    inputs = [wrap(n) for n in node.inputs]
    answer = identity(wrap(node)).stop_grad()
    count = len(inputs)
    aliases = (
        ("dout", f"in{count}"),
        ("pout", f"in{count + 1}"),
        ("dout0", f"in{count}"),
        ("pout0", f"in{count + 1}"),
    )
    results: list[Var | None] = []
    for source, x in zip(attrs.gradients, inputs, strict=True):
        if not source.strip() or not x.dtype.is_float:
            results.append(None)
            continue
        part = CodeSource(attrs.gradient_header, source, (), "", attrs.data, aliases)
        nodes = (*node.inputs, upstream._node, answer._node)
        sig = signature("opaque", "code_grad", part, tuple(n.spec for n in nodes), x._node.spec, None, _kinds(attrs.data))
        results.append(record(sig, nodes, node.scalars))
    return results
