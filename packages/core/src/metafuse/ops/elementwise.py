"""Element-wise operators: the map class of meta-operators.

What it is: the factory that turns a scalar expression and gradient rules into an operator record and its function.
What it is not: the records themselves (``scalar`` lists them), or anything that moves or folds elements.
Who calls it: ``scalar`` and plugins that add element-wise operators; gradient rules use ``cast``.

Shapes broadcast as in NumPy. Dtypes follow ``docs/dtypes.md``; a bare Python number never widens an array, and it
is a run-time argument: changing it compiles nothing. Operators on 16-bit floats, and their gradients, compute in float32 and
round once, when they are done.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from ..dtypes import (
    DType,
    accumulator,
    as_dtype,
    bool_,
    fits_float,
    float32,
    promote,
    to_floating,
    true_divide,
)
from ..errors import DTypeError, ShapeError, brief
from ..graph.node import Node, Signature, Spec, signature, spec_of
from ..kernel.expr import EXACT, LEAVES, Expr, call, const, load, walk
from ..kernel.expr import cast as cast_expr
from ..var import Var, record
from .record_docs import elementwise_example
from .registry import Operator, Tensor, register
from .telling import REFUSALS, under

__all__ = ["broadcast_shapes", "cast", "elementwise"]

Rule = Callable[[DType], tuple[DType, DType]]
Body = Callable[..., Expr]


# -- dtype rules: common dtype -> (dtype computed in, dtype of the result) -----------------------------------------
def same(d: DType) -> tuple[DType, DType]:
    """Computed and answered in the common type; bool counts as int32."""
    d = as_dtype("int32") if d is bool_ else d
    return d, d


def keep(d: DType) -> tuple[DType, DType]:
    """Computed and answered in the common type, bool included."""
    return d, d


def floating(d: DType) -> tuple[DType, DType]:
    """A floating-point function."""
    f = to_floating(d)
    return f, f


def division(d: DType) -> tuple[DType, DType]:
    """True division."""
    f = true_divide(d)
    return f, f


def comparison(d: DType) -> tuple[DType, DType]:
    """Compared in the common type, answers bool."""
    return d, bool_


def logic(d: DType) -> tuple[DType, DType]:
    """Everything is first turned into bool."""
    return bool_, bool_


def bits(d: DType) -> tuple[DType, DType]:
    """Integers and bool only."""
    if d.is_float:
        raise DTypeError(f"needs integers or bool, got {d}; cast first")
    return d, d


def broadcast_shapes(operator: str, shapes: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
    """The common shape by NumPy's broadcasting rule. Errors: ``ShapeError`` naming both shapes."""
    result: tuple[int, ...] = ()
    for shape in shapes:
        if shape == result:
            continue
        longer, shorter = (shape, result) if len(shape) > len(result) else (result, shape)
        merged = list(longer)
        for k in range(1, len(shorter) + 1):
            a, b = longer[-k], shorter[-k]
            if a != b and a != 1 and b != 1:
                listing = " and ".join(str(list(s)) for s in shapes)
                raise ShapeError(
                    f"[{operator}] shapes {listing} do not broadcast: {a} against {b} in dimension -{k}; "
                    "make them equal or 1"
                )
            merged[-k] = b if a == 1 else a
        result = tuple(merged)
    return result


NUMBERS = (bool, int, float)
#: signatures an operator keeps for argument specs it has met
KNOWN_LIMIT = 4096


def _check_number(operator: str, value: Any, dtype: DType) -> None:
    """A Python integer must fit the integer type of the array it meets, or be a number that floats have at all."""
    if isinstance(value, bool) or not isinstance(value, int):
        return
    if not dtype.is_integer:
        if not fits_float(value):
            raise DTypeError(f"[{operator}] a number is larger than any float: {brief(value)}")
        return
    info = np.iinfo(dtype.numpy)
    if not info.min <= value <= info.max:
        raise DTypeError(
            f"[{operator}] Python integer {brief(value)} does not fit {dtype} ({info.min}..{info.max}); "
            "cast the array to a wider type first"
        )


