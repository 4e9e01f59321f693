"""Reading what ``torch.save`` wrote, without PyTorch and without executing anything in the file.

What it is: the two containers, the zip archive of PyTorch 1.6 and later and the row of pickles of earlier ones.
What it is not: TorchScript programs or the tar archives of PyTorch before 0.1.10.
Who calls it: ``io.api`` and users (``load_pytorch``).
"""

from __future__ import annotations

import os
import zipfile
import zlib
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, BinaryIO

import numpy as np

from .files import Budget, Source, reading
from .pickle_reader import PickleReader
from .pytorch_names import Storage, StorageKind, pytorch_names
from .tensors import check_target

__all__ = ["LEGACY_MAGIC", "load_pytorch", "read_legacy", "read_zip"]

#: the first pickle of files before PyTorch 1.6: a certain number
LEGACY_MAGIC = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
_KEPT = 1 << 28  # bytes of storages kept for further tensors over them


def load_pytorch(fn_name: str | os.PathLike[str] | BinaryIO, to: str | None = None) -> Any:
    """What ``torch.save`` wrote: tensors and parameters become Vars of the same type (with ``to="numpy"`` ndarrays; bfloat16 as
    float32), ``torch.Size`` tuples, devices texts.

    Shapes of no dimensions become ``[1]`` (not with ``to="numpy"``).

    Errors: ``FileFormatError`` for damaged files, for complex, quantized, sparse and 8-bit floating-point tensors, and for
    objects of any other class, which it names; ``FileNotFoundError``.

    Example:
        >>> import metafuse as mf
        >>> mf.io.save_pytorch("weights.pth", {"a": mf.ones(2)})
        >>> mf.io.load_pytorch("weights.pth", to="numpy")["a"]
        array([1., 1.], dtype=float32)
    """
    check_target(to)
    with reading(fn_name) as source:
        magic = source.read(min(4, source.size))
        source.seek(0)
        if magic == b"PK\x03\x04":
            return read_zip(source, to)
        return read_legacy(source, to)


class _Kept:
    """The bytes of storages that were read last."""

    def __init__(self) -> None:
        self.found: OrderedDict[Any, np.ndarray[Any, Any]] = OrderedDict()
        self.total = 0

    def get(self, key: Any, read: Callable[[], np.ndarray[Any, Any]]) -> np.ndarray[Any, Any]:
        """The bytes for ``key``, which ``read`` gets."""
        if key in self.found:
            self.found.move_to_end(key)
            return self.found[key]
        data = read()
        self.found[key] = data
        self.total += data.nbytes
        while len(self.found) > 1 and self.total > _KEPT:
            self.total -= self.found.popitem(last=False)[1].nbytes
        return data


