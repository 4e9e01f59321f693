"""The disk cache of compiled modules, shared by all backends and processes of one user.

What it is: a content-addressed store. The key of a kernel is the hash of a backend's fingerprint and of its source text; it
leads to the binary module that holds the kernel. A batch of kernels compiled together is stored as one module that several
keys lead to.
What it is not: a lock server or an index. There is no lock: every file is written under a temporary name and renamed, two
processes that store the same key are both right, and whatever can't be read back intact is dropped and built again.
Who calls it: ``runtime.kernels`` for modules; compilers of backends for small facts about a toolchain (``get_text``).

Layout below ``path``: ``keys/<key>`` holds the digest of a module, ``modules/<digest>`` a header and the binary,
``texts/<key>`` a small text, ``total`` how many bytes these are (``cache_total``). Reading touches the modification time, from
which the least recently used is evicted.
"""

from __future__ import annotations

import hashlib
import os
import stat
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from .. import config
from .cache_total import Total

__all__ = ["CompileCache"]

#: the first bytes of every file; a change of layout gets another number, and older files count as missing
MAGIC = b"metafuse-cache-1\n"
#: eviction goes down to this share of the limit, so that the next stores need none
KEEP_SHARE = 0.8
#: a file read again within this many seconds isn't touched again
TOUCH_SECONDS = 60.0
#: temporary files of processes that died are removed after this many seconds
STALE_SECONDS = 3600.0
#: modules read last that stay in memory
RECENT_MODULES = 8
_FOLDERS = ("keys", "modules", "texts")
#: held while totals change
_counting = threading.Lock()


def _forget() -> None:
    """In a process that was forked while another thread held the lock, nobody would give it back."""
    global _counting
    _counting = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


def _default_directory() -> Path | None:
    try:
        return config.cache_directory()
    except RuntimeError:  # there is no home directory
        return None


def _at_once(path: str, mode: int) -> int:
    """Open without waiting for somebody to write, as a pipe would have it."""
    return os.open(path, mode | getattr(os, "O_NONBLOCK", 0))


