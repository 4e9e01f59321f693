"""Matrix products and convolutions as packed, register-blocked C++: one kernel's part around the contraction engine.

What it is: ``emit``, the text of a kernel whose first stage sums the product of two operands (``Kernel.contraction``):
matmul, batched matmul and, by index algebra alone, convolution forward, backward-data and backward-weight. Specific to a
kernel are only the tables that say which run-time size plays which part, and the epilogue that turns finished sums into
stores. All extents, strides, paddings and divisors are read from ``sizes`` when the kernel runs.
What it is not: a loop nest; other kernels, and those declined here, are ``codegen``'s. The engine is a library of its own
(``contraction_library``), to which the text refers.
Who calls it: ``codegen``.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from metafuse.backend.contract import Machine
from metafuse.dtypes import DType, bfloat16, float16, int64
from metafuse.kernel.cstyle import LIBRARY, rounded, stored, unsigned_of
from metafuse.kernel.expr import Expr, add, axis, load, mul, walk
from metafuse.kernel.ir import Contraction, Kernel, Operand, Stage
from metafuse.kernel.scope import Printer, Scope, affine

from .contraction_library import BFLOAT16, Types, entry, reference
from .dialect import SCALAR, CpuDialect

__all__ = ["emit"]

# Limits of the engine's tables, as in its text.
AXES, DIMENSIONS, GUARDS, EXPRESSIONS = 16, 12, 4, 24
# Numbers for leaves that only exist inside an epilogue's loop; no kernel has as many axes or sizes.
_POSITION, _LOOP_AXIS, _BASE, _STRIDE = 1000, 2000, 3000, 4000


def emit(kernel: Kernel, symbol: str, machine: Machine, vector_math: bool = True) -> str | None:
    """C++ text that defines ``kernel`` under the name ``symbol``, or ``None`` if it has no contraction of a known form.

    Args:
        kernel: the kernel; its stage 0 is the sum of products that ``kernel.contraction`` describes.
        symbol: the C name. Also defined: ``SYMBOL_units`` and ``SYMBOL_grain``.
        machine: decides register tiles and blocks.
        vector_math: whether the compiler has vector versions of the C library's functions.

    The text needs no header and may be concatenated with others of the same machine. Its first line names the library that
    it has to be linked with.
    """
    types = _types(kernel)
    if types is None or kernel.contraction is None:
        return None
    epilogue = _Epilogue(kernel)
    if not epilogue.collect():
        return None
    printer = Printer(kernel, CpuDialect(vector_math=vector_math))
    run = epilogue.text(printer, symbol, types[0])
    table = _table_text(kernel, printer, symbol, epilogue, machine)
    needs = "".join(printer.needs.values())
    return f"{reference(types, machine)}{SCALAR}{needs}{run}\n{table}{_entry_text(symbol, entry(types))}"


# -- which kernels ----------------------------------------------------------------------------------------------------
def _types(kernel: Kernel) -> Types | None:
    """The element types, or ``None`` if the kernel is not a plain sum of products of two loads within the limits."""
    contraction, stage = kernel.contraction, kernel.stages[0]
    if contraction is None or kernel.outer + kernel.inner > AXES or not (contraction.m or contraction.n):
        return None
    if stage.kind != "reduce" or stage.op != "add" or not _solvable(contraction):
        return None
    product, dtype = stage.expr, stage.expr.dtype
    if product.op == "cast" and product.args[0].dtype.is_float and dtype.is_float:
        product = product.args[0]
    if product.op != "mul" or dtype.kind == "b":
        return None
    found = []
    for factor in product.args:
        read = factor.args[0] if factor.op == "cast" else factor
        if read.op != "load" or (read.dtype.is_float and dtype.is_integer):
            return None
        found.append(read.value)
    if sorted(found) != sorted([contraction.a.buffer, contraction.b.buffer]):
        return None
    total = _sum_type(dtype)
    first, second = (
        _element_type(kernel.buffers[o.buffer].dtype, total) for o in (contraction.a, contraction.b)
    )
    return total, first, second


def _sum_type(dtype: DType) -> str:
    if dtype.is_integer:
        return unsigned_of(dtype)
    return "double" if dtype.itemsize == 8 else "float"


def _element_type(dtype: DType, total: str) -> str:
    """Integers of the sum's width are read as the sum's type, which wraps like theirs."""
    if dtype is bfloat16:
        return BFLOAT16
    if dtype is float16:
        return "_Float16"
    return total if dtype.is_integer and dtype.itemsize >= 4 and unsigned_of(dtype) == total else dtype.c_name


def _solvable(contraction: Contraction) -> bool:
    """Whether the engine can remove every divisor: it needs at most one k axis under each, and no axis under two."""
    under: list[int] = []
    for operand, role in ((contraction.a, contraction.m), (contraction.b, contraction.n)):
        if len(operand.dims) > DIMENSIONS or sum(dim.guarded for dim in operand.dims) > GUARDS:
            return False
        for dim in operand.dims:
            axes = {number for number, _ in dim.coefficients}
            if dim.divisor is None:
                continue
            if len(axes & set(contraction.k)) > 1:
                return False
            under += [number for number in axes if number in role or number in contraction.k]
    return len(under) == len(set(under))


# -- the epilogue -----------------------------------------------------------------------------------------------------
@dataclass
class _Epilogue:
    """What happens to finished sums: the stages after the first, with their affine offsets set apart.

    ``offsets``: the distinct affine offsets, the first store's first. ``joins``: no axis is used in any other way, so that
    a run of lanes may continue from one axis into the next where all offsets advance evenly.
    """

    kernel: Kernel
    offsets: list[Expr] = field(default_factory=list)
    joins: bool = True

    def collect(self) -> bool:
        """Find the offsets; answers whether the stages are of a form that this module can print."""
        stages = self.kernel.stages[1:]
        if any(stage.kind not in ("store", "let") or stage.level != "outer" for stage in stages):
            return False
        stores = [stage for stage in stages if stage.kind == "store"]
        for stage in stores:
            if stage.offset is None or not self._note(stage.offset):
                return False
        for stage in stages:
            self._inspect(stage.expr)
        return bool(stores) and len(self.offsets) <= EXPRESSIONS

    def _note(self, offset: Expr) -> bool:
        split = affine(offset)
        if any(node.op in ("axis", "load", "value") for term in split.rest for node in walk(term)):
            return False
        if offset not in self.offsets:
            self.offsets.append(offset)
        return True

    def _inspect(self, root: Expr) -> None:
        """Note the offsets of loads under ``root``; axes anywhere else forbid joining."""
        stack = [root]
        while stack:
            node = stack.pop()
            if node.op == "axis":
                self.joins = False
            elif node.op == "load" and self._note(node.args[0]):
                stack.extend(node.args[1:])
            else:
                stack.extend(node.args)

    def _patterns(self) -> list[tuple[int, ...]]:
        """Strides worth a loop of their own: 1 where an offset depends on an axis of the lanes' role, else 0."""
        contraction = self.kernel.contraction
        assert contraction is not None
        found = []
        for role in (contraction.n, contraction.m):
            pattern = tuple(
                int(bool(set(affine(offset).coefficients) & set(role))) for offset in self.offsets
            )
            if pattern[0] and pattern not in found:
                found.append(pattern)
        return found

    def text(self, printer: Printer, symbol: str, total: str) -> str:
        """The function that ends ``count`` sums along one line of lanes."""
        scope = Scope(printer)
        for number, buffer in enumerate(self.kernel.buffers):
            if any(stage.buffer == number for stage in self.kernel.stages[1:]) or self._loads(number):
                kind = buffer.dtype.c_name if buffer.writes else f"const {buffer.dtype.c_name}"
                scope.line(f"typedef {kind} __attribute__((may_alias)) T{number};")
                scope.line(f"T{number} *b{number} = (T{number} *)buffers[{number}];")
        for number in range(self.kernel.outer):
            scope.bind("axis", number, f"axis[{number}]", lazy=True)
        for number, offset in enumerate(self.offsets):
            scope.line(
                f"const long long base{number} = {scope.index(offset)}, stride{number} = stride[{number}];"
            )
            scope.bind("axis", _BASE + number, f"base{number}")
            scope.bind("size", _STRIDE + number, f"stride{number}")
        for pattern in self._patterns():
            test = " && ".join(f"stride{number} == {wanted}" for number, wanted in enumerate(pattern))
            with scope.block(f"if ({test})", holds_loads=True) as branch:
                self._loop(branch, total, pattern)
                branch.line("return;")
        with scope.block("", holds_loads=True) as rest:
            self._loop(rest, total, (-1,) * len(self.offsets))
        head = (
            f"static void {symbol}_run(void **buffers, const long long *sizes, const void *scalar_table,\n"
            "        const long long *axis, const long long *delta, const long long *stride, long long count,\n"
            "        const void *value_table) {"
        )
        first = [
            "const mf_scalar *scalars = (const mf_scalar *)scalar_table;",
            f"const {total} *values = (const {total} *)value_table;",
        ]
        return "\n".join([head, *("    " + line for line in first + scope.lines), "}"])

    def _loads(self, buffer: int) -> bool:
        roots = [stage.expr for stage in self.kernel.stages[1:]]
        return any(node.op == "load" and node.value == buffer for root in roots for node in walk(root))

    def _calls(self) -> bool:
        """Whether the stages call functions of the C library."""
        roots = [stage.expr for stage in self.kernel.stages[1:]]
        return any(node.op in LIBRARY for root in roots for node in walk(root))

    def _address(self, offset: Expr, pattern: tuple[int, ...]) -> Expr:
        number = self.offsets.index(offset)
        step = axis(_POSITION)
        if pattern[number] == 0:
            return axis(_BASE + number)
        if pattern[number] < 0:
            step = mul(step, Expr("size", (), int64, _STRIDE + number))
        return add(axis(_BASE + number), step)

    def _loop(self, scope: Scope, total: str, pattern: tuple[int, ...]) -> None:
        # Elements that are apart are moved one by one: short vectors are as fast then, and compile in half the time.
        short = " simdlen(4)" if -1 in pattern and not self._calls() else ""
        with scope.block("for (long long t = 0; t < count; t++)", pragma=f"#pragma omp simd{short}") as body:
            body.bind("axis", _POSITION, "t")
            for number in range(self.kernel.outer):
                body.bind("axis", _LOOP_AXIS + number, f"axis[{number}] + t * delta[{number}]", lazy=True)
            self._bind_value(body, self.kernel.stages[0], "values[t]", total)
            for stage in self.kernel.stages[1:]:
                self._statement(body, stage, pattern)

    def _bind_value(self, body: Scope, stage: Stage, text: str, total: str) -> None:
        dtype, printer = stage.expr.dtype, body.printer
        same = dtype.c_name == total
        text = text if same else rounded(text, dtype, printer.dialect, printer.needs)
        body.bind("value", stage.result, text, lazy=True)

    def _statement(self, body: Scope, stage: Stage, pattern: tuple[int, ...]) -> None:
        text = body.value(self._placed(stage.expr, pattern))
        if stage.kind == "let":
            body.bind("value", stage.result, text)
            return
        assert stage.offset is not None
        index = body.index(self._address(stage.offset, pattern))
        printer = body.printer
        text = stored(text, self.kernel.buffers[stage.buffer].dtype, printer.dialect, printer.needs)
        body.line(f"b{stage.buffer}[{index}] = {text};")
        body.forget(stage.buffer)

    def _placed(self, root: Expr, pattern: tuple[int, ...]) -> Expr:
        """``root`` at position ``t`` of a run: noted offsets become base + t * stride, axes variables of the loop."""
        done: dict[Expr, Expr] = {}
        stack: list[tuple[Expr, bool]] = [(root, False)]
        while stack:
            node, ready = stack.pop()
            if node in done:
                continue
            noted = node.op == "load" and node.args[0] in self.offsets
            operands = node.args[1:] if noted else node.args
            if not ready and operands:
                stack.append((node, True))
                stack.extend((operand, False) for operand in operands)
                continue
            fresh = [done[operand] for operand in operands]
            if node.op == "load":
                place = [self._address(node.args[0], pattern)] if noted else []
                done[node] = load(node.value, node.dtype, *place, *fresh)
            elif node.op == "axis":
                done[node] = axis(_LOOP_AXIS + node.value)
            else:
                done[node] = Expr(node.op, tuple(fresh), node.dtype, node.value)
        return done[root]