# -- the zip archive ------------------------------------------------------------------------------------------------
class Archive:
    """The entries of a zip archive as pieces of its file. They are never written anywhere, whatever they are called."""

    def __init__(self, source: Source) -> None:
        self.source = source
        try:
            with zipfile.ZipFile(source.file) as archive:
                entries = archive.infolist()
        except (zipfile.BadZipFile, ValueError, NotImplementedError, EOFError) as error:
            raise source.problem(
                f"its list of contents can't be read: {error}; it is incomplete or damaged"
            ) from error
        self.entries = {entry.filename: entry for entry in entries}
        if len(self.entries) != len(entries):
            raise source.problem("two entries have the same name; it is refused")
        self.begins = {name: self._begin(entry) for name, entry in self.entries.items()}
        pieces = sorted((e.header_offset, self.begins[e.filename] + e.compress_size) for e in entries)
        if any(end > start for (_, end), (start, _) in zip(pieces, pieces[1:])):
            raise source.problem("its entries overlap; it is refused")

    def _begin(self, entry: zipfile.ZipInfo) -> int:
        """Where the data of an entry begin, behind a header of its own."""
        source = self.source
        source.seek(entry.header_offset)
        header = source.read(30)
        begin = (
            entry.header_offset
            + 30
            + int.from_bytes(header[26:28], "little")
            + int.from_bytes(header[28:30], "little")
        )
        if header[:4] != b"PK\x03\x04" or begin + entry.compress_size > source.size:
            raise source.problem(
                f"entry {entry.filename[:100]!r} lies outside of the file; it is incomplete or damaged"
            )
        return begin

    def read(self, name: str, count: int | None = None) -> np.ndarray[Any, Any]:
        """The bytes of an entry. Errors: ``FileFormatError`` if it is not there, not ``count`` bytes long, packed or damaged."""
        problem = self.source.problem
        entry = self.entries.get(name)
        if entry is None:
            raise problem(f"its entry {name[:100]!r} is missing; it is incomplete")
        if (
            entry.compress_type != zipfile.ZIP_STORED
            or entry.flag_bits & 1
            or entry.file_size != entry.compress_size
        ):
            raise problem(
                f"entry {name[:100]!r} is compressed or encrypted, which PyTorch never does; unpack and zip it without"
            )
        if count is not None and entry.file_size != count:
            raise problem(
                f"entry {name[:100]!r} has {entry.file_size} bytes, its tensors say {count}; it is damaged"
            )
        data = self.source.read_at(self.begins[name], entry.file_size)
        if entry.CRC and zlib.crc32(data.data) != entry.CRC:  # 0: PyTorch can be told to leave it out
            raise problem(f"the checksum of entry {name[:100]!r} is wrong; it is damaged")
        return data


def read_zip(source: Source, to: str | None) -> Any:
    """The value of a zip archive."""
    archive = Archive(source)
    roots = [name[: -len("data.pkl")] for name in archive.entries if name.split("/")[1:] == ["data.pkl"]]
    if len(roots) != 1:
        raise source.problem(
            "it is a zip archive, but none that torch.save writes: data.pkl is missing in it"
        )
    root = roots[0]
    if f"{root}constants.pkl" in archive.entries:
        raise source.problem(
            "it is a TorchScript program; in PyTorch, torch.save(torch.jit.load(file).state_dict(), other) gives its weights"
        )
    order = bytes(archive.read(f"{root}byteorder")) if f"{root}byteorder" in archive.entries else b"little"
    if order not in (b"little", b"big"):
        raise source.problem("it does not say whether its numbers begin with the least byte; it is damaged")
    kept = _Kept()

    def persistent(given: Any) -> Storage:
        kind, key, count, _ = _storage_id(source, given, 5)
        read = lambda: archive.read(f"{root}data/{key}", count * kind.itemsize)
        return Storage(kind, lambda: kept.get(key, read), order == b"big")

    return _unpickle(source, bytes(archive.read(f"{root}data.pkl")), persistent, to)


def _unpickle(source: Source, data: bytes, persistent: Callable[[Any], Storage], to: str | None) -> Any:
    from io import BytesIO

    inner = Source(BytesIO(data), source.name)
    return PickleReader(inner, pytorch_names(Budget(inner), to), persistent).load()


def _storage_id(source: Source, given: Any, length: int) -> tuple[StorageKind, str, int, Any]:
    """Kind, key, number of elements and what follows of a persistent id."""
    if type(given) is not tuple or not given or given[0] != "storage":
        what = (
            "the source code of a network"
            if type(given) is tuple and given[:1] == ("module",)
            else "something strange"
        )
        raise source.problem(f"it refers to {what} instead of data; save net.state_dict() in PyTorch")
    if len(given) not in (5, length) or not isinstance(given[1], StorageKind):
        raise source.problem("a storage is not described as PyTorch does; it is damaged")
    key, count = given[2], given[4]
    if type(key) is not str or type(count) is not int or count < 0:
        raise source.problem("a storage has no key or a negative length; it is damaged")
    return given[1], key, count, given[5] if len(given) > 5 else None


