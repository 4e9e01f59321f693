"""Pickles as data: a small reader of the pickle format that can't execute anything.

What it is: ``PickleReader``, a stack machine for the operations that files of arrays consist of. Numbers, texts, lists, tuples,
dictionaries and sets are made by the reader itself; every other name that a file mentions must be in a table of ours, whose
entries are our own functions. Nothing is imported, and no object of a class outside of that table can be made.
What it is not: Python's unpickler with a filter. That one can be made to exhaust memory or the C stack by small files before any
filter is asked; here every length is compared with what the file has left, and keys are flat, so that hashing ends.
Who calls it: ``io.pytorch_read``, ``io.hashed_pickle``, ``data.cifar``.
"""

from __future__ import annotations

import struct
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import MetafuseError
from .files import Source

__all__ = ["Function", "PickleReader", "Refused", "Shell", "is_key"]


@dataclass(frozen=True)
class Function:
    """A name that a file may call: ``call`` gets the arguments of the file and checks them itself."""

    call: Callable[..., Any]


@dataclass(frozen=True)
class Refused:
    """A name that is known and can't be served; ``reason`` says why and what to do."""

    reason: str


class Shell:
    """An object that a file first makes and then fills; ``fill`` answers the value that takes its place everywhere."""

    def __init__(self, fill: Callable[[Any], Any]) -> None:
        self.fill = fill
        self.places: list[int] = []  # where the reader remembers it


class _Mark:
    pass


_MARK = _Mark()
_FLAT = (str, int, float, bool, bytes, type(None))
_LINE = 400  # bytes of a name; longer ones are no names


