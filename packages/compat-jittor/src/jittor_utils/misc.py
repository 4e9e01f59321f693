"""``jittor_utils.misc``: files, their MD5 sums, downloads and archives.

What it is: the reference API's functions over ``metafuse.data.download`` and the standard library.
What it is not: anything that runs unless it is called.
Who calls it: users' data sets.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tarfile
import zipfile
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from metafuse.data.download import DownloadError, fetch
from metafuse.errors import ArgumentError

__all__ = [
    "calculate_md5", "check_file_exist", "check_integrity", "check_md5", "download_and_extract_archive", "download_url_to_local",
    "ensure_dir", "extract_archive",
]  # fmt: skip

PathLike = str | os.PathLike[str]


def ensure_dir(dir_path: PathLike) -> None:
    """Make the folder and those above it, if they are not there."""
    os.makedirs(dir_path, exist_ok=True)


def calculate_md5(file_path: PathLike, chunk_size: int = 1024 * 1024) -> str:
    """The file's MD5 sum in hexadecimal digits.

    Example:
        >>> import os
        >>> calculate_md5(os.devnull)
        'd41d8cd98f00b204e9800998ecf8427e'
    """
    digest = hashlib.md5(usedforsecurity=False)
    with open(file_path, "rb") as file:
        while block := file.read(chunk_size):
            digest.update(block)
    return digest.hexdigest()


def check_md5(file_path: PathLike, md5: str, **kwargs: Any) -> bool:
    """Whether the file has this MD5 sum; ``chunk_size`` may be given."""
    return calculate_md5(file_path, **kwargs) == md5


def check_integrity(fpath: PathLike, md5: str | None = None) -> bool:
    """Whether the file is there, and has this MD5 sum if one is given."""
    return os.path.isfile(fpath) and (md5 is None or check_md5(fpath, md5))


def check_file_exist(file_path: PathLike, md5: str | None) -> bool:
    """``check_integrity`` by another name."""
    return check_integrity(file_path, md5)


def download_url_to_local(url: str, filename: str, root_folder: PathLike, md5: str | None) -> str:
    """Make ``root_folder/filename`` the file at ``url`` and answer its path; nothing is done if it is there already.

    Args:
        md5: the MD5 sum that it must have; ``None``: whatever comes is taken.

    Errors: ``DownloadError`` with the address and where to put the file by hand.
    """
    target = Path(root_folder).expanduser() / filename
    if check_integrity(target, md5):
        return str(target)
    if md5 is not None:
        return str(fetch([url], target, md5))
    return str(_fetch_anything(url, target))


def _fetch_anything(url: str, target: Path) -> Path:
    """The file at ``url``, complete or not at all, for those who know no sum."""
    import urllib.error
    import urllib.request

    part = target.with_name(target.name + ".part")
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        with urllib.request.urlopen(url, timeout=20.0) as answer, part.open("wb") as file:
            shutil.copyfileobj(answer, file)
    except (OSError, ValueError, urllib.error.URLError) as error:
        raise DownloadError(
            f"[download] can't get {url}: {error}. Get it elsewhere and put it at {target}"
        ) from error
    os.replace(part, target)
    return target


def extract_archive(
    from_path: PathLike, to_path: PathLike | None = None, remove_finished: bool = False
) -> None:
    """Unpack a ``.zip`` or ``.tar`` (also ``.tar.gz``, ``.tgz``, ``.tar.xz``, ``.tar.bz2``) file.

    Args:
        to_path: the folder; ``None``: the one in which the archive is.
        remove_finished: delete the archive afterwards.

    Errors: ``ArgumentError`` for other kinds of files, and for archives that name files outside of the folder.
    """
    source = Path(from_path)
    folder = Path(to_path) if to_path is not None else source.parent
    if zipfile.is_zipfile(source):
        with zipfile.ZipFile(source) as archive:
            _check_inside(source, folder, archive.namelist())
            archive.extractall(folder)
    elif tarfile.is_tarfile(source):
        with tarfile.open(source) as tar:
            _check_inside(source, folder, [m.name for m in tar.getmembers()])
            tar.extraction_filter = getattr(tarfile, "data_filter", None)  # refuses links that lead outside
            if tar.extraction_filter is None and any(not (m.isfile() or m.isdir()) for m in tar.getmembers()):
                raise ArgumentError(
                    f"[extract_archive] {source} holds links, which this Python can't unpack safely"
                )
            tar.extractall(folder)
    else:
        raise ArgumentError(f"[extract_archive] {source} is neither a .zip nor a .tar archive")
    if remove_finished:
        source.unlink()


def _check_inside(source: Path, folder: Path, members: list[str]) -> None:
    root = folder.resolve()
    for name in members:
        if not (root / name).resolve().is_relative_to(root):
            raise ArgumentError(
                f"[extract_archive] {source} names {name!r}, which is outside of {folder}; nothing was unpacked"
            )


def download_and_extract_archive(
    url: str,
    download_root: PathLike,
    extract_root: PathLike | None = None,
    filename: str | None = None,
    md5: str | None = None,
    remove_finished: bool = False,
) -> None:
    """``download_url_to_local`` into ``download_root``, then ``extract_archive`` into ``extract_root`` (if not given: there)."""
    root = Path(download_root).expanduser()
    name = filename or os.path.basename(urlparse(url).path)
    path = download_url_to_local(url, name, root, md5)
    extract_archive(path, Path(extract_root).expanduser() if extract_root else root, remove_finished)
