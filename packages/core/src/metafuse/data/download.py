"""Downloads: one verified file from one of several addresses.

What it is: ``fetch``, which resumes, checks the sum, shows how far it is and says how to place the file by hand; and the
reference
API's functions around it.
What it is not: anything that happens at import, or a run-time dependence on an archive.
Who calls it: data sets, when a file is missing and the user has not forbidden it with ``download=False``; users.

Sums are MD5 (a check against damage, not against attackers) or, where 64 digits are given, SHA-256.
"""

from __future__ import annotations

import hashlib
import http.client
import os
import re
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from ..arguments import checked
from ..config import flags
from ..errors import ArgumentError, MetafuseError, brief

__all__ = [
    "DownloadError", "Progress", "calculate_md5", "check_file_exist", "check_integrity", "check_md5", "download_url_to_local",
    "ensure_dir",
    "fetch", "has_hash",
]  # fmt: skip

_CHUNK = 1 << 16
_ATTEMPTS = 3  # per address, while each brings something


class DownloadError(MetafuseError, OSError):
    """A file could not be downloaded or is not the right one; the message says where to put it by hand."""


# -- sums -----------------------------------------------------------------------------------------------------------
def _digest(path: Path, kind: Any, chunk_size: int = _CHUNK) -> str:
    with path.open("rb") as file:
        while block := file.read(chunk_size):
            kind.update(block)
    return str(kind.hexdigest())


def has_hash(path: Path, md5: str) -> bool:
    """Whether the file is there and has this sum: MD5, or SHA-256 if it has 64 digits."""
    if not path.is_file():
        return False
    return _digest(path, _kind(md5)) == md5.lower()


def _kind(digits: str) -> Any:
    if not isinstance(digits, str) or not re.fullmatch(r"[0-9a-fA-F]{32}|[0-9a-fA-F]{64}", digits):
        raise ArgumentError(
            f"[download] a sum must have 32 (MD5) or 64 (SHA-256) hexadecimal digits, got {brief(digits)}"
        )
    return hashlib.md5(usedforsecurity=False) if len(digits) == 32 else hashlib.sha256()


@checked
def calculate_md5(file_path: str | os.PathLike[str], chunk_size: int = 1024 * 1024) -> str:
    """The MD5 sum of a file, in 32 hexadecimal digits.

    Example:
        >>> import pathlib, metafuse as mf
        >>> _ = pathlib.Path("greeting.txt").write_text("hello")
        >>> mf.data.calculate_md5("greeting.txt")
        '5d41402abc4b2a76b9719d911017c592'
    """
    return _digest(Path(file_path), hashlib.md5(usedforsecurity=False), chunk_size)


@checked
def check_md5(file_path: str | os.PathLike[str], md5: str, chunk_size: int = 1024 * 1024) -> bool:
    """Whether a file has this sum. Errors: ``FileNotFoundError``.

    Example:
        >>> import pathlib, metafuse as mf
        >>> _ = pathlib.Path("greeting.txt").write_text("hello")
        >>> mf.data.check_md5("greeting.txt", "5d41402abc4b2a76b9719d911017c592")
        True
    """
    return _digest(Path(file_path), _kind(md5), chunk_size) == md5.lower()


@checked
def check_integrity(fpath: str | os.PathLike[str], md5: str | None = None) -> bool:
    """Whether a file is there, and has this sum if one is given.

    Example:
        >>> import pathlib, metafuse as mf
        >>> _ = pathlib.Path("greeting.txt").write_text("hello")
        >>> mf.data.check_integrity("greeting.txt"), mf.data.check_integrity("nowhere.txt")
        (True, False)
    """
    path = Path(fpath)
    return path.is_file() if md5 is None else has_hash(path, md5)


@checked
def check_file_exist(file_path: str | os.PathLike[str], md5: str | None) -> bool:
    """``check_integrity`` by the reference API's other name.

    Example:
        >>> import metafuse as mf
        >>> mf.data.check_file_exist("nowhere.txt", None)
        False
    """
    return check_integrity(file_path, md5)


@checked
def ensure_dir(dir_path: str | os.PathLike[str]) -> None:
    """Make a folder and those above it, where they are missing.

    Example:
        >>> import metafuse as mf
        >>> import os
        >>> mf.data.ensure_dir("images/train")
        >>> os.path.isdir("images/train")
        True
    """
    os.makedirs(dir_path, exist_ok=True)


# -- downloading ------------------------------------------------------------------------------------------------------
@checked
def download_url_to_local(
    url: str, filename: str | None, root_folder: str | os.PathLike[str], md5: str | None = None
) -> None:
    """Make ``root_folder/filename`` the file behind an address. It is not loaded again if it is there and has the sum.

    Without ``md5`` a file that is there is taken as it is, and one that is loaded as well. Errors: ``DownloadError``.
    """
    name = filename or os.path.basename(urllib.parse.urlparse(url).path)
    if not name or os.path.basename(name) != name:
        raise ArgumentError(f"[download] filename must be a name without folders, got {brief(name)}")
    fetch([url], Path(root_folder).expanduser() / name, md5)


