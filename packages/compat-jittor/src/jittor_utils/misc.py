"""``jittor_utils.misc``: files, their MD5 sums, downloads and archives.

What it is: names of ``metafuse.data.download`` and ``metafuse.data.archive``.
What it is not: anything that runs unless it is called.
Who calls it: users' data sets.
"""

from __future__ import annotations

from metafuse.data.archive import download_and_extract_archive, extract_archive
from metafuse.data.download import (
    calculate_md5,
    check_file_exist,
    check_integrity,
    check_md5,
    download_url_to_local,
    ensure_dir,
)

__all__ = [
    "calculate_md5", "check_file_exist", "check_integrity", "check_md5", "download_and_extract_archive", "download_url_to_local",
    "ensure_dir", "extract_archive",
]  # fmt: skip