def _common(arguments: tuple[Any, ...]) -> DType:
    """Common dtype of specs, with Python number types weak: they count only by kind."""
    common: DType | None = None
    for a in arguments:
        if isinstance(a, Spec):
            common = a.dtype if common is None else promote(common, a.dtype)
    common = common or bool_  # numbers alone: a test with two of them
    for a in arguments:
        if isinstance(a, type):
            if a is float and not common.is_float:
                common = to_floating(common) if common.is_integer else float32
            elif a is int and common is bool_:
                common = as_dtype("int32")
    return common


class Elementwise:
    """The callable of one element-wise operator; keeps the signatures it has met."""

    def __init__(
        self,
        name: str,
        arity: int,
        rule: Rule,
        body: Body,
        gradients: Sequence[Callable[..., Any] | None],
        condition: bool,
    ) -> None:
        self.name = name
        self.arity = arity
        self.rule = rule
        self.body = body
        self.gradients = gradients
        self.condition = condition  # the first argument is a test and has no part in the common dtype
        self.known: dict[Any, Signature] = {}
        self.with_gradient = any(g is not None for g in gradients)

    def remember(self, key: Any, arguments: tuple[Any, ...]) -> Signature:
        """Infer and keep; what is kept is bounded."""
        if len(self.known) >= KNOWN_LIMIT:
            self.known.clear()
        sig = self.known[key] = self.infer(arguments)
        return sig

    def infer(self, key: tuple[Any, ...]) -> Signature:
        """The signature for arguments that are specs or Python number types."""
        specs = tuple(a for a in key if isinstance(a, Spec))
        try:
            compute, result = self.rule(_common(key[1:] if self.condition else key))
        except DTypeError as error:
            raise DTypeError(f"[{self.name}] {error}") from None
        shape = broadcast_shapes(self.name, [s.shape for s in specs])
        wide = accumulator(compute)
        body, scalars = self._body(key, wide)
        if wide is not compute and all(s.dtype is compute for s in specs) and _is_exact(body):
            body, scalars = self._body(key, compute)  # nothing to round
        return signature(
            "map", self.name, tuple(isinstance(a, Spec) for a in key), specs, spec_of(shape, result), _as(body, result),
            tuple(scalars), self.gradient if self.with_gradient else None,
        )  # fmt: skip

    def _body(self, key: tuple[Any, ...], compute: DType) -> tuple[Expr, list[DType]]:
        """The expression over arguments of type ``compute``, and the types of the run-time numbers in it."""
        arguments: list[Expr] = []
        scalars: list[DType] = []
        position = 0
        for number, a in enumerate(key):
            own = bool_ if self.condition and number == 0 else compute
            if isinstance(a, Spec):
                arguments.append(_as(load(position, a.dtype), own))
                position += 1
            else:
                # a number becomes a truth value inside the kernel, where any number but 0 is true
                kind = as_dtype(a) if own is bool_ else own
                arguments.append(_as(Expr("scalar", (), kind, len(scalars)), own))
                scalars.append(kind)
        return self.body(*arguments), scalars

    def gradient(self, node: Node, upstream: Var) -> list[Var | None]:
        """Apply the record's rules; numbers among the arguments are handed to them as they are."""
        from ..var import wrap
        from .meta import sum_to

        inputs, scalars = iter(node.inputs), iter(node.scalars)
        arguments: list[Any] = []
        for is_var in node.sig.attrs:
            arguments.append(wrap(next(inputs)) if is_var else next(scalars))
        given, flow, answer = arguments, upstream, wrap(node)
        if upstream._node.spec.dtype.is_half:
            given, flow, answer = [_widened(a) for a in arguments], _widened(upstream), _widened(answer)
        results: list[Var | None] = []
        for rule, argument in zip(self.gradients, arguments, strict=True):
            if type(argument) is not Var:
                continue
            if rule is None or not argument._node.requires_grad:
                results.append(None)
                continue
            g = rule(flow, *given, answer)
            g = upstream if g is flow else g
            shape, dtype = argument._node.spec.shape, argument.dtype
            results.append(cast(sum_to(g, shape), dtype) if dtype.is_half else sum_to(cast(g, dtype), shape))
        return results

    def unary(self, x: Any) -> Var:
        """Call with one argument."""
        node = x._node if type(x) is Var else self.convert(x)._node
        spec = node.spec
        sig = self.known.get(spec)
        if sig is None:
            sig = self.remember(spec, (spec,))
        return record(sig, (node,))

    def general(self, *arguments: Any) -> Var:
        """Call with any mixture of Vars, numbers and arrays."""
        if len(arguments) != self.arity:
            raise TypeError(f"[{self.name}] takes {self.arity} arguments, got {len(arguments)}")
        if not any(type(a) is Var for a in arguments):
            arguments = (self.convert(arguments[0]), *arguments[1:])
        # a number's `__class__`, not its type: numbers that `compile` follows pass for plain ones
        arguments = tuple(
            a if type(a) is Var or a.__class__ in NUMBERS else self.convert(a) for a in arguments
        )
        key = tuple(a._node.spec if type(a) is Var else a.__class__ for a in arguments)
        sig = self.known.get(key)
        if sig is None:
            sig = self.remember(key, key)
        scalars = tuple(a for a in arguments if type(a) is not Var)
        for a, d in zip(scalars, sig.scalars, strict=True):
            _check_number(self.name, a, d)
        return record(sig, tuple(a._node for a in arguments if type(a) is Var), scalars)

    def convert(self, value: Any) -> Var:
        """Anything array-like as a Var; says which operator was called if it is not."""
        from .creation import array

        try:
            return array(value)
        except DTypeError as error:
            raise DTypeError(f"[{self.name}] {error}") from None


