"""How many bytes a cache directory holds, without listing it.

What it is: one small file beside the cache: when the directory was last listed and what it held, and behind that what every
process has added since, each with one appending write. No process has to list a directory that another one listed today.
What it is not: exact. A process that dies between writing a file and noting it, or that notes it while another one begins a new
count, leaves a total that is too small, and files that replace others or are removed one that is too large; so a count is
good for a day, and whoever finds the limit passed lists the directory first.
Who calls it: ``compile_cache``.
"""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path

__all__ = ["Total"]

#: what the file begins with; then the time of the listing, what it found, and what was added: ``<time> <bytes>+<bytes>+...``
HEAD = b"metafuse-cache-total-1 "
#: after so many seconds a directory is listed again
GOOD_SECONDS = 86_400.0
#: a longer file is written anew, as one sum
LONGEST = 1 << 16


class Total:
    """The count of one directory.

    Args:
        directory: the cache.
        temporary: a directory of the same file system for files that are being written.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> Total(folder, folder).add(5) is None  # nobody has listed it
        True
        >>> Total(folder, folder).begin(100)
        >>> Total(folder, folder).add(5), Total(folder, folder).add(0)
        (105, 105)
    """

    def __init__(self, directory: Path, temporary: Path) -> None:
        self._file = directory / "total"
        self._temporary = temporary
        self._pending = 0  # what could not be noted
        self._own: tuple[float, int] | None = None  # the count, where the file can't be written

    def add(self, nbytes: int) -> int | None:
        """Note that ``nbytes`` were written; answers the bytes of all, or ``None`` if the directory has to be listed."""
        self._pending += nbytes
        data = self._read()
        found = self._own if self._own is not None else _parsed(data)
        if found is None or not 0 <= time.time() - found[0] < GOOD_SECONDS:
            return None
        total = found[1] + self._pending
        if self._own is None and self._pending:
            if len(data) > LONGEST:
                self._write(found[0], total)
            else:
                self._append(self._pending)
        return total

    def begin(self, total: int) -> None:
        """Begin a new count: the directory was listed, and this is what it holds."""
        self._pending = 0
        now = time.time()
        self._own = None if self._write(now, total) else (now, total)

    def forget(self) -> None:
        """Remove the file."""
        self._pending, self._own = 0, None
        try:
            os.unlink(self._file)
        except OSError:
            pass

    # -- the file -------------------------------------------------------------------------------------------------
    def _read(self) -> bytes:
        try:
            with open(self._file, "rb") as stream:
                return stream.read()
        except OSError:
            return b""

    def _append(self, nbytes: int) -> None:
        try:
            handle = os.open(self._file, os.O_WRONLY | os.O_APPEND)
            try:
                os.write(handle, b"+%d" % nbytes)
            finally:
                os.close(handle)
        except OSError:
            return  # read-only or full: it stays pending
        self._pending = 0

    def _write(self, listed: float, total: int) -> bool:
        """Replace the file, whole or not at all."""
        temporary = ""
        try:
            handle, temporary = tempfile.mkstemp(prefix=".", suffix=".part", dir=self._temporary)
            with open(handle, "wb") as stream:
                stream.write(HEAD + b"%d %d" % (int(listed), total))
            os.replace(temporary, self._file)
        except OSError:
            if temporary:
                try:
                    os.unlink(temporary)
                except OSError:
                    pass
            return False
        self._pending = 0
        return True


def _parsed(data: bytes) -> tuple[float, int] | None:
    """When the directory was listed, and the sum; ``None`` for what is no such file."""
    if not data.startswith(HEAD):
        return None
    listed, _, rest = data[len(HEAD) :].partition(b" ")
    try:
        return float(int(listed)), sum(int(part) for part in rest.split(b"+") if part)
    except ValueError:
        return None