class CompileCache:
    """A directory of compiled modules.

    Args:
        directory: where to keep files; by default ``config.cache_directory()``. It is made at the first store.
        limit_bytes: when more is kept than this, the least recently used files go; by default
            ``flags.cache_limit_bytes``.

    No method raises because of the disk: where nothing can be written, one notice is printed and everything is compiled
    again in every process.

    Example:
        >>> import tempfile
        >>> cache = CompileCache(Path(tempfile.mkdtemp()))
        >>> cache.lookup("g++ 12", "int f();") is None
        True
        >>> cache.store("g++ 12", ["int f();", "int g();"], b"binary of both")
        >>> cache.lookup("g++ 12", "int g();")
        b'binary of both'
    """

    def __init__(self, directory: Path | None = None, limit_bytes: int | None = None) -> None:
        self.path: Path | None = Path(directory) if directory is not None else _default_directory()
        self.limit_bytes = config.flags.cache_limit_bytes if limit_bytes is None else limit_bytes
        self._recent: dict[str, bytes] = {}  # several programs may ask for kernels of one module
        self._total = None if self.path is None else Total(self.path, self.path / "modules")
        self._written = 0  # bytes that the total doesn't know of

    # -- modules --------------------------------------------------------------------------------------------------
    @staticmethod
    def key(fingerprint: str, source: str) -> str:
        """The name under which ``source``, compiled by the toolchain that ``fingerprint`` describes, is kept."""
        digest = hashlib.sha256()
        for text in (fingerprint, source):
            data = text.encode("utf-8", "surrogatepass")
            digest.update(len(data).to_bytes(8, "little"))
            digest.update(data)
        return digest.hexdigest()

    def lookup(self, fingerprint: str, source: str) -> bytes | None:
        """The module that holds ``source``, checked against its digest; ``None`` if it has to be compiled."""
        found = self.lookup_all(fingerprint, [source])
        return found[0][0] if found else None

    def lookup_all(self, fingerprint: str, sources: Sequence[str]) -> list[tuple[bytes, list[str]]]:
        """The modules that hold any of ``sources``, each with those that it holds: every module is read once. A source
        that is in none has to be compiled.

        Example:
            >>> import tempfile
            >>> cache = CompileCache(Path(tempfile.mkdtemp()))
            >>> cache.store("g++ 12", ["int f();", "int g();"], b"binary of both")
            >>> cache.lookup_all("g++ 12", ["int g();", "int h();", "int f();"])
            [(b'binary of both', ['int g();', 'int f();'])]
        """
        held: dict[str, list[str]] = {}
        for source in sources:
            module = self._module_of(self.key(fingerprint, source))
            if module is not None:
                held.setdefault(module, []).append(source)
        found = []
        for module, those in held.items():
            binary = self._module(module)
            if binary is not None:
                found.append((binary, those))
                continue
            for source in those:
                self._drop("keys", self.key(fingerprint, source))
        return found

    def _module_of(self, key: str) -> str | None:
        """The digest that ``key`` leads to."""
        name = self._read("keys", key)
        if name is None:
            return None
        module = name.decode("ascii", "replace")
        if len(module) != 64 or not module.isalnum():
            self._drop("keys", key)
            return None
        return module

    def _module(self, module: str) -> bytes | None:
        binary = self._recent.get(module)
        if binary is None:
            binary = self._read("modules", module)
            if binary is not None:
                for oldest in list(self._recent)[: 1 - RECENT_MODULES]:
                    self._recent.pop(oldest, None)
                self._recent[module] = binary
        return binary

    def store(self, fingerprint: str, sources: Sequence[str], binary: bytes) -> None:
        """Keep ``binary`` as the module of all ``sources``."""
        module = hashlib.sha256(binary).hexdigest()
        # The module first: a key must never be visible before what it leads to.
        if self._write("modules", module, binary):
            for source in sources:
                if not self._write("keys", self.key(fingerprint, source), module.encode("ascii")):
                    break
        self._evict()

    # -- small texts ----------------------------------------------------------------------------------------------
    def get_text(self, key: str) -> str | None:
        """The text stored under ``key`` (any string), or ``None``."""
        data = self._read("texts", hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest())
        return None if data is None else data.decode("utf-8", "replace")

    def put_text(self, key: str, text: str) -> None:
        """Keep a small text, such as what a compiler says about itself."""
        name = hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()
        self._write("texts", name, text.encode("utf-8", "replace"))

    def drop_text(self, key: str) -> None:
        """Forget the text stored under ``key``."""
        self._drop("texts", hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest())

    # -- care -----------------------------------------------------------------------------------------------------
    def size(self) -> int:
        """Bytes kept on disk."""
        return sum(size for _, _, size in self._files())

    def clear(self) -> None:
        """Remove every file of the cache, and nothing else."""
        for name, _, _ in self._files():
            self._unlink(name)
        self._recent.clear()
        if self._total is not None:
            self._total.forget()

    # -- files ----------------------------------------------------------------------------------------------------
    def _read(self, folder: str, name: str) -> bytes | None:
        """The checked content of one file; a damaged file is removed."""
        if self.path is None:
            return None
        file = self.path / folder / name
        try:
            with open(file, "rb", opener=_at_once) as stream:
                status = os.fstat(stream.fileno())
                data = stream.read() if stat.S_ISREG(status.st_mode) else b""
                age = time.time() - status.st_mtime
        except OSError:
            return None
        start = len(MAGIC) + 32
        if not data.startswith(MAGIC) or hashlib.sha256(data[start:]).digest() != data[len(MAGIC) : start]:
            self._drop(folder, name)
            return None
        if age > TOUCH_SECONDS:
            try:
                os.utime(file)
            except OSError:
                pass  # a read-only cache is still good for reading
        return data[start:]

    def _write(self, folder: str, name: str, content: bytes) -> bool:
        """Write one file so that it appears whole or not at all; answers whether it did."""
        if self.path is None:
            self._notice("there is no home directory")
            return False
        temporary = ""
        try:
            target = self.path / folder
            if not target.is_dir():
                target.mkdir(mode=0o700, parents=True, exist_ok=True)
            handle, temporary = tempfile.mkstemp(prefix=".", suffix=".part", dir=target)
            with open(handle, "wb") as stream:
                stream.write(MAGIC + hashlib.sha256(content).digest() + content)
            os.replace(temporary, target / name)
        except OSError as error:
            if temporary:
                self._unlink(temporary)
            self._notice(error.strerror or type(error).__name__)
            return False
        with _counting:
            self._written += len(content) + len(MAGIC) + 32
        return True

    def _drop(self, folder: str, name: str) -> None:
        if self.path is not None:
            self._unlink(str(self.path / folder / name))

    @staticmethod
    def _unlink(name: str) -> None:
        try:
            os.unlink(name)
        except OSError:
            pass

    def _files(self) -> list[tuple[str, float, int]]:
        """(path, modification time, size) of everything kept, temporary files included."""
        found: list[tuple[str, float, int]] = []
        for folder in _FOLDERS if self.path is not None else ():
            try:
                with os.scandir(os.path.join(str(self.path), folder)) as entries:
                    for entry in entries:
                        try:
                            status = entry.stat(follow_symlinks=False)
                        except OSError:
                            continue  # removed by another process meanwhile
                        found.append((entry.path, status.st_mtime, status.st_size))
            except OSError:
                continue
        return found

    def _evict(self) -> None:
        """Bring the size below the limit. The directory is listed where the total says so, or nobody has for a day."""
        if self._total is None or not self._written:
            return
        with _counting:
            known = self._total.add(self._written)
            self._written = 0
            if known is None or known > self.limit_bytes:
                self._total.begin(self._cleaned())

    def _cleaned(self) -> int:
        """List the directory, remove what is left of dead processes and what is too much; answers the bytes that stay."""
        files = self._files()
        now = time.time()
        for name, modified, _ in files:
            if name.endswith(".part") and now - modified > STALE_SECONDS:
                self._unlink(name)
        total = sum(size for _, _, size in files)
        if total > self.limit_bytes:
            # Keys are small and go with the oldest too; one that leads to an evicted module is dropped when it is read.
            for name, _, size in sorted(files, key=lambda file: file[1]):
                if total <= self.limit_bytes * KEEP_SHARE:
                    break
                self._unlink(name)
                total -= size
        return total

    def _notice(self, reason: str) -> None:
        where = "" if self.path is None else f" in {str(self.path)!r}"
        config.notice(
            f"the compile cache can't be written{where}: {reason}; kernels are compiled again in every process. "
            "Set METAFUSE_CACHE_DIR to a directory with space"
        )
