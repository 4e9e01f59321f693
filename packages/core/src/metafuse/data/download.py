"""Downloads: one verified file from one of several addresses.

What it is: ``fetch``, which resumes, checks the hash and says how to place the file by hand.
What it is not: anything that happens at import, or a run-time dependence on an archive.
Who calls it: data sets, when a file is missing and the user has not forbidden it with ``download=False``.
"""

from __future__ import annotations

import hashlib
import os
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path

from ..errors import MetafuseError

__all__ = ["DownloadError", "fetch", "has_hash"]

_CHUNK = 1 << 16


class DownloadError(MetafuseError, OSError):
    """A file could not be downloaded or is not the right one; the message says where to put it by hand."""


def has_hash(path: Path, md5: str) -> bool:
    """Whether the file is there and has this MD5 sum (a check against damage, not against attackers)."""
    if not path.is_file():
        return False
    digest = hashlib.md5(usedforsecurity=False)
    with path.open("rb") as file:
        while block := file.read(_CHUNK):
            digest.update(block)
    return digest.hexdigest() == md5


def fetch(urls: Sequence[str], target: Path, md5: str, timeout: float = 20.0) -> Path:
    """Make ``target`` the file with this MD5 sum, downloading it from the first address that works.

    A part that is there from an interrupted attempt (``<name>.part``) is continued.

    Errors: ``DownloadError`` naming the file, each address with what went wrong, and where to place the file by hand.
    """
    if has_hash(target, md5):
        return target
    reasons = []
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(target.name + ".part")
    for url in urls:
        try:
            _receive(url, part, timeout)
        except (OSError, urllib.error.URLError, ValueError) as error:
            reasons.append(f"{url}: {error}")
            continue
        if has_hash(part, md5):
            os.replace(part, target)
            return target
        part.unlink(missing_ok=True)
        reasons.append(f"{url}: the file's MD5 sum is wrong")
    raise DownloadError(
        f"[download] can't get {target.name}: {'; '.join(reasons)}. Get it elsewhere (MD5 {md5}) and put it at {target}"
    )


def _receive(url: str, part: Path, timeout: float) -> None:
    """Append what is missing of ``url`` to ``part``."""
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        answer = urllib.request.urlopen(request, timeout=timeout)
    except urllib.error.HTTPError as error:
        if error.code == 416:  # nothing is missing
            return
        raise
    with answer, part.open("ab" if answer.status == 206 else "wb") as file:
        while block := answer.read(_CHUNK):
            file.write(block)
