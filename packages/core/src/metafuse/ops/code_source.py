"""What a code node holds: the user's texts, how they are compiled, and how they run.

What it is: ``Snippet`` (what decides what is compiled) and ``Code`` (the attribute of a node: snippet, results, gradients).
What it is not: the language of snippets, which belongs to a backend that inherits ``SupportsCodeOp``; or the checks of ``code``.
Who calls it: ``code`` makes them, ``runtime.launching`` runs them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..backend.contract import AbstractBackend, Loaded
from ..backend.optional import SupportsCodeOp
from ..dtypes import DType, is_number
from ..errors import BackendError, DTypeError, ShapeError, brief
from ..graph.node import Spec
from ..runtime.buffer import Buffer, next_version
from ..runtime.kernels import KernelTable
from ..runtime.opaque import OpaqueCall
from .several import copy_bytes, places

__all__ = ["Code", "Snippet", "Text"]


@dataclass(frozen=True)
class Text:
    """A snippet in one language (``"cpu"``, ``"cuda"``); ``files`` is what messages call header and source."""

    language: str
    header: str
    source: str
    files: tuple[str, str]


@dataclass(frozen=True)
class Snippet:
    """Everything that decides what is compiled, beside the types of the arrays.

    ``aliases``: further names of arrays. ``options``: what the compiler and the linker are told."""

    texts: tuple[Text, ...]
    aliases: tuple[tuple[str, str], ...] = ()
    options: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        # every record and every run looks it up, and the texts are long
        object.__setattr__(self, "_hash", hash((self.texts, self.aliases, self.options)))

    def __hash__(self) -> int:
        return self._hash  # type: ignore[attr-defined,no-any-return]

    def text(self, backend: AbstractBackend) -> Text:
        """The text for a backend. Errors: ``BackendError`` where there is none."""
        if not isinstance(backend, SupportsCodeOp):
            raise BackendError(
                f"[code] backend '{backend.name}' can't run C++ snippets; install metafuse-backend-cpu and a C++ compiler"
            )
        for text in self.texts:
            if text.language == backend.code_language:
                return text
        given = " and ".join(f"{t.files[1]}" for t in self.texts)
        raise BackendError(
            f"[code] backend '{backend.name}' needs {backend.code_language}_src, there is {given} only; give that too"
        )

    def obtain(
        self,
        backend: AbstractBackend,
        kernels: KernelTable,
        inputs: Sequence[tuple[DType, int]],
        outputs: Sequence[tuple[DType, int]],
    ) -> Loaded:
        """Loaded code for arrays of these (dtype, number of dimensions), compiled if new."""
        key = (self, *inputs, None, *outputs)
        loaded = kernels.snippets.get(key)
        if loaded is None:  # expanding the macros of a long snippet takes longer than running a short one
            digest = hashlib.sha256(repr((self, inputs, outputs)).encode()).hexdigest()[:16]
            source = self.emit(f"code_{digest}", backend, inputs, outputs)
            loaded = kernels.snippets[key] = kernels.obtain_source(f"code_{digest}", source)
        return loaded

    def emit(
        self,
        symbol: str,
        backend: AbstractBackend,
        inputs: Sequence[tuple[DType, int]],
        outputs: Sequence[tuple[DType, int]],
        data: Sequence[str] | None = None,
    ) -> str:
        """What is compiled; the source may read no numbers but ``data``, if that is given. Errors: ``ArgumentError`` for a
        mistake in macros, with its position; as ``text``."""
        text = self.text(backend)
        assert isinstance(backend, SupportsCodeOp)
        return backend.emit_code(
            symbol, text.header, text.source, inputs, outputs, dict(self.aliases), self.options, text.files, data
        )  # fmt: skip

    def launch(
        self,
        backend: AbstractBackend,
        kernels: KernelTable,
        inputs: Sequence[tuple[Buffer, Spec]],
        outputs: Sequence[tuple[Buffer, Spec]],
        numbers: dict[str, float],
        offsets: Sequence[int] = (),
    ) -> list[tuple[int, ...]]:
        """Run it on row-major buffers; answers the final shapes of the outputs."""
        loaded = self.obtain(backend, kernels, _kinds(inputs), _kinds(outputs))
        shapes: list[tuple[int, ...]] = backend.launch_code(  # type: ignore[attr-defined]
            loaded,
            [(b.handle, spec.shape) for b, spec in inputs],
            [(b.handle, spec.shape) for b, spec in outputs],
            numbers,
            offsets,
        )
        for buffer, _ in outputs:
            if type(buffer) is Buffer:  # no part of a program's own memory, whose contents nobody compares
                buffer.version = next_version()
        return shapes


def _kinds(arrays: Sequence[tuple[Any, Spec]]) -> list[tuple[DType, int]]:
    """What is compiled for, of each array."""
    return [(spec.dtype, len(spec.shape)) for _, spec in arrays]


@dataclass(frozen=True)
class Code:
    """The attribute of a code node.

    ``data``: names of its run-time numbers. ``outputs``: its results. ``former``: the last inputs are what as many outputs
    hold before. ``gradients``: one snippet or ``None`` per input."""

    snippet: Snippet
    outputs: tuple[Spec, ...]
    data: tuple[str, ...] = ()
    former: int = 0
    gradients: tuple[Snippet | None, ...] = ()

    def __post_init__(self) -> None:
        parts = (self.snippet, self.outputs, self.data, self.former, self.gradients)
        object.__setattr__(self, "_hash", hash(parts))  # as that of a snippet

    def __hash__(self) -> int:
        return self._hash  # type: ignore[attr-defined,no-any-return]

    @property
    def source(self) -> str:
        """The text, for people."""
        return "\n".join(text.source for text in self.snippet.texts)

    def numbers(self, scalars: Sequence[Any]) -> dict[str, float]:
        """``data`` with the values of one run."""
        # what `compile` follows is a number with a value: taken like this, it stays an argument of the recording
        return {name: float(getattr(x, "value", x)) for name, x in zip(self.data, scalars, strict=True)}

    def check(self, backend: AbstractBackend, kernels: KernelTable, inputs: Sequence[Spec]) -> None:
        """Find the mistakes that need no compiler, those of the gradients too.

        Errors: as ``Snippet.emit``."""
        given = [(spec.dtype, len(spec.shape)) for spec in inputs]
        key = (self, *given)
        if key in kernels.checked:
            return
        results = [(spec.dtype, len(spec.shape)) for spec in self.outputs]
        self.snippet.emit("checked", backend, given, results, self.data)
        for number, result in enumerate(results if self.gradients else ()):
            for kind, snippet in zip(given, self.pulling(number, len(inputs)), strict=True):
                if snippet is not None and kind[0].is_float and result[0].is_float:
                    read = [*given, result, *results]
                    snippet.emit("checked", backend, read, [kind], (*self.data, "out_index"))
        kernels.checked.add(key)

    def pulling(self, number: int, inputs: int) -> list[Snippet | None]:
        """The gradient snippets for result ``number``: after the inputs they read its gradient and all results."""
        names = {"dout": inputs, "pout": inputs + 1 + number, f"dout{number}": inputs}
        names.update({f"pout{k}": inputs + 1 + k for k in range(len(self.outputs))})
        aliases = tuple((name, f"in{place}") for name, place in names.items())
        return [snippet and replace(snippet, aliases=aliases) for snippet in self.gradients]

    def prepare(self, backend: AbstractBackend, kernels: KernelTable, inputs: Sequence[Spec]) -> None:
        """Compile if new."""
        given = [(None, spec) for spec in inputs[: len(inputs) - self.former]]
        self.snippet.obtain(backend, kernels, _kinds(given), _kinds([(None, spec) for spec in self.outputs]))

    def run(self, call: OpaqueCall) -> None:
        """Compile if new, and run. Several results lie in the buffer of the output one after another."""
        target = call.output[0]
        offsets = places(self.outputs)[0] if len(self.outputs) > 1 else ()
        given = call.inputs
        if self.former:
            first = len(given) - self.former
            for (buffer, spec), at in zip(given[first:], offsets or (0,), strict=True):
                copy_bytes(call.backend, buffer, target, spec.nbytes, at=at)
            given = given[:first]
        outputs = [(target, spec) for spec in self.outputs]
        numbers = self.numbers(call.scalars) if call.scalars else {}
        shapes = self.snippet.launch(call.backend, call.kernels, given, outputs, numbers, offsets)
        check_shapes(self.outputs, shapes)


def check_shapes(
    declared: Sequence[Spec], shapes: Sequence[tuple[int, ...]], dynamic: Sequence[bool] = ()
) -> None:
    """Errors: ``ShapeError`` where a snippet changed the shape of a result that is not ``dynamic``."""
    for k, (spec, shape) in enumerate(zip(declared, shapes, strict=True)):
        if shape != spec.shape and not (dynamic and dynamic[k]):
            raise ShapeError(
                f"[code] the snippet set shape {list(shape)} of out{k}, declared was {list(spec.shape)}; give the first "
                "extent as a negative upper bound if it is dynamic"
            )


def fitting(buffer: Buffer, spec: Spec) -> Buffer:
    """The buffer of an output that turned out smaller than it might have been: itself, or where half of it is unused, a copy."""
    if spec.nbytes * 2 >= buffer.nbytes or buffer.nbytes <= 1 << 16:
        return buffer
    smaller = Buffer(buffer.backend, max(spec.nbytes, 1))
    copy_bytes(buffer.backend, buffer, smaller, spec.nbytes)
    return smaller


def check_numbers(data: Any) -> dict[str, float]:
    """``data`` as a dict of numbers."""
    if not isinstance(data, Mapping):
        raise DTypeError(f"[code] data must be a dictionary of numbers by name, got {brief(data)}")
    numbers = dict(data)
    for name, value in numbers.items():
        if isinstance(value, np.generic):
            value = numbers[name] = value.item()
        if not isinstance(name, str) or not is_number(value):
            raise DTypeError(f"[code] data must map names to numbers, got {brief(name)}: {brief(value)}")
    return numbers
