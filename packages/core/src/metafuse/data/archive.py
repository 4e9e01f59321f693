"""Archives: zip, tar (also packed) and single packed files, unpacked into one folder and nowhere else.

What it is: ``extract_archive`` and ``download_and_extract_archive``.
What it is not: needed by the data sets of this package, which read their archives where they are.
Who calls it: users.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from ..arguments import checked
from ..errors import ArgumentError
from .download import download_url_to_local

__all__ = ["download_and_extract_archive", "extract_archive"]

_SINGLE: dict[str, Any] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}


@checked
def extract_archive(
    from_path: str | os.PathLike[str],
    to_path: str | os.PathLike[str] | None = None,
    remove_finished: bool = False,
) -> None:
    """Unpack an archive (by its content: zip or tar; else by its name: .gz, .bz2, .xz) into ``to_path``, by default its own
    folder.

    Args:
        remove_finished: remove the archive afterwards.

    Errors: ``ArgumentError`` for damaged archives, and before anything is written for entries that lead out of the folder, for
    links and for devices; ``FileNotFoundError``.

    Example:
        >>> import metafuse as mf
        >>> import pathlib, zipfile
        >>> with zipfile.ZipFile("images.zip", "w") as archive:
        ...     archive.writestr("a.txt", "hello")
        >>> mf.data.extract_archive("images.zip", "images")
        >>> pathlib.Path("images/a.txt").read_text()
        'hello'
    """
    source = Path(from_path).expanduser()
    folder = source.parent if to_path is None else Path(to_path).expanduser()
    try:
        if tarfile.is_tarfile(source):
            with tarfile.open(source) as tar:
                _unpack(source, folder, list(_tar_entries(source, tar)))
        elif zipfile.is_zipfile(source):
            with zipfile.ZipFile(source) as archive:
                _unpack(source, folder, list(_zip_entries(archive)))
        elif source.suffix in _SINGLE:
            _unpack(source, folder, [(source.stem, lambda: _SINGLE[source.suffix](source))])
        else:
            raise ArgumentError(f"[extract_archive] {str(source)!r} is no zip, tar, .gz, .bz2 or .xz file")
    except (
        tarfile.TarError,
        zipfile.BadZipFile,
        zlib.error,
        lzma.LZMAError,
        EOFError,
        gzip.BadGzipFile,
    ) as error:
        raise ArgumentError(f"[extract_archive] {str(source)!r} is damaged: {error}") from error
    if remove_finished:
        source.unlink()


def _tar_entries(source: Path, tar: tarfile.TarFile) -> Iterator[tuple[str, Any]]:
    for entry in tar.getmembers():
        if entry.isdir():
            yield entry.name + "/", None
        elif entry.isreg():
            yield entry.name, lambda entry=entry: tar.extractfile(entry)
        else:
            raise ArgumentError(
                f"[extract_archive] {entry.name!r} in {str(source)!r} is a link or a device; it is refused"
            )


def _zip_entries(archive: zipfile.ZipFile) -> Iterator[tuple[str, Any]]:
    for entry in archive.infolist():
        yield entry.filename, None if entry.is_dir() else lambda entry=entry: archive.open(entry)


def _unpack(source: Path, folder: Path, entries: list[tuple[str, Any]]) -> None:
    """Write all entries; each appears complete or not at all."""
    root = folder.resolve()
    places = []
    for name, open_entry in entries:
        place = (root / name).resolve()
        inside = root in place.parents or (place == root and open_entry is None)
        if not inside or "\\" in name or Path(name).is_absolute():
            raise ArgumentError(
                f"[extract_archive] {name!r} in {str(source)!r} leads out of the folder; it is refused"
            )
        places.append((place, open_entry))
    root.mkdir(parents=True, exist_ok=True)
    for place, open_entry in places:
        if open_entry is None:
            place.mkdir(parents=True, exist_ok=True)
            continue
        place.parent.mkdir(parents=True, exist_ok=True)
        part = place.with_name(place.name + ".part")
        content: IO[bytes]
        with open_entry() as content, part.open("wb") as file:
            shutil.copyfileobj(content, file, 1 << 20)
        os.replace(part, place)


@checked
def download_and_extract_archive(
    url: str, download_root: str | os.PathLike[str], extract_root: str | os.PathLike[str] | None = None, filename: str | None
    = None,
    md5: str | None = None, remove_finished: bool = False,
) -> None:  # fmt: skip
    """``download_url_to_local``, then ``extract_archive`` into ``extract_root``, by default the same folder."""
    root = Path(download_root).expanduser()
    name = filename or os.path.basename(url.partition("?")[0])
    download_url_to_local(url, name, root, md5)
    extract_archive(root / name, root if extract_root is None else extract_root, remove_finished)