class PickleReader:
    """Reads one pickle after another from ``source``.

    Args:
        source: where; begins at its position and stops behind the pickle.
        names: ``"module name"`` to ``Function``, ``Refused`` or a plain value.
        persistent: what a persistent id stands for, if there may be any.

    Errors (of ``load``): ``FileFormatError`` for anything that is not as it should be.

    Example:
        >>> import io, pickle
        >>> from metafuse.io.files import Source
        >>> PickleReader(Source(io.BytesIO(pickle.dumps({"a": [1, 2.5]}, 4)), "x"), {}).load()
        {'a': [1, 2.5]}
    """

    def __init__(
        self, source: Source, names: Mapping[str, Any], persistent: Callable[[Any], Any] | None = None
    ) -> None:
        self.source = source
        self.names = names
        self.persistent = persistent

    def load(self) -> Any:
        """The value of the pickle that begins here."""
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        source = self.source
        while True:
            code = source.read(1)[0]
            if code == 0x2E:  # STOP
                value = self._pop()
                if self.stack:
                    raise source.problem("values are left over at the end of a pickle; it is damaged")
                return value
            step = _STEPS.get(code)
            if step is None:
                raise source.problem(
                    f"operation {code:#04x} of the pickle format at byte {source.position - 1} has no place in files of arrays"
                )
            step(self)

    # -- the stack ---------------------------------------------------------------------------------------------------
    def _pop(self) -> Any:
        """The top value, which must be complete."""
        if not self.stack:
            raise self.source.problem("a value is used that is not there; the pickle is damaged")
        return self._complete(self.stack.pop())

    def _complete(self, value: Any) -> Any:
        if type(value) is _Mark or isinstance(value, (Shell, Function)):
            raise self.source.problem(
                f"a {type(value).__name__.lower()} stands where a value belongs; the pickle is damaged"
            )
        return value

    def _pop_to_mark(self) -> list[Any]:
        """The values above the last mark."""
        stack = self.stack
        for k in range(len(stack) - 1, -1, -1):
            if stack[k] is _MARK:
                found = stack[k + 1 :]
                del stack[k:]
                return [self._complete(value) for value in found]
        raise self.source.problem("a mark is missing; the pickle is damaged")

    def _drop(self) -> None:
        if self.stack and self.stack[-1] is _MARK:
            self.stack.pop()
        else:
            self._pop()

    def _drop_to_mark(self) -> None:
        self._pop_to_mark()

    def _number(self, count: int, signed: bool = False) -> int:
        return int.from_bytes(self.source.read(count), "little", signed=signed)

    # -- values -----------------------------------------------------------------------------------------------------
    def _text(self, count: int) -> None:
        self.stack.append(self.source.read(count).decode("utf-8", "surrogatepass"))

    def _old_text(self, count: int) -> None:
        """What Python 2 called a string: text if it is plain, else bytes."""
        data = self.source.read(count)
        self.stack.append(data.decode("ascii") if data.isascii() else data)

    def _bytes(self, count: int) -> None:
        self.stack.append(self.source.read(count))

    def _long(self, count: int) -> None:
        self.stack.append(self._number(count, signed=True))

    def _push(self, value: Any) -> None:
        self.stack.append(value)

    def _tuple(self, count: int) -> None:
        found = [self._pop() for _ in range(count)]
        self.stack.append(tuple(reversed(found)))

    # -- containers -------------------------------------------------------------------------------------------------
    def _container(self, kinds: tuple[type, ...]) -> Any:
        """The container on top, one of these types and nothing derived from them."""
        if not self.stack or type(self.stack[-1]) not in kinds:
            raise self.source.problem("something is put into what can't hold it; the pickle is damaged")
        return self.stack[-1]

    def _key(self, key: Any) -> Any:
        if is_key(key):
            return key
        raise self.source.problem(f"a {type(key).__name__} is used as a key; only plain values can be")

    def _set_items(self, items: list[Any]) -> None:
        if len(items) % 2:
            raise self.source.problem("a key has no value; the pickle is damaged")
        target = self._container((dict, OrderedDict))
        for k in range(0, len(items), 2):
            target[self._key(items[k])] = items[k + 1]

    def _append(self, items: list[Any]) -> None:
        self._container((list,)).extend(items)

    def _add(self, items: list[Any]) -> None:
        self._container((set,)).update(self._key(item) for item in items)

    def _frozen(self) -> None:
        self.stack.append(frozenset(self._key(item) for item in self._pop_to_mark()))

    def _set_item(self) -> None:
        value = self._pop()
        self._set_items([self._pop(), value])

    # -- memo -------------------------------------------------------------------------------------------------------
    def _put(self, index: int) -> None:
        if not self.stack or self.stack[-1] is _MARK:
            raise self.source.problem("nothing is there to remember; the pickle is damaged")
        top = self.memo[index] = self.stack[-1]
        if isinstance(top, Shell):
            top.places.append(index)

    def _get(self, index: int) -> None:
        if index not in self.memo:
            raise self.source.problem(f"value {index} is used before it exists; the pickle is damaged")
        self.stack.append(self.memo[index])

    # -- names and calls ----------------------------------------------------------------------------------------------
    def _line(self) -> str:
        found = self.source.file.readline(_LINE)
        if not found.endswith(b"\n"):
            raise self.source.problem("a name does not end; the pickle is damaged")
        return found[:-1].decode("utf-8")

    def _name(self, module: Any, name: Any) -> None:
        """Push what a name stands for."""
        if type(module) is not str or type(name) is not str:
            raise self.source.problem("a name is not a text; the pickle is damaged")
        value = self.names.get(f"{module} {name}", _MARK)
        if isinstance(value, Refused):
            raise self.source.problem(value.reason)
        if value is _MARK:
            raise self.source.problem(
                f"it holds an object of {module}.{name}, and only arrays, numbers, texts and containers of them are read. "
                "Nothing has been executed. Where the file was written, save a plain dictionary, such as net.state_dict()"
            )
        self.stack.append(value)

    def _reduce(self) -> None:
        arguments = self._pop()
        function = self.stack.pop() if self.stack else None
        if not isinstance(function, Function) or type(arguments) is not tuple:
            raise self.source.problem("something is called that can't be; the pickle is damaged")
        try:
            self.stack.append(function.call(*arguments))
        except MetafuseError:
            raise
        except (TypeError, ValueError, ArithmeticError, LookupError, AttributeError) as error:
            raise self.source.problem(f"a value can't be made: {error}; the file is damaged") from error

    def _build(self) -> None:
        """Fill a shell; attributes of a dictionary (PyTorch's ``_metadata``) mean nothing here."""
        state = self._pop()
        top = self.stack[-1] if self.stack else None
        if type(top) is OrderedDict:
            return
        if not isinstance(top, Shell):
            raise self.source.problem("attributes are given to what has none; the pickle is damaged")
        try:
            value = top.fill(state)
        except MetafuseError:
            raise
        except (TypeError, ValueError, ArithmeticError, LookupError, AttributeError) as error:
            raise self.source.problem(f"an array can't be made: {error}; the file is damaged") from error
        self.stack[-1] = value
        for index in top.places:
            if self.memo.get(index) is top:
                self.memo[index] = value

    def _persistent(self) -> None:
        if self.persistent is None:
            raise self.source.problem("it refers to data outside of the pickle, and there are none")
        self.stack.append(self.persistent(self._pop()))

    def _frame(self) -> None:
        if self._number(8) > self.source.left:
            raise self.source.problem("a frame is longer than the file; it is incomplete")

    def _protocol(self) -> None:
        protocol = self._number(1)
        if not 2 <= protocol <= 5:
            raise self.source.problem(f"pickle protocol {protocol} is not read; 2 to 5 are")