# -- the row of pickles ---------------------------------------------------------------------------------------------
def read_legacy(source: Source, to: str | None) -> Any:
    """The value of a file of PyTorch before 1.6: pickles (a number, a version, the machine, the value, keys), then the storages.

    The value comes before the data it refers to, so its pickle is read twice: for the storages' lengths, and for the value.
    """
    if source.read(min(len(LEGACY_MAGIC), source.size)) != LEGACY_MAGIC:
        what = (
            "a tar archive of PyTorch before 0.1.10; save it anew with PyTorch"
            if _is_tar(source)
            else "no file of torch.save"
        )
        raise source.problem(f"it is {what}")
    head = PickleReader(source, {})
    version, machine = head.load(), head.load()
    if version != 1001 or type(machine) is not dict:
        raise source.problem(f"it has version {version!r} of the format; 1001 is read")
    kinds: dict[str, tuple[StorageKind, int]] = {}

    def look(given: Any) -> Storage:
        kind, key, count, view = _storage_id(source, given, 6)
        known = kinds.setdefault(key, (kind, count))
        if known != (kind, count):
            raise source.problem(f"storage {key[:40]!r} has two lengths; it is damaged")
        return _view(source, kind, count, view, lambda: np.zeros(0, np.uint8), False)

    begin = source.position
    first = _Lengths(source, look)
    first.load()
    keys = head.load()
    places = _places(source, keys, kinds)
    kept = _Kept()

    def persistent(given: Any) -> Storage:
        kind, key, count, view = _storage_id(source, given, 6)
        read = lambda: source.read_at(places[key], count * kind.itemsize)

        def keeping() -> np.ndarray[Any, Any]:
            back = source.position
            data = kept.get(key, read)
            source.seek(back)
            return data

        return _view(source, kind, count, view, keeping, machine.get("little_endian") is False)

    source.seek(begin)
    return PickleReader(source, pytorch_names(Budget(source), to), persistent).load()


class _Lengths(PickleReader):
    """Reads a value for the storages it mentions; its tensors stay empty."""

    def __init__(self, source: Source, persistent: Callable[[Any], Storage]) -> None:
        from .pickle_reader import Function

        names = pytorch_names(Budget(source), "numpy")
        nothing = Function(lambda *given: None)
        names.update(
            {
                n: nothing
                for n in names
                if n.startswith("torch._utils _rebuild") and isinstance(names[n], Function)
            }
        )
        super().__init__(source, names, persistent)


def _is_tar(source: Source) -> bool:
    if source.size < 262:
        return False
    source.seek(257)
    return source.read(5) == b"ustar"


def _places(source: Source, keys: Any, kinds: dict[str, tuple[StorageKind, int]]) -> dict[str, int]:
    """Where the bytes of each storage begin; a count of elements stands before them."""
    if type(keys) is not list or any(type(key) is not str for key in keys) or set(keys) != set(kinds):
        raise source.problem("its list of storages is not that of its tensors; it is incomplete or damaged")
    places = {}
    for key in keys:
        kind, count = kinds[key]
        if int.from_bytes(source.read(8), "little") != count:
            raise source.problem(
                f"storage {key[:40]!r} has another length than its tensors say; it is damaged"
            )
        places[key] = source.position
        if count * kind.itemsize > source.left:
            raise source.problem(f"storage {key[:40]!r} ends behind the file; it is incomplete")
        source.seek(source.position + count * kind.itemsize)
    return places


def _view(
    source: Source,
    kind: StorageKind,
    count: int,
    view: Any,
    read: Callable[[], np.ndarray[Any, Any]],
    swapped: bool,
) -> Storage:
    """A storage, or with ``view`` (key, offset, length) a part of one."""
    if view is None:
        return Storage(kind, read, swapped)
    ok = type(view) is tuple and len(view) == 3 and all(type(n) is int and n >= 0 for n in view[1:])
    if not ok or view[1] + view[2] > count:
        raise source.problem("a part of a storage lies outside of it; it is damaged")
    return Storage(kind, read, swapped, view[1])
