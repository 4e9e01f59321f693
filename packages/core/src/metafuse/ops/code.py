"""Inline C++ as an operator.

What it is: ``code``: checks its arguments, records an opaque node (or runs at once, where shapes depend on values), and takes
gradients from the user's gradient sources.
What it is not: the snippet language or its compilation, which belong to a backend that inherits ``SupportsCodeOp``.
Who calls it: users. ``docs/code.md`` is the guide.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any, NoReturn

from ..dtypes import DType, as_dtype
from ..errors import ArgumentError, BackendError, DTypeError, ShapeError, brief
from ..graph.node import Spec, leaf, signature, spec_of
from ..runtime import executor, launching
from ..runtime.buffer import Buffer
from ..var import Var, sync, wrap
from .code_source import Code, Snippet, Text, check_numbers, check_shapes, fitting
from .meta import check_integer, check_shape, check_var
from .several import Result, attach, record_several

__all__ = ["code", "compile_custom_op", "compile_custom_ops"]

#: arguments of the compiler that would change what is built, rather than how
_REFUSED = ("-o", "-c", "-S", "-E", "-x", "-M", "-MM", "-fsyntax-only")


def code(
    shape: Any = None,
    dtype: Any = None,
    inputs: Any = (),
    cpu_src: Any = "",
    cpu_grad_src: Sequence[str] = (),
    cpu_header: str = "",
    cuda_src: str = "",
    cuda_grad_src: Sequence[str] = (),
    cuda_header: str = "",
    data: Mapping[str, float] | None = None,
    *,
    cpu_grad_header: str | None = None,
    cuda_grad_header: str | None = None,
    compile_options: Mapping[str, int] | None = None,
    shapes: Any = None,
    dtypes: Any = None,
    outputs: Any = None,
) -> Any:
    """An operator written in C++.

    Three forms: ``code(shape, dtype, inputs, ...)``; ``code([shape, ...], [dtype, ...], inputs, ...)`` for several results;
    ``code(inputs, outputs, ...)`` for a snippet that changes the Vars ``outputs``, which hold its results from then on.

    Args:
        shape, dtype: of the result, or lists of them. A first extent below 0 is an upper bound: the snippet says how many rows
            there are with ``out->set_shape({n, ...})``, and runs when ``code`` is called.
        inputs: Vars; in the source they are ``in0``, ``in1``, ...
        cpu_src: statements. ``@in0(i, j)`` and ``@out(i, j)`` (or ``@out0``, ``@out1`` ...) are elements, ``in0_shape0`` extents,
            ``in0_p`` pointers, ``in0_type`` element types. OpenMP pragmas work.
        cpu_grad_src: one source per input that computes its gradient as ``out``; it may read all inputs, ``dout`` (the gradient
            of one result), ``pout`` (that result), ``pout0``, ``pout1`` ... (all results) and ``data["out_index"]`` (which one
            ``dout`` belongs to). It runs once per result that a loss depends on. An empty string: no gradient for that input.
        cpu_header: text before the function: ``#include`` s, helper functions.
        cuda_src, cuda_grad_src, cuda_header: the same for a CUDA backend; one of ``cpu_src`` and ``cuda_src`` is enough.
        data: numbers read as ``data["name"]``; they are run-time arguments.
        cpu_grad_header, cuda_grad_header: headers of the gradient sources; without them, the other headers are theirs too.
        compile_options: ``{"FLAGS: -I/some/where -lsomething": 1}``: for the compiler and the linker, beside
            ``flags.compile_options``. Names that nobody defines are refused when the CPU backend links; with
            ``-Wl,-z,undefs`` (GNU's linker) they may come from the process that loads the operator.
        shapes, dtypes, outputs: names by which the second and third form may be written.

    Returns:
        Var of ``shape`` and ``dtype``, or a tuple of Vars; what the source does not write is undefined.

    Errors:
        DTypeError, ShapeError, ArgumentError when called, the last one for mistakes in macros too (``@in1`` of one input, a
        missing index), with line and column; BackendError where the backend runs no snippets; when it runs, CompileError with
        the compiler's message and the lines of the source, KernelError with the words of an exception that the snippet threw.

    Example:
        >>> import metafuse as mf
        >>> mf.code([3], "float32", [mf.array([1.0, 2.0, 3.0])],
        ...         cpu_src="for (int i = 0; i < in0_shape0; i++) @out(i) = @in0(i) * 2;").numpy()
        array([2., 4., 6.], dtype=float32)
    """
    shape, dtype = (shape if shapes is None else shapes), (dtype if dtypes is None else dtypes)
    if outputs is None and _are_vars(dtype):
        outputs, inputs, (cpu_src, cpu_grad_src) = dtype, shape, _moved(inputs, cpu_src, cpu_grad_src)
    if type(inputs) is not list and (isinstance(inputs, (Var, str)) or not isinstance(inputs, Sequence)):
        raise DTypeError(f"[code] inputs must be a list of Vars, got {type(inputs).__name__}")
    given = [x if type(x) is Var else check_var("code", f"inputs[{k}]", x) for k, x in enumerate(inputs)]
    written = (
        ("cpu", cpu_header, cpu_grad_header, cpu_src, _frozen(cpu_grad_src)),
        ("cuda", cuda_header, cuda_grad_header, cuda_src, _frozen(cuda_grad_src)),
    )
    options = _options(_compile_options().value())
    if compile_options:
        options += _options(compile_options, "compile_options")
    numbers = check_numbers(data) if data is not None else {}
    if outputs is not None:
        return _in_place(_code(written, options, len(given), tuple(numbers)), given, outputs, numbers)
    plain = type(shape) in (list, tuple) and type(dtype) is str and all(type(n) is int for n in shape)
    parts = (written, options, len(given), tuple(numbers), tuple(shape) if plain else shape, dtype)
    made, dynamic, several = _once(_with_results, *parts) if plain else _with_results.__wrapped__(*parts)
    results = _run_now(made, given, numbers, dynamic) if dynamic else _recorded(made, given, numbers)
    return tuple(results) if several else results[0]


# -- arguments ------------------------------------------------------------------------------------------------------
def _are_vars(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and len(value) > 0 and all(isinstance(v, Var) for v in value)


def _moved(inputs: Any, cpu_src: Any, cpu_grad_src: Any) -> tuple[Any, Any]:
    """Source and gradient sources where ``code(inputs, outputs, source, gradients)`` was written without names."""
    if not isinstance(inputs, str):
        if len(inputs):
            raise ArgumentError("[code] inputs are given twice; write code(inputs, outputs, cpu_src=...)")
        return cpu_src, cpu_grad_src
    if cpu_src and isinstance(cpu_src, str):
        raise ArgumentError(
            "[code] code(inputs, outputs, source, ...): name what follows the source: cpu_header=..."
        )
    return inputs, cpu_src or cpu_grad_src


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise DTypeError(f"[code] {name} must be a string, got {type(value).__name__}")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise ArgumentError(
            f"[code] {name} line {value.count(chr(10), 0, error.start) + 1} has a character that is no text: "
            f"{value[error.start]!r}; write it as an escape sequence"
        ) from None
    return value


@lru_cache(maxsize=1)
def _compile_options() -> Any:
    """The row of ``flags.compile_options``."""
    from ..flag_names import find  # as `config` does: not part of the import

    return find("compile_options")


def _frozen(texts: Any) -> Any:
    return tuple(texts) if type(texts) is list else texts


def _once(function: Any, *parts: Any) -> Any:
    """What a function with a memory answers; without it where something is not to be hashed, and so no text."""
    try:
        return function(*parts)
    except TypeError:
        return function.__wrapped__(*parts)


def _code(written: tuple[Any, ...], options: tuple[str, ...], inputs: int, numbers: tuple[str, ...]) -> Code:
    """What was ``written``, per language: header, header of gradients, source and sources of gradients; without results."""
    snippet, gradients = _once(_snippets, written, options, inputs)
    return Code(snippet, (), numbers, 0, gradients)


@lru_cache(maxsize=256)  # a loop's calls are looked at once
def _with_results(
    written: tuple[Any, ...],
    options: tuple[str, ...],
    inputs: int,
    numbers: tuple[str, ...],
    shape: Any,
    dtype: Any,
) -> tuple[Code, tuple[bool, ...], bool]:
    """What the node holds, which results are dynamic (nothing if none is), and whether there is a list of them."""
    made = _code(written, options, inputs, numbers)
    specs, dynamic, several = _specs(shape, dtype)
    return replace(made, outputs=specs), dynamic if any(dynamic) else (), several


@lru_cache(maxsize=256)
def _snippets(
    written: tuple[Any, ...], options: tuple[str, ...], inputs: int
) -> tuple[Snippet, tuple[Snippet | None, ...]]:
    """The snippet and its gradients."""
    return _forward(written, options), _backward(written, options, inputs)


def _forward(written: tuple[Any, ...], options: tuple[str, ...]) -> Snippet:
    texts = []
    for language, header, _, source, _ in written:
        _text(f"{language}_header", header)
        if _text(f"{language}_src", source).strip():
            texts.append(Text(language, header, source, (f"{language}_header", f"{language}_src")))
    if not texts:
        raise ArgumentError("[code] cpu_src is empty; give the statements that compute out (or cuda_src)")
    return Snippet(tuple(texts), (), options)


def _backward(written: tuple[Any, ...], options: tuple[str, ...], inputs: int) -> tuple[Snippet | None, ...]:
    """A snippet per input, or ``None`` where no language has one; nothing if nobody has any."""
    found: list[list[Text]] = [[] for _ in range(inputs)]
    for language, header, own, _, texts in written:
        name = f"{language}_grad_src"
        if isinstance(texts, str) or not isinstance(texts, Sequence):
            raise DTypeError(f"[code] {name} must be a list of strings, got {type(texts).__name__}")
        if texts and len(texts) != inputs:
            raise ArgumentError(f"[code] {name} needs one source per input ({inputs}), got {len(texts)}")
        header = header if own is None else _text(f"{language}_grad_header", own)
        title = f"{language}_header" if own is None else f"{language}_grad_header"
        for k, text in enumerate(texts):
            if _text(f"{name}[{k}]", text).strip():
                found[k].append(Text(language, header, text, (title, f"{name}[{k}]")))
    snippets = tuple(Snippet(tuple(texts), (), options) if texts else None for texts in found)
    return snippets if any(snippets) else ()


def _options(given: Mapping[str, Any], argument: str = "") -> tuple[str, ...]:
    """Arguments of the compiler in the entries ``"FLAGS: ...": 1``; an ``argument`` may have no others."""
    if type(given) is dict and not given:
        return ()
    found: list[str] = []
    if not isinstance(given, Mapping):
        raise DTypeError(f"[code] {argument} must be a dict such as {{'FLAGS: -lz': 1}}, got {brief(given)}")
    for key, on in given.items():
        if not isinstance(key, str) or not key.startswith("FLAGS:"):
            if argument:
                raise ArgumentError(
                    f"[code] {argument}: unknown entry {brief(key)}; write 'FLAGS: ...' and 1"
                )
            continue
        try:
            words = shlex.split(key.removeprefix("FLAGS:"))
        except ValueError as error:
            raise ArgumentError(f"[code] {key!r} can't be split into arguments: {error}") from None
        for word in words:
            if word in _REFUSED or "\n" in word or "\0" in word:
                raise ArgumentError(
                    f"[code] the compiler can't be given {word!r}; only how it builds may be changed"
                )
        found += words if on else []
    return tuple(found)


def _specs(shape: Any, dtype: Any) -> tuple[tuple[Spec, ...], tuple[bool, ...], bool]:
    """What the results are at most, which of them are dynamic, and whether there is a list of them."""
    several = isinstance(shape, (tuple, list)) and len(shape) > 0 and isinstance(shape[0], (tuple, list))
    listed = list(shape) if several else [shape]
    kinds = list(dtype) if isinstance(dtype, (tuple, list)) else [dtype] * len(listed)
    if len(kinds) != len(listed) or (not several and isinstance(dtype, (tuple, list))):
        raise ArgumentError(
            f"[code] needs a dtype per shape, got {len(listed)} shapes and {len(kinds)} dtypes"
        )
    extents = [_shape(s) for s in listed]
    dtypes = [_dtype(d) for d in kinds]
    dynamic = tuple(e[0] < 0 for e in extents)
    return (
        tuple(spec_of((abs(e[0]), *e[1:]), d) for e, d in zip(extents, dtypes, strict=True)),
        dynamic,
        several,
    )


def _dtype(dtype: Any) -> DType:
    if dtype is None:
        raise DTypeError("[code] dtype of the result is missing; give one, such as 'float32'")
    return as_dtype(dtype)


def _shape(shape: Any) -> tuple[int, ...]:
    several = shape if isinstance(shape, (tuple, list)) else (shape,)
    extents = tuple(check_integer("code", "an extent", n) for n in several)
    if not extents or any(n < 0 for n in extents[1:]):
        raise ShapeError(
            f"[code] only the first extent may be negative (a dynamic upper bound), got {list(extents)}"
        )
    check_shape("code", [abs(extents[0]), *extents[1:]])
    return extents


# -- recording and running ------------------------------------------------------------------------------------------
def _recorded(
    code: Code, inputs: list[Var], numbers: dict[str, float], former: Sequence[Var] = ()
) -> list[Var]:
    """Record the node and, if there are gradient sources, what they belong to."""
    nodes = [x._node for x in inputs]
    device = executor.device()
    code.check(device.backend, device.kernels, [n.spec for n in nodes])
    scalars = tuple(numbers.values())
    results = record_several("code", code, [*nodes, *(x._node for x in former)], code.outputs, scalars)
    return attach("code", results, nodes, _pulled, code, scalars) if code.gradients else results


def _run_now(code: Code, inputs: list[Var], numbers: dict[str, float], dynamic: Sequence[bool]) -> list[Var]:
    """First extents are known only afterwards, so this runs now."""
    dev = executor.device()
    code.check(dev.backend, dev.kernels, [x._node.spec for x in inputs])
    for x in inputs:
        for watcher in executor.watchers:
            watcher.was_read(x._node)
    sync(inputs)
    given = [(_row_major(x, dev.backend), x._node.spec) for x in inputs]
    buffers = [Buffer(dev.backend, max(spec.nbytes, 1)) for spec in code.outputs]
    made = list(zip(buffers, code.outputs, strict=True))
    shapes = _observed(code, dev, given, made, code.numbers(list(numbers.values())))
    check_shapes(code.outputs, shapes, dynamic)
    results = []
    for buffer, spec, shape in zip(buffers, code.outputs, shapes, strict=True):
        final = spec_of(shape, spec.dtype)
        results.append(wrap(leaf(final, fitting(buffer, final), False)))
    if not code.gradients:
        return results
    code = replace(code, outputs=tuple(r._node.spec for r in results))
    return attach("code", results, [x._node for x in inputs], _pulled, code, tuple(numbers.values()))


def _observed(
    code: Code, dev: Any, given: Any, made: Any, numbers: dict[str, float]
) -> list[tuple[int, ...]]:
    """Run, and tell those who measure launches."""
    if not launching.observers:
        return code.snippet.launch(dev.backend, dev.kernels, given, made, numbers)
    from ..debug.launches import run_alone

    code.prepare(dev.backend, dev.kernels, [spec for _, spec in given])
    sizes = (sum(spec.nbytes for _, spec in given), sum(spec.nbytes for _, spec in made))
    return run_alone(  # type: ignore[no-any-return]
        "code",
        lambda: code.snippet.launch(dev.backend, dev.kernels, given, made, numbers),
        dev.backend,
        *sizes,
    )


def _row_major(x: Var, backend: Any) -> Buffer:
    """The stored value of ``x`` on ``backend``, its last dimension contiguous."""
    buffer = x._node.buffer
    assert buffer is not None
    if buffer.order is None and buffer.backend is backend:
        return buffer
    return executor.upload(executor.read(x._node), x._node.spec)


def _in_place(code: Code, inputs: list[Var], outputs: Any, numbers: dict[str, float]) -> tuple[Var, ...]:
    """Results begin as what ``outputs`` hold, and replace it."""
    if not _are_vars(outputs):
        raise DTypeError(
            f"[code] outputs must be a list of Vars that the snippet changes, got {brief(outputs)}"
        )
    if len({id(v) for v in outputs}) != len(outputs):
        raise ArgumentError("[code] outputs has a Var twice; each may be changed once")
    code = replace(code, outputs=tuple(v._node.spec for v in outputs), former=len(outputs))
    results = _recorded(code, inputs, numbers, outputs)
    for var, result in zip(outputs, results, strict=True):
        trained = var.requires_grad and not result.requires_grad
        var._bind(result._node)
        if trained:
            var.start_grad()
    return tuple(outputs)


# -- gradients ------------------------------------------------------------------------------------------------------
def _pulled(
    code: Any, number: int, inputs: list[Var], results: list[Var], upstream: Var, scalars: tuple[Any, ...]
) -> list[Var | None]:
    """What the gradient sources make of the gradient of one result."""
    data, values = code.data, scalars
    if "out_index" not in data:
        data, values = (*data, "out_index"), (*values, float(number))
    nodes = [x._node for x in (*inputs, upstream, *results)]
    found: list[Var | None] = []
    for snippet, x in zip(code.pulling(number, len(inputs)), inputs, strict=True):
        if snippet is None or not x.dtype.is_float:
            found.append(None)
            continue
        part = Code(snippet, (x._node.spec,), data)
        found += record_several("code_grad", part, nodes, part.outputs, values)
    return found


# -- options of a Var that code made ----------------------------------------------------------------------------------
def _get_options(var: Var) -> dict[str, int]:
    """What was set last; see ``code``."""
    return dict(var.__dict__.get("_compile_options", {}))


def _set_options(var: Var, options: Mapping[str, int]) -> None:
    """Give the compiler options for a result of ``code`` that has not run yet; on other Vars they have no effect."""
    words = _options(options)
    var.__dict__["_compile_options"] = dict(options)
    node = var._node
    while node.buffer is None and (node.sig.kind == "alias" or isinstance(node.sig.attrs, Result)):
        node = node.inputs[0]
    if node.buffer is None and isinstance(node.sig.attrs, Code):
        sig = node.sig
        attrs = replace(sig.attrs, snippet=replace(sig.attrs.snippet, options=words))
        node.sig = signature(
            sig.kind, sig.name, attrs, sig.inputs, sig.spec, sig.body, sig.scalars, sig.gradient
        )


Var.compile_options = property(_get_options, _set_options)  # type: ignore[attr-defined]


# -- what code replaces ----------------------------------------------------------------------------------------------
def compile_custom_op(*args: Any, **kwargs: Any) -> NoReturn:
    """Not here: operators of one's own are written with ``code``, ``numpy_code`` or ``Function``; devices are plugins.

    Errors: BackendError, always, with what to use.

    Example:
        >>> import metafuse as mf
        >>> try:
        ...     mf.compile_custom_op("", "class MyOp {};", "my")
        ... except RuntimeError as error:
        ...     print(str(error)[:19])
        [compile_custom_op]
    """
    raise BackendError(
        "[compile_custom_op] C++ classes of another framework's operators can't be compiled here; put the loop into "
        "metafuse.code(shape, dtype, inputs, cpu_src=..., cpu_header='#include \"mine.h\"'), its gradient into cpu_grad_src"
    )


def compile_custom_ops(*args: Any, **kwargs: Any) -> NoReturn:
    """Not here; see ``compile_custom_op``.

    Errors: BackendError, always, with what to use.

    Example:
        >>> import metafuse as mf
        >>> try:
        ...     mf.compile_custom_ops(["my_op.cc"])
        ... except RuntimeError as error:
        ...     print(str(error)[:20])
        [compile_custom_ops]
    """
    raise BackendError(
        "[compile_custom_ops] C++ classes of another framework's operators can't be compiled here; use metafuse.code: its "
        "cpu_header may include your files, and compile_options={'FLAGS: -I... -l...': 1} name folders and libraries"
    )