def is_key(value: Any) -> bool:
    """Whether ``value`` is one whose hash is quickly found: a plain value or a flat tuple of such."""
    return type(value) in _FLAT or (type(value) is tuple and all(type(v) in _FLAT for v in value))


def _sized(step: Callable[[PickleReader, int], None], width: int) -> Callable[[PickleReader], None]:
    """A step whose argument is a number of ``width`` bytes."""
    return lambda reader: step(reader, reader._number(width))


def _float(reader: PickleReader) -> None:
    reader.stack.append(struct.unpack(">d", reader.source.read(8))[0])


_R = PickleReader
_STEPS: dict[int, Callable[[PickleReader], None]] = {
    ord("("): lambda r: r._push(_MARK),
    ord("0"): _R._drop,
    ord("1"): _R._drop_to_mark,
    ord("N"): lambda r: r._push(None),
    0x88: lambda r: r._push(True),
    0x89: lambda r: r._push(False),
    ord("K"): _sized(lambda r, n: r._push(n), 1),
    ord("M"): _sized(lambda r, n: r._push(n), 2),
    ord("J"): lambda r: r._push(r._number(4, signed=True)),
    0x8A: _sized(_R._long, 1),
    0x8B: _sized(_R._long, 4),
    ord("G"): _float,
    ord("X"): _sized(_R._text, 4),
    0x8C: _sized(_R._text, 1),
    0x8D: _sized(_R._text, 8),
    ord("U"): _sized(_R._old_text, 1),
    ord("T"): _sized(_R._old_text, 4),
    ord("C"): _sized(_R._bytes, 1),
    ord("B"): _sized(_R._bytes, 4),
    0x8E: _sized(_R._bytes, 8),
    0x96: _sized(lambda r, n: r._push(bytearray(r.source.read(n))), 8),
    ord("]"): lambda r: r._push([]),
    ord("}"): lambda r: r._push({}),
    0x8F: lambda r: r._push(set()),
    ord(")"): lambda r: r._push(()),
    0x85: lambda r: r._tuple(1),
    0x86: lambda r: r._tuple(2),
    0x87: lambda r: r._tuple(3),
    ord("t"): lambda r: r._push(tuple(r._pop_to_mark())),
    ord("l"): lambda r: r._push(r._pop_to_mark()),
    0x91: _R._frozen,
    ord("a"): lambda r: r._append([r._pop()]),
    ord("e"): lambda r: r._append(r._pop_to_mark()),
    ord("s"): _R._set_item,
    ord("u"): lambda r: r._set_items(r._pop_to_mark()),
    0x90: lambda r: r._add(r._pop_to_mark()),
    ord("q"): _sized(_R._put, 1),
    ord("r"): _sized(_R._put, 4),
    0x94: lambda r: r._put(len(r.memo)),
    ord("h"): _sized(_R._get, 1),
    ord("j"): _sized(_R._get, 4),
    ord("c"): lambda r: r._name(r._line(), r._line()),
    0x93: lambda r: r._name(*reversed([r._pop(), r._pop()])),
    ord("R"): _R._reduce,
    ord("b"): _R._build,
    ord("Q"): _R._persistent,
    0x95: _R._frame,
    0x80: _R._protocol,
}