def _widened(x: Any) -> Any:
    """A 16-bit float Var as float32; anything else as it is."""
    return cast(x, float32) if type(x) is Var and x._node.spec.dtype.is_half else x


def _is_exact(body: Expr) -> bool:
    """Whether arithmetic in ``body`` rounds nothing."""
    return all(x.op in EXACT or x.op in LEAVES or x.op == "cast" for x in walk(body))


def _as(x: Expr, dtype: DType) -> Expr:
    """A cast that turns numbers into bool by comparing with zero."""
    if dtype is bool_ and x.dtype is not bool_:
        return call("ne", x, const(0, x.dtype))
    return cast_expr(x, dtype)


def _binary_function(self: Elementwise) -> Callable[[Any, Any], Var]:
    known = self.known
    general = self.general
    told = self.name

    def apply(x: Any, y: Any) -> Var:
        if type(x) is Var:
            a = x._node
            kind = type(y)
            if kind is Var:
                b = y._node
                sig = known.get((a.spec, b.spec))
                if sig is not None:
                    return record(sig, (a, b))
            elif kind is float or (kind is int and 0 <= y < 128):
                sig = known.get((a.spec, kind))
                if sig is not None:
                    return record(sig, (a,), (y,))
            elif getattr(kind, "__array_ufunc__", True) is None:  # as in NumPy: y's reflected method does it
                return NotImplemented
        try:
            return general(x, y)
        except REFUSALS as error:
            raise under(told, error) from None

    return apply


def _of_y_and_x(self: Elementwise) -> Callable[[Any, Any], Var]:
    told = self.name

    def apply(y: Any, x: Any) -> Var:
        try:
            return self.general(y, x)
        except REFUSALS as error:
            raise under(told, error) from None

    return apply


#: names of two arguments -> what makes a function with these names
_BINARY: dict[str, Callable[[Elementwise], Callable[[Any, Any], Var]]] = {
    "x, y": _binary_function,
    "y, x": _of_y_and_x,
    "a, b": lambda self: lambda a, b: self.general(a, b),
}


