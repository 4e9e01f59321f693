"""Users' own C++ snippets: ``metafuse.code(..., cpu_header=..., cpu_src=...)``.

What it is: the text around a snippet (its arrays, types, ``data`` and error handling) and the launch of a compiled one.
What it is not: the operator ``code`` with its shapes and gradients (``metafuse.ops.code``).
Who calls it: ``metafuse.runtime``, through the backend.

A snippet is the body of a function. It sees, for every array ``x`` among ``in0 in1 ... out0 out1 ... out`` and the aliases:
``x_p`` (pointer), ``x_type``, ``x_dim``, ``x_shapeK`` (int), ``x_strideK`` (in elements), ``x`` itself (``x->num``,
``x->shape[k]``, ``x->ptr<T>()``, and for outputs ``x->set_shape({n, ...})``, which may shrink dimension 0), and
``data["name"]`` for run-time numbers. The standard library and OpenMP may be used; exceptions become ``KernelError``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from metafuse.backend.contract import Handle, Loaded
from metafuse.dtypes import DType
from metafuse.errors import ArgumentError, BackendError

from .compiler import CODE_MARKER
from .macros import Scope, declare, expand

__all__ = ["CodeOps"]

_PRELUDE = r"""
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <iostream>
#include <limits>
#include <map>
#include <stdexcept>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>
#ifdef _OPENMP
#include <omp.h>
#endif
namespace metafuse_code {
typedef int8_t int8;
typedef int16_t int16;
typedef int32_t int32;
typedef int64_t int64;
typedef uint8_t uint8;
typedef uint16_t uint16;
typedef uint32_t uint32;
typedef uint64_t uint64;
typedef float float32;
typedef double float64;
#ifdef __FLT16_MAX__
typedef _Float16 float16;
#endif
struct bfloat16 {
    uint16_t bits;
    bfloat16() = default;
    bfloat16(float value) {
        uint32_t whole;
        std::memcpy(&whole, &value, 4);
        if (value == value) whole += 0x7fffU + (whole >> 16 & 1U);
        else if (!(whole & 0x7f0000U)) whole |= 0x400000U;
        bits = uint16_t(whole >> 16);
    }
    operator float() const {
        const uint32_t whole = uint32_t(bits) << 16;
        float value;
        std::memcpy(&value, &whole, 4);
        return value;
    }
    bfloat16& operator+=(float value) { return *this = float(*this) + value; }
    bfloat16& operator-=(float value) { return *this = float(*this) - value; }
    bfloat16& operator*=(float value) { return *this = float(*this) * value; }
    bfloat16& operator/=(float value) { return *this = float(*this) / value; }
};
struct Extents {
    long long* values;
    int count;
    long long operator[](int k) const { return values[k]; }
    int size() const { return count; }
    long long* begin() const { return values; }
    long long* end() const { return values + count; }
};
struct Array {
    void* pointer;
    Extents shape;
    long long num;
    long long size;
    bool output;
    long long most;
    int itemsize;
    Array(void* p, long long* extents, int rank, int item, bool out)
        : pointer(p), shape{extents, rank}, num(1), size(0), output(out), most(rank ? extents[0] : 0), itemsize(item) {
        count();
    }
    void count() {
        num = 1;
        for (long long extent : shape) num *= extent;
        size = num * itemsize;
    }
    template <class T>
    T* ptr() const { return static_cast<T*>(pointer); }
    void set_shape(std::initializer_list<long long> extents) { set_shape(std::vector<long long>(extents)); }
    void set_shape(const std::vector<long long>& extents) {
        if (!output) throw std::invalid_argument("set_shape: only outputs can change their shape");
        if (extents.size() != std::size_t(shape.count))
            throw std::invalid_argument("set_shape: " + std::to_string(extents.size()) + " dimensions given for an output of " +
                                        std::to_string(shape.count));
        for (std::size_t k = 0; k < extents.size(); ++k) {
            const bool fits = k == 0 ? extents[0] >= 0 && extents[0] <= most : extents[k] == shape.values[k];
            if (!fits)
                throw std::invalid_argument("set_shape: dimension " + std::to_string(k) + " can't become " +
                                            std::to_string(extents[k]) + ": it is " +
                                            std::to_string(k == 0 ? most : shape.values[k]) +
                                            (k == 0 ? " at most" : " and only dimension 0 may change"));
        }
        if (shape.count) shape.values[0] = extents[0];
        count();
    }
};
struct Data {
    const char* const* names;
    const double* values;
    long long count;
    double operator[](const char* name) const {
        for (long long k = 0; k < count; ++k)
            if (std::strcmp(names[k], name) == 0) return values[k];
        throw std::out_of_range(std::string("data has no entry \"") + name + "\"");
    }
    double operator[](const std::string& name) const { return (*this)[name.c_str()]; }
    double at(const std::string& name) const { return (*this)[name.c_str()]; }
};
}  // namespace metafuse_code
using namespace metafuse_code;
using namespace std;
#define JIT 1
#define JIT_cpu 1
"""

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
    ) -> str:
        """The whole C++ text of a snippet.

        Args:
            symbol: the name to load it by.
            header: text at file scope, before the function; may include headers and define functions.
            source: the body of the function.
            inputs, outputs: (dtype, number of dimensions) of ``in0 ...`` and ``out0 ...``.
            aliases: more names for arrays, such as ``{"dout": "in2", "pout0": "in1"}``.

        Errors: ``ArgumentError`` for a mistake in macros, with its position.
        """
        arrays = [("in", k, *spec) for k, spec in enumerate(inputs)]
        arrays += [("out", k, *spec) for k, spec in enumerate(outputs)]
        scope = Scope({}, {"JIT": "1", "JIT_cpu": "1"})
        for role, number, dtype, rank in arrays:
            declare(scope, f"{role}{number}", f"{role}{number}", rank, _type_name(dtype))
        known = {"out": "out0", **(aliases or {})} if outputs else dict(aliases or {})
        for name, canonical in known.items():
            if canonical not in scope.arrays or not _REFERENCE.fullmatch(canonical):
                raise ArgumentError(f"[code] alias {name!r} stands for an unknown array: {canonical!r}")
            declare(
                scope, name, canonical, scope.arrays[canonical].rank, scope.definitions[f"{canonical}_type"]
            )
            scope.aliases[name] = scope.arrays[canonical]
        header, source = expand(header, "cpu_header", scope), expand(source, "cpu_src", scope)
        types = [f"using {role}{k}_type = {_type_name(dtype)};" for role, k, dtype, _ in arrays]
        types += [f"using {name}_type = {array.canonical}_type;" for name, array in scope.aliases.items()]
        return "\n".join(
            [
                f"{CODE_MARKER}{_PRELUDE}",
                *types,
                f'#line 1 "cpu_header"\n{header}',
                '#line 1 "wrapper"',
                _body(symbol, arrays, scope, source),
                _entry(symbol, arrays, sorted(set(_DATA.findall(source)))),
            ]
        )

    def launch_code(
        self,
        loaded: Loaded,
        inputs: Sequence[tuple[Handle, tuple[int, ...]]],
        outputs: Sequence[tuple[Handle, tuple[int, ...]]],
        data: dict[str, float],
    ) -> list[tuple[int, ...]]:
        """Run a snippet on (handle, shape) pairs; the answer has the final shapes of the outputs.

        Errors: ``KernelError`` with the words of an exception that the snippet threw; ``ArgumentError`` where shapes do not
        fit what the snippet was compiled for.
        """
        run: Any = getattr(loaded, "run", None)
        if run is None:
            raise BackendError(f"[code] not a loaded snippet: {loaded!r}")
        shapes: list[tuple[int, ...]] = run(
            list(inputs), list(outputs), {name: float(data[name]) for name in data}
        )
        return shapes


def _type_name(dtype: DType) -> str:
    return _TYPES.get(dtype.name, dtype.name)


def _body(symbol: str, arrays: Sequence[tuple[str, int, DType, int]], scope: Scope, source: str) -> str:
    """The function around the user's text. The text stands in a block of its own, so that it may declare any name."""
    parameters = ", ".join(f"metafuse_code::Array* {role}{k}" for role, k, _, _ in arrays)
    separator = ", " if parameters else ""
    lines = [f"static void {symbol}_body({parameters}{separator}const metafuse_code::Data& data) {{"]
    for role, number, _, rank in arrays:
        name = f"{role}{number}"
        lines.append(f"    {name}_type* const {name}_p = {name}->ptr<{name}_type>();")
        lines.append(f"    const int {name}_dim = {rank};")
        lines += [f"    const int {name}_shape{d} = (int){name}->shape[{d}];" for d in range(rank)]
        for d in reversed(range(rank)):
            stride = f"{name}_stride{d + 1} * {name}_shape{d + 1}" if d + 1 < rank else "1"
            lines.append(f"    const long long {name}_stride{d} = {stride};")
    for name, array in scope.aliases.items():
        old = array.canonical
        lines.append(f"    metafuse_code::Array* const {name} = {old};")
        suffixes = ["_p", "_dim", *(f"_{what}{d}" for what in ("shape", "stride") for d in range(array.rank))]
        lines += [f"    const auto {name}{suffix} = {old}{suffix};" for suffix in suffixes]
    return "\n".join([*lines, "    {", '#line 1 "cpu_src"', source, "    }", "}"])


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