# -- tables -----------------------------------------------------------------------------------------------------------
def _describe(kernel: Kernel, contraction: Contraction) -> list[int]:
    """The contraction as the numbers that the engine's ``parse`` reads."""
    numbers = [kernel.outer + kernel.inner]
    for role in (contraction.batch, contraction.m, contraction.n, contraction.k):
        numbers += [len(role), *role]
    for operand in (contraction.a, contraction.b):
        numbers += _describe_operand(operand)
    return numbers


def _describe_operand(operand: Operand) -> list[int]:
    numbers = [operand.buffer, len(operand.dims)]
    for dim in operand.dims:
        numbers += [len(dim.coefficients), *(number for pair in dim.coefficients for number in pair)]
        numbers += [-1 if slot is None else slot for slot in (dim.constant, dim.divisor)]
        numbers += [int(dim.guarded), dim.extent, dim.stride]
    return numbers


def _table_text(kernel: Kernel, printer: Printer, symbol: str, epilogue: _Epilogue, machine: Machine) -> str:
    """What the engine is handed: the description, the epilogue, and the function that knows the epilogue's offsets."""
    assert kernel.contraction is not None
    scope = Scope(printer)
    for number, offset in enumerate(epilogue.offsets):
        for along, coefficient in affine(offset).coefficients.items():
            scope.line(f"offsets[{number}][{along}] = {scope.index(coefficient)};")
    lines = "".join(f"    {line}\n" for line in scope.lines)
    text = ", ".join(map(str, _describe(kernel, kernel.contraction)))
    return (
        f"static void {symbol}_place(const long long *sizes, long long (*offsets)[{AXES}]) {{\n{lines}}}\n"
        f"static const short {symbol}_text[] = {{{text}}};\n"
        f"static const mf_contraction {symbol}_table = {{{symbol}_text, {symbol}_run, {symbol}_place, "
        f"{len(epilogue.offsets)}, {int(epilogue.joins)}, {max(machine.cores, 1)}}};\n"
    )


def _entry_text(symbol: str, engine: str) -> str:
    return f"""extern "C" void {symbol}(void **buffers, const long long *sizes, const mf_scalar *scalars, long long begin,
        long long end) {{
    {engine}(&{symbol}_table, buffers, sizes, scalars, begin, end);
}}
extern "C" long long {symbol}_units(const long long *sizes) {{
    return {engine}_units(&{symbol}_table, sizes);
}}
extern "C" {{
extern const long long {symbol}_grain;
const long long {symbol}_grain = 1;
}}
"""