def fetch(urls: Sequence[str], target: Path, md5: str | None, timeout: float = 20.0) -> Path:
    """Make ``target`` the file with this sum, downloading it from the first address that works.

    A part that is there from an interrupted attempt (``<name>.part``) is continued; a connection that breaks is taken
    up again. Of several processes that want the file one loads it, the others wait. How far it is stands on a
    terminal's last line, unless the flag ``log_silent`` is set.

    Errors: ``DownloadError`` naming the file, each address with what went wrong, and where to place the file by hand.
    """
    if check_integrity(target, md5):
        return target
    reasons = []
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(target.name + ".part")
    with _alone(part):
        if check_integrity(target, md5):  # another process was faster
            return target
        for url in urls:
            try:
                _receive_all(url, part, timeout)
            except (OSError, ValueError, http.client.HTTPException) as error:
                reasons.append(f"{url}: {error or type(error).__name__}")
                continue
            if check_integrity(part, md5):
                os.replace(part, target)
                return target
            os.truncate(part, 0)
            reasons.append(f"{url}: the file's {'MD5' if len(md5 or '') == 32 else 'SHA-256'} sum is wrong")
    sums = f" ({'MD5' if len(md5) == 32 else 'SHA-256'} {md5})" if md5 else ""
    raise DownloadError(
        f"[download] can't get {target.name}: {'; '.join(reasons) or 'no address is known'}. "
        f"Get it elsewhere{sums} and put it at {target}"
    )


@contextmanager
def _alone(part: Path) -> Iterator[None]:
    """One process at a time writes to ``part``, where the system has such locks; a lock goes with its process."""
    try:
        import fcntl
    except ImportError:
        yield
        return
    while True:
        file = part.open("ab")
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError:  # a file system without locks
            break
        if part.exists() and os.path.samestat(os.fstat(file.fileno()), part.stat()):
            break
        file.close()  # whoever had it has finished, and the file has another name now
    try:
        yield
    finally:
        if part.exists() and not part.stat().st_size:
            part.unlink()
        file.close()


def _receive_all(url: str, part: Path, timeout: float) -> None:
    """``_receive``, again from where it broke off as long as that helps."""
    for attempt in range(_ATTEMPTS):
        before = part.stat().st_size if part.exists() else 0
        try:
            _receive(url, part, timeout)
            return
        except urllib.error.HTTPError:
            raise
        except (OSError, http.client.HTTPException):
            if attempt + 1 == _ATTEMPTS or not part.exists() or part.stat().st_size <= before:
                raise


def _receive(url: str, part: Path, timeout: float) -> None:
    """Append what is missing of ``url`` to ``part``. Errors: ``OSError`` if the connection ends early."""
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        answer = urllib.request.urlopen(request, timeout=timeout)
    except urllib.error.HTTPError as error:
        if error.code == 416:  # nothing is missing
            return
        raise
    with answer:
        begins = re.match(r"bytes (\d+)-", answer.headers.get("Content-Range") or "")
        resumed = answer.status == 206 and (begins is None or int(begins[1]) == have)
        if answer.status == 206 and not resumed:
            raise OSError(f"asked for byte {have} and later, got byte {begins and begins[1]}")
        length = answer.headers.get("Content-Length") or ""
        total = int(length) + (have if resumed else 0) if length.isdecimal() else None
        done = have if resumed else 0
        with part.open("ab" if resumed else "wb") as file, Progress(part.stem, total) as progress:
            while block := answer.read(_CHUNK):
                file.write(block)
                done += len(block)
                progress.show(done)
    if total is not None and done < total:
        raise OSError(f"the connection ended after {done} of {total} bytes")


class Progress:
    """How far something with bytes is, on the last line of a terminal; elsewhere one line at the end.

    Args:
        name: of what.
        total: bytes altogether, if that is known.
        file: where to write; ``None``: ``stderr``.

    Nothing is written while the flag ``log_silent`` is set.
    """

    def __init__(self, name: str, total: int | None, file: IO[str] | None = None) -> None:
        self.name, self.total = name, total
        self.file = sys.stderr if file is None else file
        self.began = self.shown = time.monotonic()
        self.done = 0
        self.first: int | None = None
        self.live = bool(getattr(self.file, "isatty", lambda: False)())

    def __enter__(self) -> Progress:
        return self

    def show(self, done: int) -> None:
        """``done`` bytes are there now."""
        if self.first is None:
            self.first = done
        self.done = done
        now = time.monotonic()
        if self.live and now - self.shown >= 0.1 and not flags.log_silent:
            self.shown = now
            self.file.write("\r" + self.line(now).ljust(79)[:79])
            self.file.flush()

    def line(self, now: float) -> str:
        """What is shown: a bar, bytes, and how fast."""
        speed = (self.done - (self.first or 0)) / max(now - self.began, 1e-6)
        if self.total:
            part = min(self.done / self.total, 1.0)
            bar = "#" * round(20 * part) + "." * (20 - round(20 * part))
            return f"{self.name[:30]} [{bar}] {part:4.0%} of {_size(self.total)}, {_size(speed)}/s"
        return f"{self.name[:30]} {_size(self.done)}, {_size(speed)}/s"

    def __exit__(self, kind: Any, *_: Any) -> None:
        if self.done and not flags.log_silent:
            text = self.line(time.monotonic()).ljust(79)[:79] if self.live else self.line(time.monotonic())
            self.file.write(("\r" if self.live else "") + text + "\n")
            self.file.flush()


def _size(count: float) -> str:
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"