def elementwise(
    name: str,
    summary: str,
    body: Body,
    *,
    rule: Rule,
    numpy: Callable[..., Any],
    gradients: Sequence[Callable[..., Any] | None],
    domain: Sequence[Tensor],
    source: str = "NumPy",
    methods: Sequence[str] | None = None,
    category: str = "element-wise",
    condition: bool = False,
    parameters: str = "x, y",
) -> Callable[..., Var]:
    """Register an element-wise operator and answer its function.

    Args:
        body: scalar expressions (all of the computed dtype) -> scalar expression.
        rule: common dtype -> (dtype computed in, dtype of the result).
        gradients: per argument ``(upstream, *arguments, answer) -> gradient``, or ``None`` where there is none.
        domain: per argument, the values for which it is defined and smooth enough to check gradients.
        condition: the first argument is a test: it is turned into bool and does not take part in the dtype rule.
        parameters: what two arguments are called.
    """
    arity = len(domain)
    told = name
    impl = Elementwise(name, arity, rule, body, gradients, condition)
    if arity == 1:

        def function(x: Any) -> Var:
            try:
                return impl.unary(x)
            except REFUSALS as error:
                raise under(told, error) from None

    elif arity == 2:
        function = _BINARY[parameters](impl)  # type: ignore[assignment]
    else:

        def function(cond: Any, x: Any, y: Any) -> Var:  # type: ignore[misc]
            try:
                return impl.general(cond, x, y)
            except REFUSALS as error:
                raise under(told, error) from None

    function.__name__ = function.__qualname__ = name
    function.__doc__ = (
        f"{summary}\n\nArgs:\n    {('x', parameters, 'cond, x, y')[arity - 1]}: Vars, arrays or Python numbers; shapes "
        "broadcast.\n\n"
        f"Returns:\n    Var of the broadcast shape; dtype by rule '{rule.__name__}' "
        f"({(rule.__doc__ or '').rstrip('.')}).\n\nErrors:\n    ShapeError if shapes do not broadcast; DTypeError for "
        f"unsuitable dtypes.\n\nSource: {source}.\n\n{elementwise_example(name, numpy, domain)}"
    )
    differentiable = any(g is not None for g in gradients)
    register(
        Operator(
            name, category, function, numpy, (), source, differentiable,
            tuple(methods if methods is not None else (name,)), arity, tuple(domain),
        )
    )  # fmt: skip
    return function


# -- conversion ---------------------------------------------------------------------------------------------------
def _cast_gradient(node: Node, upstream: Var) -> list[Var | None]:
    return [cast(upstream, node.inputs[0].spec.dtype)]


def _cast_function(told: str) -> Callable[[Any, Any], Var]:
    def cast(x: Any, dtype: Any) -> Var:
        """``x`` converted to ``dtype``; answers ``x`` itself if it has it already.

        Example:
            >>> import metafuse as mf
            >>> mf.cast(mf.array([0.5, 1.5]), "int32").numpy()
            array([0, 1], dtype=int32)
        """
        if type(x) is not Var or type(dtype) is not DType:
            try:
                x = x if type(x) is Var else _as_var(x)
                dtype = as_dtype(dtype)
            except REFUSALS as error:
                raise under(told, error) from None
        node = x._node
        if node.spec.dtype is dtype:
            return x  # type: ignore[no-any-return]
        return record(_casting(node.spec, dtype), (node,))

    return cast


cast = _cast_function("cast")
cast.__qualname__ = "cast"


def _as_var(x: Any) -> Var:
    from .creation import array

    return array(x)


@lru_cache(maxsize=KNOWN_LIMIT)
def _casting(spec: Spec, target: DType) -> Signature:
    body, result = _as(load(0, spec.dtype), target), spec_of(spec.shape, target)
    return signature("map", f"cast_{target}", (True,), (spec,), result, body, (), _cast_gradient)


register(
    Operator(
        "cast", "element-wise", cast, lambda x, dtype: np.asarray(x).astype(dtype), (), "NumPy astype", False,
        ("cast", "astype"),
    )
)  # fmt: skip
