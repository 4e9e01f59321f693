"""Users' own C++ snippets: ``metafuse.code(..., cpu_header=..., cpu_src=...)``.

What it is: the text around a snippet (its arrays, types, ``data`` and error handling) and the launch of a compiled one.
What it is not: the operator ``code`` with its shapes and gradients (``metafuse.ops.code``).
Who calls it: ``metafuse.runtime``, through the backend.

A snippet is the body of a function. It sees, for every array ``x`` among ``in0 in1 ... out0 out1 ... out`` and the aliases:
``x_p`` (pointer), ``x_type``, ``x_dim``, ``x_shapeK`` (int), ``x_strideK`` (in elements), ``x`` itself (``x->num``,
``x->shape[k]``, ``x->ptr<T>()``, and for outputs ``x->set_shape({n, ...})``, which may shrink dimension 0), and
``data["name"]`` for run-time numbers. The standard library and OpenMP may be used; exceptions become ``KernelError``. Loops
that call ``mf_expf``, ``mf_logf``, ``mf_tanhf`` or ``mf_erff`` in place of ``std::exp`` ... of floats can be vectorised.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from metafuse.backend.contract import Handle, Loaded
from metafuse.dtypes import DType
from metafuse.errors import ArgumentError, BackendError

from .code_prelude import PRELUDE
from .code_threads import threads
from .compiler import CODE_MARKER
from .headers import included
from .macro_scope import Scope, declare
from .macros import expand, unbalanced, without_comments
from .polynomials import FUNCTIONS, polynomial

__all__ = ["CodeOps"]

_TYPES = {"bool": "bool"}  # every other type has the same name in C++
_DATA = re.compile(r'\bdata\s*\[\s*"((?:[^"\\\n]|\\.)*)"\s*\]')
_REFERENCE = re.compile(r"(in|out)(\d+)")


class CodeOps:
    """The part of the backend that compiles and runs snippets (``SupportsCodeOp``)."""

    code_language = "cpu"

    def emit_code(
        self,
        symbol: str,
        header: str,
        source: str,
        inputs: Sequence[tuple[DType, int]],
        outputs: Sequence[tuple[DType, int]],
        aliases: Mapping[str, str] | None = None,
        options: Sequence[str] = (),
        files: tuple[str, str] = ("cpu_header", "cpu_src"),
        data: Collection[str] | None = None,
    ) -> str:
        """The whole C++ text of a snippet.

        Args:
            symbol: the name to load it by.
            header: text at file scope, before the function; may include headers and define functions.
            source: the body of the function.
            inputs, outputs: (dtype, number of dimensions) of ``in0 ...`` and ``out0 ...``.
            aliases: more names for arrays, such as ``{"dout": "in2", "pout0": "in1"}``.
            options: arguments of the compiler and the linker, such as ``-I/opt/include`` and ``-lz``.
            files: what messages call header and source.
            data: names of the run-time numbers, if they are known: the source may read no others.

        Errors: ``ArgumentError`` for a mistake in macros, with its position, and for a number that ``data`` lacks.
        """
        arrays = [("in", k, *spec) for k, spec in enumerate(inputs)]
        arrays += [("out", k, *spec) for k, spec in enumerate(outputs)]
        scope = _scope(arrays, {"out": "out0", **(aliases or {})} if outputs else dict(aliases or {}))
        written = header, source
        header, source = expand(header, files[0], scope), expand(source, files[1], scope)
        numbers = sorted(set(_DATA.findall(without_comments(source))))
        _check_numbers(numbers, data, files[1])
        asked = f" {shlex.join(options)}" if options else ""
        # a header that changes is another text, and so is compiled again
        known_files = "".join(f"// {path} {digest}\n" for path, digest in included(written, options))
        functions = [
            polynomial(name, "static inline") for name in FUNCTIONS if f"mf_{name}f" in header + source
        ]
        types = [f"using {role}{k}_type = {_type_name(dtype)};" for role, k, dtype, _ in arrays]
        types += [f"using {name}_type = {array.canonical}_type;" for name, array in scope.aliases.items()]
        return "\n".join(
            [
                f"{CODE_MARKER}{asked}\n{known_files}{PRELUDE}{threads(symbol, (header, source), options)}",
                *types,
                *functions,
                f'#line 1 "{files[0]}"\n{header}',
                _end(files[0], written[0], f"{symbol}_after_header"),
                '#line 1 "wrapper"',
                _body(symbol, arrays, scope, source, files[1]),
                _end(files[1], written[1], f"{symbol}_after_source", "}}"),
                _entry(symbol, arrays, numbers),
            ]
        )

    def launch_code(
        self,
        loaded: Loaded,
        inputs: Sequence[tuple[Handle, tuple[int, ...]]],
        outputs: Sequence[tuple[Handle, tuple[int, ...]]],
        data: dict[str, float],
        offsets: Sequence[int] = (),
    ) -> list[tuple[int, ...]]:
        """Run a snippet on (handle, shape) pairs; the answer has the final shapes of the outputs. ``offsets``: the byte of its
        buffer at which each output begins; 0 where missing.

        Errors: ``KernelError`` with the words of an exception that the snippet threw; ``ArgumentError`` where shapes do not
        fit what the snippet was compiled for.
        """
        run: Any = getattr(loaded, "run", None)
        if run is None:
            raise BackendError(f"[code] not a loaded snippet: {loaded!r}")
        shapes: list[tuple[int, ...]] = run(inputs, outputs, data, offsets)
        return shapes


def _scope(arrays: Sequence[tuple[str, int, DType, int]], aliases: Mapping[str, str]) -> Scope:
    """What names mean in a snippet: its arrays, their aliases, and definitions made from all of them."""
    scope = Scope({}, {"JIT": "1", "JIT_cpu": "1"})
    for role, number, dtype, rank in arrays:
        declare(scope, f"{role}{number}", f"{role}{number}", rank, _type_name(dtype))
    for name, canonical in aliases.items():
        if canonical not in scope.arrays or not _REFERENCE.fullmatch(canonical):
            raise ArgumentError(f"[code] alias {name!r} stands for an unknown array: {canonical!r}")
        array = scope.arrays[canonical]
        declare(scope, name, canonical, array.rank, scope.definitions[f"{canonical}_type"])
        scope.aliases[name] = array
    scope.definitions.update(_whole(arrays, aliases))
    return scope


def _type_name(dtype: DType) -> str:
    return _TYPES.get(dtype.name, dtype.name)


def _whole(arrays: Sequence[tuple[str, int, DType, int]], aliases: Mapping[str, str]) -> dict[str, str]:
    """``@ARGS_DEF``, ``@ARGS`` and ``@PRECALC``: all arrays as parameters of a function, as its arguments, and what it
    computes from them first."""
    parameters, names, first = [], [], []
    for role, number, _, rank in arrays:
        name = f"{role}{number}"
        parameters += [f"{name}_type* {name}_p", *(f"int {name}_shape{d}" for d in range(rank))]
        names += [f"{name}_p", *(f"{name}_shape{d}" for d in range(rank))]
        first += _strides(name, rank)
    first += [f"auto* const {name}_p = {canonical}_p;" for name, canonical in aliases.items()]
    return {"ARGS_DEF": ", ".join(parameters), "ARGS": ", ".join(names), "PRECALC": " ".join(first)}


def _check_numbers(read: Sequence[str], given: Collection[str] | None, file: str) -> None:
    """Whether ``data`` has all that a snippet reads of it."""
    for name in read:
        if given is not None and name not in given:
            there = ", ".join(map(repr, given)) or "nothing"
            raise ArgumentError(
                f"[code] {file} reads data[{name!r}], which is missing there: data has {there}; add it"
            )


def _strides(name: str, rank: int) -> list[str]:
    """The distances between neighbours, the last dimension first."""
    strides = [f"{name}_stride{d + 1} * {name}_shape{d + 1}" if d + 1 < rank else "1" for d in range(rank)]
    return [f"const long long {name}_stride{d} = {strides[d]};" for d in reversed(range(rank))]


def _body(
    symbol: str, arrays: Sequence[tuple[str, int, DType, int]], scope: Scope, source: str, file: str
) -> str:
    """The function around the user's text, up to its end (``_end`` closes it). The text stands in a block of its own, so that
    it may declare any name."""
    parameters = ", ".join(f"metafuse_code::Array* {role}{k}" for role, k, _, _ in arrays)
    separator = ", " if parameters else ""
    lines = [f"static void {symbol}_body({parameters}{separator}const metafuse_code::Data& data) {{"]
    for role, number, _, rank in arrays:
        name = f"{role}{number}"
        lines.append(f"    {name}_type* const {name}_p = {name}->ptr<{name}_type>();")
        lines.append(f"    const int {name}_dim = {rank};")
        lines += [f"    const int {name}_shape{d} = (int){name}->shape[{d}];" for d in range(rank)]
        lines += [f"    {line}" for line in _strides(name, rank)]
    for name, array in scope.aliases.items():
        old = array.canonical
        lines.append(f"    metafuse_code::Array* const {name} = {old};")
        suffixes = ["_p", "_dim", *(f"_{what}{d}" for what in ("shape", "stride") for d in range(array.rank))]
        lines += [f"    const auto {name}{suffix} = {old}{suffix};" for suffix in suffixes]
    return "\n".join([*lines, "    {", f'#line 1 "{file}"', source])


def _end(file: str, text: str, name: str, closing: str = "") -> str:
    """What follows a text of the user. Where that left a bracket open or closed one too many, the compiler complains of this
    function, and so of the place of that bracket. It begins with a line for a backslash at the end of the text to swallow."""
    line, wrong = unbalanced(text) or (text.rstrip().count("\n") + 1, "")
    place = f"{file} line {line}: {wrong}" if wrong else file
    return f'\n#line {line} "{place}"\n{closing} static inline void {name}() {{}}'


def _entry(symbol: str, arrays: Sequence[tuple[str, int, DType, int]], names: Sequence[str]) -> str:
    """What the runtime calls: no exception gets out of it. ``names`` are entries of ``data`` that the text reads; they are
    looked up first, since an exception in a parallel loop of OpenMP would end the process."""
    inputs = sum(role == "in" for role, *_ in arrays)
    signature = [inputs, len(arrays) - inputs]
    lines, offsets = [], {"in": 0, "out": 0}
    for position, (role, number, dtype, rank) in enumerate(arrays):
        extents = (
            f"const_cast<long long*>(in_shapes) + {offsets['in']}"
            if role == "in"
            else f"out_shapes + {offsets['out']}"
        )
        lines.append(
            f"        metafuse_code::Array {role}{number}_(const_cast<void*>(buffers[{position}]), {extents}, {rank}, "
            f"{dtype.itemsize}, {'true' if role == 'out' else 'false'});"
        )
        offsets[role] += rank
        signature += [rank, dtype.itemsize]
    arguments = "".join(f"&{role}{number}_, " for role, number, _, _ in arrays)
    declarations = "\n".join(lines)
    lookups = "".join(f'        data["{name}"];\n' for name in names)
    return f"""
#line 1 "entry"
extern "C" const long long {symbol}_signature[] = {{{", ".join(map(str, signature))}}};
extern "C" int {symbol}_snippet(void* const* buffers, const long long* in_shapes, long long* out_shapes,
                                const char* const* names, const double* values, long long count, int threads,
                                char* message, long long capacity) {{
#ifdef _OPENMP
    omp_set_num_threads(threads);
#endif
    (void)threads;
    try {{
{declarations}
        const metafuse_code::Data data{{names, values, count}};
{lookups}        {symbol}_body({arguments}data);
        return 0;
    }} catch (const std::exception& error) {{
        std::snprintf(message, std::size_t(capacity), "%s", error.what());
    }} catch (...) {{
        std::snprintf(message, std::size_t(capacity), "it threw something that is no std::exception");
    }}
    return 1;
}}
"""
