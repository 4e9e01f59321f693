"""Files as such: reading within bounds, writing at once, and the error of files that are not what they should be.

What it is: ``Source`` (a file that is read piece by piece and never beyond its end), ``writing`` (a file that appears complete or
not at all), ``Budget`` (how much memory the contents of one file may take) and ``FileFormatError``.
What it is not: any format.
Who calls it: every module of ``io``.
"""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

import numpy as np

from ..errors import ArgumentError, MetafuseError, brief

__all__ = ["Budget", "FileFormatError", "Source", "reading", "same_path", "writing"]


class FileFormatError(ArgumentError):
    """A file is damaged, of an unknown kind, or holds something that is refused; the message says which file and what."""


class Source:
    """A file opened for reading, with its size. Reads are exact: what is not there is an error and not a short answer.

    Args:
        file: a binary file that can seek.
        name: how messages call it.
    """

    def __init__(self, file: BinaryIO, name: str) -> None:
        self.file = file
        self.name = name
        self.size = file.seek(0, os.SEEK_END)
        file.seek(0)

    def problem(self, what: str) -> FileFormatError:
        """The error that says ``what`` of this file."""
        return FileFormatError(f"[load] {self.name}: {what}")

    @property
    def position(self) -> int:
        """Where the next read begins."""
        return self.file.tell()

    @property
    def left(self) -> int:
        """Bytes from here to the end."""
        return self.size - self.file.tell()

    def seek(self, position: int) -> None:
        """Go to a byte of the file."""
        if not 0 <= position <= self.size:
            raise self.problem(f"byte {position} is named, of {self.size}; the file is damaged")
        self.file.seek(position)

    def read(self, count: int) -> bytes:
        """The next ``count`` bytes; nothing is allocated for more than there are."""
        if count < 0 or count > self.left:
            raise self.problem(
                f"it ends after {self.size} bytes, in the middle of something; it is incomplete"
            )
        data = self.file.read(count)
        if len(data) != count:
            raise self.problem(f"it became shorter while it was read: {len(data)} of {count} bytes came")
        return data

    def read_at(self, position: int, count: int) -> np.ndarray[Any, Any]:
        """``count`` bytes from ``position`` as a new uint8 array."""
        self.seek(position)
        if count < 0 or count > self.left:
            raise self.problem(
                f"{count} bytes are named at byte {position}, but it has {self.size}; it is incomplete"
            )
        found = np.empty(count, np.uint8)
        view = found.data
        done = 0
        while done < count:
            step = self.file.readinto(view[done : done + (1 << 28)])  # type: ignore[attr-defined]
            if not step:
                raise self.problem(f"it became shorter while it was read: {done} of {count} bytes came")
            done += step
        return found


class Budget:
    """How many bytes the arrays of one file may take: the machine's memory. A few bytes of a file can stand for terabytes."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.left = memory_of_machine()

    def take(self, count: int, what: str) -> None:
        """Count ``count`` bytes. Errors: ``FileFormatError`` if the file stands for more than fits."""
        self.left -= count
        if self.left < 0:
            raise self.source.problem(
                f"{what} would take {count} bytes, and all of the file more than this machine's memory; it is refused"
            )


def memory_of_machine() -> int:
    """Bytes of physical memory; a terabyte where the system does not tell."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return 1 << 40


def same_path(path: str | os.PathLike[str], operator: str = "io") -> str:
    """``path`` as text, with the user's folder filled in. Errors: ``ArgumentError`` for what is no path or an address, or holds
    what no name of a file can."""
    if not isinstance(path, (str, os.PathLike)):
        raise ArgumentError(f"[{operator}] a path must be a string or a Path, got {type(path).__name__}")
    text = os.fspath(path)
    if isinstance(text, bytes):
        text = os.fsdecode(text)
    if "://" in text:
        raise ArgumentError(
            f"[{operator}] {text!r} is an address; get the file with metafuse.data.download_url_to_local(url, filename, folder, "
            "md5) and give its path"
        )
    try:
        possible = b"\0" not in os.fsencode(text)
    except UnicodeEncodeError:
        possible = False
    if not possible:
        raise ArgumentError(
            f"[{operator}] {brief(text)} has characters that no name of a file has; give another"
        )
    return os.path.expanduser(text)


@contextmanager
def reading(path: str | os.PathLike[str] | BinaryIO) -> Iterator[Source]:
    """Open a file for reading; a binary file that is open already is read from its beginning and left open.

    What goes wrong in between because the file is not what it claims comes out as ``FileFormatError``.
    """
    if isinstance(path, (str, bytes, os.PathLike)):
        name = same_path(path, "load")  # type: ignore[arg-type]
        if os.path.isdir(name):
            raise FileFormatError(f"[load] {name!r} is a folder; give a file in it")
        with open(name, "rb") as file, _guarded(repr(name)):
            yield Source(file, repr(name))
        return
    with _guarded("the file"):
        try:
            source = Source(path, "the file")
        except AttributeError:
            raise ArgumentError(f"[load] needs a path or a binary file, got {type(path).__name__}") from None
        yield source


@contextmanager
def _guarded(name: str) -> Iterator[None]:
    """Turn what a hostile file may provoke into one kind of error."""
    try:
        yield
    except (MetafuseError, KeyboardInterrupt):
        raise
    except MemoryError as error:
        raise FileFormatError(f"[load] {name}: it claims more data than fits into memory ({error})") from None
    except RecursionError:
        raise FileFormatError(f"[load] {name}: it is nested too deeply") from None
    except OSError as error:
        if error.errno not in (None, errno.EINVAL):  # of the disk, not of what is written there
            raise
        raise FileFormatError(f"[load] {name}: it is damaged: {error}") from error
    except Exception as error:  # what NumPy, zipfile and the like make of nonsense
        raise FileFormatError(f"[load] {name}: it is damaged: {type(error).__name__}: {error}") from error


@contextmanager
def writing(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """A file to write to that takes the place of ``path`` when everything is written and on the disk, and vanishes if not.

    A reader sees the old file or the new one, never a part. A link is followed; the old file's permissions are kept.
    """
    given = same_path(path, "save")
    target = os.path.realpath(given)
    folder, name = os.path.split(target)
    if os.path.isdir(target) or not os.path.basename(given):
        raise ArgumentError(f"[save] {target!r} is a folder; give the name of a file")
    if not os.path.isdir(folder):
        raise FileNotFoundError(f"[save] the folder {folder!r} does not exist; make it first")
    temporary = os.path.join(folder, f".{name[:100]}.{secrets.token_hex(6)}.part")
    handle = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
    try:
        with os.fdopen(handle, "w+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if os.path.exists(target):
            os.chmod(temporary, os.stat(target).st_mode & 0o7777)
        os.replace(temporary, target)
    except BaseException:
        os.unlink(temporary)
        raise
    _sync_folder(folder)


def _sync_folder(folder: str) -> None:
    """Have the new name on the disk too, where that can be asked for."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(handle)
    except OSError:
        pass
    finally:
        os.close(handle)
